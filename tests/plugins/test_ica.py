import logging

import numpy as np
import pytest
import torch
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.learning.banks import fill_bank
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.ica import SMOOTHING, Ica, minimise_rica_cost, normalise_rows, rica_cost
from featbench.registry import Registry
from featbench.stages.filters import Bank

CPU = torch.device("cpu")


def mixing(sources=8, size=5, maps=1):
    return np.random.default_rng(99).standard_normal((sources, maps * size * size))


def mixed_images(count=2000, seed=0, size=5, maps=1, factor=1.0):
    """Images of the size of a patch, each a sum of sources that are sparse and independent."""
    sources = np.random.default_rng(seed).laplace(size=(count, 8)) ** 3
    patches = factor * sources @ mixing(size=size, maps=maps)
    return torch.from_numpy(patches.reshape(count, maps, size, size)).float()


def source(maps, size=5):
    return PatchSource(MapSource(maps, nn.Identity(), CPU), size, 0)


def learn(bank=None, maps=None, seed=0, **parameters):
    bank = bank or Bank(8, 5, 1)
    maps = mixed_images(size=bank.size, maps=bank.fan_in) if maps is None else maps
    return fill_bank(Ica(**{"patches": 2000, **parameters}), bank, source(maps, bank.size), seed)


def outputs(filters, maps):
    return (maps.flatten(1) @ filters.weight.flatten(1).T + filters.bias).numpy().astype(np.float64)


@pytest.mark.parametrize("method", ["rica", "fastica"])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_sources_are_found_whatever_the_scale(method, factor):
    found = outputs(learn(method=method, maps=mixed_images(factor=factor)), mixed_images(seed=1, factor=factor))
    sources = np.random.default_rng(1).laplace(size=(2000, 8)) ** 3
    correlation = np.abs(np.corrcoef(found.T, sources.T)[:8, 8:])
    assert sorted(correlation.argmax(axis=1)) == list(range(8))
    assert correlation.max(axis=1).min() > 0.95


@pytest.mark.parametrize("method", ["rica", "fastica"])
def test_decoder_holds_what_the_sources_put_into_a_patch(method):
    decoder = learn(method=method).extras["decoder"].flatten(1).numpy()
    atoms = mixing() - mixing().mean(axis=1, keepdims=True)
    likeness = np.abs(unit(decoder) @ unit(atoms).T)
    assert sorted(likeness.argmax(axis=1)) == list(range(8))
    assert likeness.max(axis=1).min() > 0.95


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("method", ["rica", "fastica"])
def test_outputs_have_unit_variance_on_the_patches_learned_from(method):
    maps = mixed_images()
    found = outputs(learn(method=method, maps=maps), source(maps).sample(2000))
    np.testing.assert_allclose(found.std(axis=0), 1, atol=0.02)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize("lam", [0.1, 2.0])
def test_cost_is_the_written_one(lam):
    generator = np.random.default_rng(0)
    unmixing, white = generator.standard_normal((7, 4)), generator.standard_normal((20, 4))
    total = 0.0
    for x in white:
        code = unmixing @ x
        total += lam * np.sqrt(code**2 + SMOOTHING).sum() + 0.5 * ((unmixing.T @ code - x) ** 2).sum()
    found = rica_cost(torch.from_numpy(unmixing), torch.from_numpy(white), lam)
    assert float(found) == pytest.approx(total / 20)


