import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.learning.banks import fill_bank
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.pca import Pca
from featbench.registry import Registry
from featbench.stages.filters import Bank

CPU = torch.device("cpu")


def images(count=60, maps=1, side=9, seed=0):
    """Smooth noise: neighbouring pixels are alike, so that components differ in variance."""
    noise = np.random.default_rng(seed).standard_normal((count, maps, side + 2, side + 2))
    smooth = sum(noise[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3))
    return torch.from_numpy(smooth).float()


def source(maps, size, seed=0):
    return PatchSource(MapSource(maps, nn.Identity(), CPU), size, seed)


def learn(bank=None, maps=None, seed=0, **parameters):
    bank = bank or Bank(8, 5, 1)
    maps = images(maps=bank.fan_in) if maps is None else maps
    return fill_bank(Pca(**{"patches": 1000, **parameters}), bank, source(maps, bank.size), seed)


def rows_of(maps, size, centre=True):
    rows = source(maps, size).sample(1000).flatten(1).numpy().astype(np.float64)
    return rows - rows.mean(axis=1, keepdims=True) if centre else rows


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("centre", [True, False])
def test_components_are_those_of_scikit_learn(maps, centre):
    found = learn(Bank(8, 5, maps), centre=centre).extras["decoder"].flatten(1).numpy()
    expected = PCA(8).fit(rows_of(images(maps=maps), 5, centre)).components_
    np.testing.assert_allclose(np.abs((found * expected).sum(axis=1)), 1, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("whiten", [True, False])
def test_outputs_are_uncorrelated_of_falling_variance_and_unit_scale(factor, whiten):
    maps = factor * images()
    filters = learn(maps=maps, whiten=whiten)
    raw = source(maps, 5).sample(1000).flatten(1)
    outputs = (raw @ filters.weight.flatten(1).T + filters.bias).numpy().astype(np.float64)
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(outputs.T, bias=True)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
    variances = np.diag(covariance)
    assert variances.mean() == pytest.approx(1, rel=1e-3)
    if whiten:
        np.testing.assert_allclose(variances, 1, rtol=1e-3)
    else:
        assert variances[0] > 2 * variances[-1]
        assert (np.diff(variances) < 1e-4).all()


def test_signs_do_not_depend_on_the_data():
    one, negative = learn().extras["decoder"].flatten(1), learn(maps=-images()).extras["decoder"].flatten(1)
    torch.testing.assert_close(one, negative, atol=1e-4, rtol=0)


def test_filters_see_no_offset_unless_asked_to():
    assert float(learn().weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-6
    assert float(learn(centre=False).weight.mean(dim=(1, 2, 3)).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("bank", "centre", "dimensions"),
    [(Bank(9, 3, 1), True, 8), (Bank(10, 3, 1), False, 9), (Bank(2, 1, 1), True, 1), (Bank(4, 1, 4), True, 3)],
)
def test_more_filters_than_dimensions_are_refused(bank, centre, dimensions):
    reason = Pca(centre=centre).refusal(bank)
    assert f"{bank.filters} filters are asked for" in reason
    assert f"only {dimensions} principal components" in reason
    assert ("one less without their mean" in reason) == (dimensions < bank.fan_in * bank.size**2)
    assert Pca(centre=centre).refusal(Bank(dimensions, bank.size, bank.fan_in)) is None


def test_every_component_can_be_had():
    assert learn(Bank(24, 5, 1)).weight.shape == (24, 1, 5, 5)
    assert learn(Bank(1, 1, 1)).weight.shape == (1, 1, 1, 1)
    assert learn(Bank(3, 1, 4)).weight.shape == (3, 4, 1, 1)


def test_patches_of_few_dimensions_are_refused():
    column = torch.arange(9.0).view(1, 1, 9, 1)
    stripes = torch.sin(column + images(60)[:, :, :1, :1]).expand(60, 1, 9, 9)
    with pytest.raises(LearningError, match=r"vary in [1-4] dimensions only, but 8 principal components are asked for"):
        learn(maps=stripes)


def test_the_same_filters_for_every_seed():
    for name, tensor in learn(seed=1).tensors().items():
        assert torch.equal(tensor, learn(seed=2).tensors()[name])


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_patches_are_refused(value):
    with pytest.raises(LearningError, match="constant"):
        learn(maps=torch.full((10, 1, 9, 9), value))


def test_no_patches_and_too_few_are_refused():
    with pytest.raises(LearningError, match="PCA learns from patches and was given none"):
        Pca().filters(Bank(4, 5, 1), None, 0)
    with pytest.raises(LearningError, match="PCA cannot learn 8 filters from 5 patches"):
        learn(patches=5)


def test_parameters_without_sense_are_refused():
    with pytest.raises(UsageError, match="pca: patches must be at least 2"):
        Pca.create({"patches": 1})


def test_two_stages():
    pixels = images(60, side=16)[:, 0].numpy()
    extractor = featbench.Extractor("8F5-Rabs-N3-PA2/2 > 16F3:4-Rabs", "pca", learner_params={"patches": 500})
    assert np.isfinite(extractor.fit(pixels).transform(pixels)).all()


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("pca") is Pca
    assert Pca.family == "unsupervised"
