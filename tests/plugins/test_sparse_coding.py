import numpy as np
import pytest
import torch
from sklearn.decomposition import sparse_encode
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.features.extraction import extract
from featbench.learning.banks import fill_bank
from featbench.learning.networks import assemble, learn_stages
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.sparse_coding import SparseCoding
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.stages.filters import Bank, Filters

CPU = torch.device("cpu")
QUICK = {"lam": 0.3, "patches": 300, "updates": 5, "batch": 64, "tolerance": 1e-6}


def smooth(count=60, maps=1, side=10, seed=0):
    """Noise whose neighbouring pixels are alike, of another mean than zero."""
    noise = np.random.default_rng(seed).standard_normal((count, maps, side + 1, side + 1))
    return torch.from_numpy(noise[..., 1:, 1:] + noise[..., :-1, 1:] + noise[..., 1:, :-1] + 0.5).float()


def source(images, size, seed=0):
    return PatchSource(MapSource(images, nn.Identity(), CPU), size, seed)


def learn(seed=0, bank=None, images=None, **parameters):
    bank = bank or Bank(12, 3, 1)
    images = smooth(maps=bank.fan_in) if images is None else images
    return fill_bank(SparseCoding(**{**QUICK, **parameters}), bank, source(images, bank.size), seed)


def scale_of(images, bank, centre=True):
    return PatchMatrix.sample("sparse-coding", bank, source(images, bank.size), QUICK["patches"], centre=centre).scale


def expected_codes(maps, filters, scale, lam=0.3, centre=True):
    """Codes [n, filters, h, w] by scikit-learn, position by position."""
    size, atoms = filters.weight.shape[-1], filters.extras["decoder"].flatten(1).double().numpy()
    n, _, height, width = maps.shape
    out = np.empty((n, len(atoms), height - size + 1, width - size + 1))
    for r in range(out.shape[2]):
        for c in range(out.shape[3]):
            y = maps[:, :, r : r + size, c : c + size].flatten(1).double().numpy()
            y = (y - y.mean(axis=1, keepdims=True) if centre else y) / scale
            out[:, :, r, c] = sparse_encode(y, atoms, algorithm="lasso_cd", alpha=lam, max_iter=100_000)
    return out


