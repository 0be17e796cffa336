import numpy as np
import pytest
import torch
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.learning.banks import fill_bank, fill_table
from featbench.learning.patches import MapSource, PatchSource
from featbench.learning.predictive_decomposition import Wiring, draw_random_atoms
from featbench.plugins import psd
from featbench.plugins.psd import Psd
from featbench.registry import Registry
from featbench.stages.encoders import build_encoder
from featbench.stages.filters import Bank, Filters

CPU = torch.device("cpu")
QUICK = {"lam": 0.2, "patches": 600, "updates": 60, "batch": 64}
ENCODERS = ["tanh", "shrink", "smooth-shrink"]
ALONE = np.array([[0]])


def sample(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def sparse_patches(count, seed, filters=16, size=5, maps=1):
    """Images of the size of a patch, each a sum of two or three atoms of zero mean; and those atoms, as rows."""
    generator = np.random.default_rng(99)
    atoms = generator.standard_normal((filters, maps * size * size))
    atoms -= atoms.mean(axis=1, keepdims=True)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    codes = np.zeros((count, filters))
    for row in codes:
        chosen = generator.choice(filters, generator.integers(2, 4), replace=False)
        row[chosen] = generator.choice([-1, 1], len(chosen)) * generator.uniform(1, 3, len(chosen))
    patches = codes @ atoms + 0.01 * generator.standard_normal((count, maps * size * size))
    return torch.from_numpy(patches.reshape(count, maps, size, size)).float(), atoms


def source(images, size=5, seed=0):
    return PatchSource(MapSource(images, nn.Identity(), CPU), size, seed)


def learn(seed=0, bank=None, images=None, **parameters):
    images = sparse_patches(600, 0)[0] if images is None else images
    bank = bank or Bank(16, 5, 1)
    return fill_bank(Psd(**{**QUICK, **parameters}), bank, source(images, bank.size), seed)


def long_ista(y, atoms, prediction, lam, alpha, steps=400):
    codes, step = prediction.clone(), 1 / (torch.linalg.matrix_norm(atoms, 2) ** 2 + alpha)
    for _ in range(steps):
        moved = codes - step * ((codes @ atoms - y) @ atoms.T + alpha * (codes - prediction))
        codes = moved.sign() * (moved.abs() - step * lam).clamp_min(0)
    return codes


def centred(images):
    rows = images.flatten(1).double()
    return rows - rows.mean(dim=1, keepdim=True)


def rows_scale(images, patches, size=5):
    """What the learner divided patches by."""
    return float(centred(source(images, size).sample(patches)).square().mean().sqrt())


def energy_of(filters, nonlinearity, images, scale, lam=0.2, alpha=1.0):
    """Mean of ½‖y - B z‖² + λ‖z‖₁ + α/2 ‖z - F‖² at the best codes, from what the learner returned alone."""
    prediction = build_encoder(nonlinearity, filters, ALONE)(images).flatten(1).detach().double()
    y, atoms = centred(images) / scale, filters.extras["decoder"].flatten(1).double()
    codes = long_ista(y, atoms, prediction, lam, alpha)
    parts = 0.5 * (y - codes @ atoms).square(), lam * codes.abs(), 0.5 * alpha * (codes - prediction).square()
    return sum(float(part.sum()) for part in parts) / len(y)


@pytest.mark.parametrize("nonlinearity", ENCODERS)
def test_energy_of_held_out_patches_falls_as_it_learns(nonlinearity):
    images, held_out = sparse_patches(2000, 0)[0], sparse_patches(200, 1)[0]
    scale = rows_scale(images, 2000)
    energies = [
        energy_of(
            learn(images=images, patches=2000, updates=updates, batch=128, nonlinearity=nonlinearity),
            nonlinearity,
            held_out,
            scale,
        )
        for updates in (1, 30, 150)
    ]
    assert energies[1] < 0.9 * energies[0]
    assert energies[2] < 0.9 * energies[1]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_atoms_that_made_the_patches_are_found(alpha):
    images, atoms = sparse_patches(3000, 0)
    filters = learn(images=images, lam=0.5, alpha=alpha, patches=3000, updates=400, batch=128)
    decoder = filters.extras["decoder"].flatten(1).numpy()
    found = np.abs(atoms @ decoder.T).max(axis=1)
    generator = np.random.default_rng(5)
    chance = []
    for _ in range(20):
        other = generator.standard_normal(decoder.shape)
        other -= other.mean(axis=1, keepdims=True)
        chance.append(np.abs(atoms @ (other / np.linalg.norm(other, axis=1, keepdims=True)).T).max(axis=1).mean())
    assert max(chance) < 0.6
    assert found.mean() > 0.9


@pytest.mark.parametrize("nonlinearity", ENCODERS)
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_encoder_predicts_the_best_codes_better_than_nothing(nonlinearity, alpha):
    images = sparse_patches(3000, 0)[0]
    parameters = {"nonlinearity": nonlinearity, "alpha": alpha, "patches": 3000, "updates": 150, "batch": 128}
    filters = learn(images=images, **parameters)
    held_out = sparse_patches(200, 1)[0]
    y, atoms = centred(held_out) / rows_scale(images, 3000), filters.extras["decoder"].flatten(1).double()
    codes = long_ista(y, atoms, torch.zeros(200, 16, dtype=torch.float64), 0.2, 0.0)
    predicted = build_encoder(nonlinearity, filters, ALONE)(held_out).flatten(1).detach()
    assert float((predicted - codes).square().sum()) < 0.35 * float(codes.square().sum())


@pytest.mark.parametrize("nonlinearity", ENCODERS)
@pytest.mark.parametrize("bank", [Bank(16, 5, 1), Bank(40, 5, 1), Bank(6, 3, 2), Bank(4, 1, 3)])
def test_atoms_have_unit_norm_and_everything_the_shape_asked_for(bank, nonlinearity):
    images = sample(40, bank.fan_in, 9, 9)
    filters = learn(bank=bank, images=images, nonlinearity=nonlinearity, updates=10)
    assert filters.weight.shape == bank.shape
    assert filters.extras["decoder"].shape == bank.shape
    np.testing.assert_allclose(filters.extras["decoder"].flatten(1).norm(dim=1), np.ones(bank.filters), atol=1e-5)
    names = {"tanh": set(), "shrink": {"threshold"}, "smooth-shrink": {"threshold", "sharpness"}}[nonlinearity]
    assert set(filters.extras) == {"decoder"} | names
    assert bool((filters.gain == 1).all()) is (nonlinearity != "tanh")


def test_filters_see_no_offset():
    assert float(learn().weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-6
    assert float(learn(centre=False).weight.mean(dim=(1, 2, 3)).abs().max()) > 1e-3


@pytest.mark.parametrize("nonlinearity", ENCODERS)
def test_brightness_and_contrast_of_the_images_are_taken_out(nonlinearity):
    images = sparse_patches(600, 0)[0]
    plain = learn(images=images, nonlinearity=nonlinearity)
    changed = learn(images=4 * images + 3, nonlinearity=nonlinearity)
    torch.testing.assert_close(changed.weight, plain.weight / 4, atol=1e-2, rtol=0)
    torch.testing.assert_close(changed.extras["decoder"], plain.extras["decoder"], atol=1e-2, rtol=0)
    codes = build_encoder(nonlinearity, plain, ALONE)(images)
    torch.testing.assert_close(build_encoder(nonlinearity, changed, ALONE)(4 * images + 3), codes, atol=0.1, rtol=0)


def test_seed_decides_the_filters():
    one, same, other = learn(seed=1), learn(seed=1), learn(seed=2)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
        assert not torch.equal(tensor, other.tensors()[name])


def test_seed_decides_the_order_of_the_patches_too(monkeypatch):
    monkeypatch.setattr(psd, "draw_random_atoms", lambda bank, seed, batch: draw_random_atoms(bank, 0, batch))
    assert not torch.equal(learn(seed=1).weight, learn(seed=2).weight)


def test_global_random_state_plays_no_part():
    torch.manual_seed(1)
    first = learn(updates=3)
    torch.manual_seed(2)
    assert torch.equal(learn(updates=3).weight, first.weight)


def test_single_pixels_can_be_learned_from():
    filters = learn(bank=Bank(4, 1, 1), images=sample(20, 1, 6, 6), updates=5)
    assert bool((filters.weight != 0).all())


# A whole connection table at once.

TABLE = np.array([[0, 2], [3, 1], [2, 3]])


def connected(table=TABLE, maps=4, each=4, size=3, images=None, seed=0, **parameters):
    """Learn the filters of a table, by way of what stages do."""
    learner, bank = Psd(**{**QUICK, **parameters}), Bank(each, size, table.shape[1])
    images = sample(60, maps, 8, 8) if images is None else images
    return fill_table(learner, bank, table, maps, source(images, size), seed, "filters", 1)


@pytest.mark.parametrize("nonlinearity", ENCODERS)
def test_filters_of_a_table_see_the_maps_of_their_group_alone(nonlinearity):
    filters = connected(nonlinearity=nonlinearity)
    assert filters.weight.shape == filters.extras["decoder"].shape == (12, 2, 3, 3)
    np.testing.assert_allclose(filters.extras["decoder"].flatten(1).norm(dim=1), np.ones(12), atol=1e-5)
    assert float(filters.weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-6
    wiring = Wiring(Bank(12, 3, 2), TABLE, 4)
    for tensor in (filters.weight, filters.extras["decoder"]):
        spread = wiring.spread(tensor)
        for k in range(12):
            seen = {int(maps) for maps in spread[k].flatten(1).abs().sum(dim=1).nonzero()}
            assert seen == set(TABLE[k // 4])
    encoder = Psd(nonlinearity=nonlinearity).encoder(filters, TABLE)
    images, other = sample(1, 4, 5, 5, seed=1), sample(1, 4, 5, 5, seed=1)
    other[:, 1] += sample(1, 5, 5, seed=2)
    changed = (encoder(images) != encoder(other)).flatten(2).any(dim=2)[0].view(3, 4)
    assert changed[1].all()
    assert not changed[[0, 2]].any()


def test_a_table_is_learned_from_patches_of_all_maps_at_once():
    # Map 1 hides in map 0: a filter that sees map 0 alone is left with what those of map 1 do not explain.
    images = sample(400, 1, 3, 3).repeat(1, 2, 1, 1)
    table = np.array([[0], [1]])
    together = connected(table, 2, 1, images=images, lam=0.05, updates=100)
    wiring = Wiring(Bank(2, 3, 1), table, 2)
    assert wiring.spread(together.weight).shape == (2, 2, 3, 3)
    # Turning one map off changes the scale and so every filter, also of the group that does not see it.
    images = images.clone()
    images[:, 1] = 0
    alone = connected(table, 2, 1, images=images, lam=0.05, updates=100)
    assert not torch.allclose(together.weight[0], alone.weight[0], rtol=0.05)


def unexplained(filters, table, maps, images, size, lam, scale):
    """Mean of ½‖y - B z‖² + λ‖z‖₁ of all maps' patches at the best codes of all groups' atoms together."""
    bank = Bank(len(filters.weight), size, table.shape[1])
    atoms = Wiring(bank, table, maps).spread(filters.extras["decoder"]).flatten(1).double()
    y = centred(images) / scale
    codes = long_ista(y, atoms, torch.zeros(len(y), len(atoms), dtype=torch.float64), lam, 0.0)
    return float((0.5 * (y - codes @ atoms).square().sum(dim=1) + lam * codes.abs().sum(dim=1)).mean())


def test_groups_learned_together_explain_more_than_groups_learned_apart():
    table = np.array([[0, 1], [1, 2], [2, 0], [0, 1], [1, 2], [2, 0]])
    images, held_out = sparse_patches(3000, 0, 24, 3, 3)[0], sparse_patches(200, 1, 24, 3, 3)[0]
    learner = {"lam": 0.3, "patches": 2000, "updates": 100, "batch": 64}
    together = connected(table, 3, 4, images=images, **learner)
    patches = source(images, 3)
    apart = Filters.concatenate(
        [fill_bank(Psd(**learner), Bank(4, 3, 2), patches.of(seen), group) for group, seen in enumerate(table)]
    )
    scale = rows_scale(images, 2000, 3)
    energies = [unexplained(f, table, 3, held_out, 3, 0.3, scale) for f in (together, apart)]
    assert energies[0] < 0.9 * energies[1]


def test_seed_decides_the_filters_of_a_table():
    one, same, other = connected(seed=1), connected(seed=1), connected(seed=2)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
        assert not torch.equal(tensor, other.tensors()[name])


def test_a_table_of_one_group_is_a_bank():
    learner, images = Psd(**QUICK), sample(60, 2, 8, 8)
    table = np.array([[0, 1]])
    filters = learner.connected(Bank(6, 3, 2), table, 2, source(images, 3), 5)
    alone = learner.filters(Bank(6, 3, 2), source(images, 3), 5)
    assert torch.equal(filters.weight, alone.weight)


@pytest.mark.parametrize("centre", [True, False])
def test_filters_of_one_pixel_of_one_map_are_not_blind(centre):
    filters = connected(np.array([[0], [2], [1]]), 3, 2, size=1, centre=centre)
    assert bool((filters.weight != 0).all())


def test_fewer_patches_than_the_filters_of_all_groups_are_refused():
    with pytest.raises(LearningError, match="psd cannot learn 12 filters from 11 patches: sample at least 12"):
        connected(patches=11)


@pytest.mark.parametrize("nonlinearity", ENCODERS)
def test_two_stages_with_a_table_fixed_and_refined(nonlinearity):
    pixels, labels = sample(40, 16, 16).numpy(), np.arange(40) % 2
    parameters = {"nonlinearity": nonlinearity, "lam": 0.3, "patches": 300, "updates": 20, "batch": 32}
    for refined in (False, True):
        extractor = featbench.Extractor(
            "8F5-Rabs-N3-PA2/2 > 32F3:4-Rabs-PA2", "psd", learner_params=parameters, refined=refined
        )
        features = extractor.fit(pixels, labels).transform(pixels)
        assert features.shape == (40, 32 * 2 * 2)
        assert np.isfinite(features).all()
        assert features.std() > 1e-3


# What is refused.


@pytest.mark.parametrize(
    "parameters",
    [{"lam": 0.0}, {"lam": -0.1}, {"alpha": -1.0}, {"rate": 0.0}, {"rate": -1.0}],
)
def test_energy_without_a_minimum_is_refused(parameters):
    with pytest.raises(UsageError, match="psd: lam > 0, alpha ≥ 0 and rate > 0 are needed"):
        Psd.create(parameters)


@pytest.mark.parametrize("name", ["patches", "updates", "batch", "iterations"])
def test_nothing_to_do_is_refused(name):
    with pytest.raises(UsageError, match="psd: patches, updates, batch and iterations must be at least 1"):
        Psd.create({name: 0})


def test_an_unknown_nonlinearity_is_refused():
    with pytest.raises(UsageError, match="nonlinearity is one of tanh, shrink, smooth-shrink, not 'relu'"):
        Psd.create({"nonlinearity": "relu"})


@pytest.mark.parametrize("value", [0.0, 0.3, 7.0])
@pytest.mark.parametrize("maps", [1, 3])
def test_constant_patches_are_refused(value, maps):
    with pytest.raises(LearningError, match="constant"):
        learn(bank=Bank(4, 5, maps), images=torch.full((10, maps, 8, 8), value))


def test_patches_that_are_not_finite_are_refused():
    images = sparse_patches(50, 0)[0]
    images[:, 0, 2, 2] = float("nan")
    with pytest.raises(LearningError, match="not finite"):
        learn(images=images)


def test_fewer_patches_than_filters_are_refused():
    with pytest.raises(LearningError, match="psd cannot learn 16 filters from 15 patches: sample at least 16"):
        learn(patches=15)


def test_no_patches_are_refused():
    with pytest.raises(LearningError, match="psd learns from patches and was given none"):
        Psd().filters(Bank(4, 5, 1), None, 0)


def test_learning_that_diverges_is_refused():
    with pytest.raises(LearningError, match="diverged"):
        learn(rate=1e30)


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("psd") is Psd
    assert Psd.family == "unsupervised"