def test_lbfgs_ends_where_the_cost_is_flat_and_lower():
    white = torch.from_numpy(np.random.default_rng(0).laplace(size=(500, 4)))
    start = normalise_rows(torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    found = minimise_rica_cost(white, 6, 0.1, 300, 0)
    assert float(rica_cost(found, white, 0.1)) < 0.9 * float(rica_cost(start, white, 0.1))
    free = found.clone().requires_grad_()
    rica_cost(normalise_rows(free), white, 0.1).backward()
    assert float(free.grad.abs().max()) < 1e-3


def test_more_filters_than_dimensions_stay_apart():
    maps = torch.from_numpy(np.random.default_rng(0).laplace(size=(2000, 1, 3, 3))).float()
    found = outputs(learn(Bank(24, 3, 1), maps=maps, lam=0.001), maps)
    alike = np.abs(np.corrcoef(found.T)) - np.eye(24)
    assert alike.max() < 0.99
    assert found.std(axis=0).min() > 0.5


def test_fastica_refuses_more_filters_than_dimensions():
    assert Ica(method="rica").refusal(Bank(30, 5, 1)) is None
    assert Ica(method="fastica").refusal(Bank(24, 5, 1)) is None
    assert Ica(method="fastica", centre=False).refusal(Bank(25, 5, 1)) is None
    assert Ica(method="fastica").refusal(Bank(1, 1, 1)) is None
    reason = Ica(method="fastica").refusal(Bank(25, 5, 1))
    assert "25 filters are asked for, but FastICA finds at most 24 components" in reason
    assert "method=rica" in reason


def test_fastica_refuses_patches_of_few_dimensions():
    with pytest.raises(LearningError, match="vary in 8 dimensions only, but FastICA is asked for 12"):
        learn(Bank(12, 5, 1), method="fastica")
    assert learn(Bank(12, 5, 1), method="rica").weight.shape == (12, 1, 5, 5)


def test_fastica_that_does_not_converge_says_so(caplog):
    with caplog.at_level(logging.WARNING, "featbench"):
        learn(method="fastica", iterations=1)
    assert "FastICA did not converge in 1 iterations" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "featbench"):
        learn(method="fastica")
    assert not caplog.text


def test_filters_see_no_offset_unless_asked_to():
    assert float(learn().weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-5
    assert float(learn(centre=False).weight.mean(dim=(1, 2, 3)).abs().max()) > 1e-4


@pytest.mark.parametrize("method", ["rica", "fastica"])
def test_seed_decides_the_filters(method):
    one, same, other = (learn(seed=seed, method=method, iterations=5) for seed in (1, 1, 2))
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
    assert not torch.equal(one.weight, other.weight)


def test_it_learns_where_gradients_are_off():
    with torch.no_grad():
        filters = learn(iterations=5)
    assert torch.equal(filters.weight, learn(iterations=5).weight)


@pytest.mark.parametrize("method", ["rica", "fastica"])
def test_single_pixels_can_be_learned_from(method):
    maps = torch.from_numpy(np.random.default_rng(0).laplace(size=(20, 1, 6, 6))).float()
    assert learn(Bank(1, 1, 1), maps=maps, method=method).weight.shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "jade"}, "method is one of rica, fastica, not 'jade'"),
        ({"lam": 0.0}, "lam must be positive"),
        ({"patches": 1}, "patches must be at least 2"),
        ({"iterations": 0}, "iterations at least 1"),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(UsageError, match=f"ica: .*{message}"):
        Ica.create(parameters)


def test_bad_patches_are_refused():
    with pytest.raises(LearningError, match="ICA learns from patches and was given none"):
        Ica().filters(Bank(4, 5, 1), None, 0)
    with pytest.raises(LearningError, match="constant"):
        learn(maps=torch.full((10, 1, 9, 9), 0.3))
    with pytest.raises(LearningError, match="ICA cannot learn 8 filters from 5 patches"):
        learn(patches=5)


@pytest.mark.parametrize("method", ["rica", "fastica"])
def test_two_stages(method):
    pixels = np.random.default_rng(0).laplace(size=(40, 16, 16))
    parameters = {"patches": 300, "method": method, "iterations": 20}
    extractor = featbench.Extractor("8F5-Rabs-N3-PA2/2 > 16F3:4-Rabs", "ica", learner_params=parameters)
    assert np.isfinite(extractor.fit(pixels).transform(pixels)).all()


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("ica") is Ica
    assert Ica.family == "unsupervised"