@pytest.mark.parametrize("solver", ["fista", "feature-sign"])
@pytest.mark.parametrize("bank", [Bank(6, 3, 1), Bank(20, 3, 1), Bank(10, 2, 3), Bank(5, 1, 3)])
@pytest.mark.parametrize("centre", [True, False])
def test_codes_at_every_position_are_scikit_learns_of_the_patch_there(solver, bank, centre):
    images, fresh = 5 * smooth(maps=bank.fan_in), 5 * smooth(2, bank.fan_in, 6, seed=1)
    filters = learn(bank=bank, images=images, solver=solver, centre=centre)
    learner = SparseCoding(**{**QUICK, "solver": solver, "tolerance": 1e-9, "centre": centre})
    codes = learner.encoder(filters, np.arange(bank.fan_in)[None])(fresh).detach()
    assert codes.dtype == torch.float32
    expected = expected_codes(fresh, filters, scale_of(images, bank, centre), centre=centre)
    if bank.filters <= 9:
        np.testing.assert_allclose(codes, expected, atol=2e-3)
    # Where there are more atoms than the patch has dimensions codes need not be unique; what they cost is.
    atoms = filters.extras["decoder"].flatten(1).double()
    size, scale = bank.size, scale_of(images, bank, centre)
    y = nn.functional.unfold(fresh, size).transpose(1, 2).flatten(0, 1).double()
    y = (y - y.mean(dim=1, keepdim=True) if centre else y) / scale

    def cost(found):
        rows = torch.as_tensor(found).double().flatten(2).transpose(1, 2).flatten(0, 1)
        return 0.5 * (y - rows @ atoms).square().sum(dim=1) + 0.3 * rows.abs().sum(dim=1)

    np.testing.assert_allclose(cost(codes), cost(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["fista", "feature-sign"])
def test_each_group_of_a_connection_table_has_a_problem_of_its_own(solver):
    table, images, fresh = np.array([[0, 2], [3, 1]]), smooth(maps=4), smooth(2, 4, 5, seed=1)
    images[:, 3], fresh[:, 3] = 20 * images[:, 3], 20 * fresh[:, 3]
    learner = SparseCoding(**{**QUICK, "solver": solver})
    groups = [learn(seed, Bank(6, 3, 2), images[:, seen]) for seed, seen in enumerate(table)]
    together = learner.encoder(Filters.concatenate(groups), table)(fresh)
    assert together.shape == (2, 12, 3, 3)
    for group, (filters, seen) in enumerate(zip(groups, table, strict=True)):
        alone = learner.encoder(filters, np.array([[0, 1]]))(fresh[:, seen])
        torch.testing.assert_close(together[:, 6 * group : 6 * group + 6], alone, atol=1e-3, rtol=1e-3)
        expected = expected_codes(fresh[:, seen], filters, scale_of(images[:, seen], Bank(6, 3, 2)))
        np.testing.assert_allclose(alone.detach(), expected, atol=5e-3)


def test_codes_do_not_depend_on_the_batch_nor_on_brightness():
    filters, learner, fresh = learn(), SparseCoding(**QUICK), smooth(5, seed=1)
    encoder = learner.encoder(filters, np.array([[0]]))
    together = encoder(fresh)
    torch.testing.assert_close(encoder(fresh[2:3]), together[2:3], atol=2e-3, rtol=0)
    torch.testing.assert_close(encoder(fresh + 10), together, atol=2e-3, rtol=0)


def test_flat_maps_have_no_code():
    encoder = SparseCoding(**QUICK).encoder(learn(), np.array([[0]]))
    for value in (0.0, 3.0):
        assert float(encoder(torch.full((2, 1, 6, 6), value)).abs().max()) < 1e-4


def test_filters_are_the_atoms_on_scaled_maps_blind_to_the_mean():
    images, bank = smooth(), Bank(12, 3, 1)
    filters = learn(images=images)
    atoms = filters.extras["decoder"]
    np.testing.assert_allclose(atoms.flatten(1).norm(dim=1), np.ones(12), atol=1e-5)
    expected = (atoms - atoms.mean(dim=(1, 2, 3), keepdim=True)) / scale_of(images, bank)
    torch.testing.assert_close(filters.weight, expected, atol=1e-5, rtol=1e-4)


def test_seed_decides_the_filters_and_global_random_state_plays_no_part():
    torch.manual_seed(1)
    one = learn(seed=1)
    torch.manual_seed(2)
    same, other = learn(seed=1), learn(seed=2)
    assert torch.equal(one.weight, same.weight)
    assert torch.equal(one.extras["decoder"], same.extras["decoder"])
    assert not torch.equal(one.weight, other.weight)


def test_two_stages_with_a_connection_table():
    architecture, learner = (
        Architecture.parse("4F3-Rabs-PA2/2 > 32F3:2-Rabs"),
        SparseCoding(**{**QUICK, "tolerance": 1e-3}),
    )
    images = smooth(20, side=12)
    stages = learn_stages(architecture, learner, (1, 12, 12), images, seed=0, device=CPU)
    assert tuple(stages[1].filters.weight.shape) == (32, 2, 3, 3)
    features = extract(assemble(architecture, learner, (1, 12, 12), stages), images, CPU)
    assert features.shape == (20, 32 * 3 * 3)
    assert np.isfinite(features).all()
    assert features.std() > 0


def test_labels_cannot_refine_it():
    pixels, labels = smooth(40)[:, 0].numpy(), np.arange(40) % 2
    extractor = featbench.Extractor("4F3-PA2", "sparse-coding", learner_params=QUICK, refined=True)
    with pytest.raises(UsageError, match="sparse-coding is not differentiable, so labels cannot refine it"):
        extractor.fit(pixels, labels)


def test_regimes_with_labels_are_skipped_with_their_reason(compare_tiny):
    ran = compare_tiny("--features", "sparse-coding", "--regimes", "U,U+", "--draws", "1", "--plan")
    assert ran.code == 0
    assert "sparse-coding U nearest draw 0" in ran.out
    reason = "sparse-coding is not differentiable, so labels cannot refine it"
    assert f"skipped: sparse-coding U+: {reason}" in ran.out


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"solver": "ista"}, "solver is one of fista, feature-sign, not 'ista'"),
        ({"lam": 0.0}, "lam > 0 and tolerance > 0 are needed"),
        ({"tolerance": 0.0}, "lam > 0 and tolerance > 0 are needed"),
        *(({name: 0}, "must be at least 1") for name in ("patches", "updates", "batch")),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(UsageError, match=message):
        SparseCoding.create(parameters)


def test_bad_patches_are_refused():
    with pytest.raises(LearningError, match="sparse-coding learns from patches and was given none"):
        SparseCoding().filters(Bank(4, 5, 1), None, 0)
    with pytest.raises(LearningError, match="constant"):
        learn(images=torch.full((10, 1, 9, 9), 0.3))
    with pytest.raises(LearningError, match="sparse-coding cannot learn 12 filters from 11 patches"):
        learn(patches=11)
    images = smooth()
    images[:, 0, 4, 4] = float("nan")
    with pytest.raises(LearningError, match="not finite"):
        learn(images=images)


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("sparse-coding") is SparseCoding
    assert SparseCoding.family == "unsupervised"
