"""Dictionaries learned online: as good as scikit-learn's, planted ones found, dead atoms revived."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning

from featbench.errors import LearningError, UsageError
from featbench.sparse import feature_sign, learn_dictionary


@pytest.fixture(scope="module")
def planted():
    """Return patches [4000, 16] of three of 24 atoms each, and the atoms [16, 24]."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(16, 24, generator=generator, dtype=torch.float64)
    atoms /= atoms.norm(dim=0)
    chosen = torch.rand(4000, 24, generator=generator).argsort(dim=1) < 3
    codes = torch.randn(4000, 24, generator=generator, dtype=torch.float64).sign() * chosen
    return codes @ atoms.T * 2, atoms


def held_out(patches, dictionary, lam):
    return float(feature_sign(patches, dictionary, lam).objective.mean())


def test_a_planted_dictionary_is_found(planted):
    patches, atoms = planted
    learned = learn_dictionary(patches, 24, 0.3, updates=250, batch=128, seed=1)
    found = (learned.atoms.T @ atoms).abs().amax(dim=0)
    assert float((found > 0.97).double().mean()) > 0.9
    assert learned.objective.shape == (250,)
    assert float(learned.objective[-20:].mean()) < 0.8 * float(learned.objective[:5].mean())


def test_it_is_no_worse_than_scikit_learn(planted):
    patches, test = planted[0][:3000], planted[0][3000:]
    settings = {"alpha": 0.3, "batch_size": 128, "max_iter": 5, "fit_algorithm": "cd", "random_state": 0}
    theirs = MiniBatchDictionaryLearning(24, **settings).fit(patches.numpy()).components_.T
    ours = learn_dictionary(patches, 24, 0.3, updates=120, batch=128)
    assert held_out(test, ours.atoms, 0.3) <= held_out(test, np.ascontiguousarray(theirs), 0.3) * 1.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atoms_have_unit_norm_and_come_back_for_a_seed(planted, dtype):
    patches = planted[0].to(dtype)
    first, again = (learn_dictionary(patches, 12, 0.5, updates=10, batch=64, seed=3) for _ in range(2))
    other = learn_dictionary(patches, 12, 0.5, updates=10, batch=64, seed=4)
    assert first.atoms.shape == (16, 12) and first.atoms.dtype == dtype
    assert torch.allclose(first.atoms.norm(dim=0), torch.ones(12, dtype=dtype), atol=1e-6)
    assert torch.equal(first.atoms, again.atoms) and not torch.equal(first.atoms, other.atoms)


def test_dead_atoms_are_revived(planted, monkeypatch):
    patches, _ = planted

    def useless(patches, atoms, seed):
        # All atoms but two point where no patch does.
        first = torch.zeros(17, atoms, dtype=torch.float64)
        first[16] = 1
        first[16, :2] = 0
        first[:16, :2] = patches[:2, :16].T
        return first / first.norm(dim=0)

    monkeypatch.setattr("featbench.sparse.dictionary.draw_first_atoms", useless)
    flat = torch.cat([patches, torch.zeros(len(patches), 1)], dim=1)
    learned = learn_dictionary(flat, 10, 0.3, updates=80, batch=64)
    assert learned.revived >= 8
    assert bool((feature_sign(flat, learned.atoms, 0.3).codes != 0).any(dim=0).all())


def test_nonnegative_codes_can_be_asked_for(planted):
    patches, _ = planted
    learned = learn_dictionary(patches.abs(), 12, 0.3, updates=20, batch=64, nonnegative=True)
    assert bool(torch.isfinite(learned.atoms).all())


def test_patches_of_one_pixel_are_learned_from():
    learned = learn_dictionary(torch.tensor([[1.0], [-2.0], [3.0]]), 1, 0.1, updates=2, batch=4)
    assert float(learned.atoms.abs()) == 1


BAD = {
    "constant": ((torch.full((30, 4), 2.0), 5, 1.0), {}, LearningError, "30 of 30 patches are constant"),
    "zeros": ((torch.zeros(30, 4), 5, 1.0), {}, LearningError, "hold no signal"),
    "few": ((torch.rand(4, 4), 5, 1.0), {}, LearningError, "4 patches are too few for 5 atoms"),
    "NaN": ((torch.full((30, 4), torch.nan), 5, 1.0), {}, LearningError, "patch 0 is not finite"),
    "λ": ((torch.rand(30, 4), 5, 0.0), {}, UsageError, "λ must be"),
    "no atoms": ((torch.rand(30, 4), 0, 1.0), {}, UsageError, "must be at least 1, and are 0, 500 and 256"),
    "no updates": ((torch.rand(30, 4), 5, 1.0), {"updates": 0}, UsageError, "must be at least 1"),
    "integers": ((torch.ones(30, 4).int(), 5, 1.0), {}, UsageError, "float32 or float64"),
}


@pytest.mark.parametrize("arguments, options, kind, message", BAD.values(), ids=BAD.keys())
def test_what_cannot_be_learned_from_is_named(arguments, options, kind, message):
    with pytest.raises(kind, match=message):
        learn_dictionary(*arguments, **options)
