import numpy as np
import pytest
import torch

from featbench.errors import LearningError
from featbench.learning.patch_matrix import PatchMatrix, PrincipalComponents
from featbench.stages.filters import Bank

BANK = Bank(4, 3, 2)


class Source:
    """Gives the patches it was given, in order."""

    def __init__(self, stack):
        self.stack = stack

    def sample(self, count):
        return self.stack[:count]


def stack(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def test_rows_are_patches_without_their_mean_and_of_unit_scale():
    patches = 5 + 3 * stack(50, 2, 3, 3)
    matrix = PatchMatrix.sample("X", BANK, Source(patches), 50)
    flat = patches.numpy().reshape(50, 18).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    scale = np.sqrt((flat**2).mean())
    assert matrix.scale == pytest.approx(scale, rel=1e-6)
    np.testing.assert_allclose(matrix.rows, flat / scale, atol=1e-5)
    assert matrix.centred


def test_rows_keep_their_mean_where_that_is_asked_for():
    patches = 5 + 3 * stack(50, 2, 3, 3)
    matrix = PatchMatrix.sample("X", BANK, Source(patches), 50, centre=False)
    scale = np.sqrt((patches.numpy().astype(np.float64) ** 2).mean())
    np.testing.assert_allclose(matrix.rows, patches.flatten(1) / scale, atol=1e-6)
    assert not matrix.centred


def test_single_values_are_not_centred():
    matrix = PatchMatrix.sample("X", Bank(1, 1, 1), Source(stack(50, 1, 1, 1)), 50)
    assert not matrix.centred
    assert float(matrix.rows.abs().max()) > 1


@pytest.mark.parametrize("factor", [1e-25, 1e-3, 1.0, 1e3, 1e20])
def test_scale_is_taken_out_whatever_it_is(factor):
    plain = PatchMatrix.sample("X", BANK, Source(stack(50, 2, 3, 3)), 50)
    matrix = PatchMatrix.sample("X", BANK, Source(factor * stack(50, 2, 3, 3)), 50)
    torch.testing.assert_close(matrix.rows, plain.rows, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("centre", [False, True])
def test_folded_weights_do_on_patches_what_they_did_on_rows(centre):
    patches, weight = 5 + 3 * stack(50, 2, 3, 3), stack(4, 18, seed=1)
    matrix = PatchMatrix.sample("X", BANK, Source(patches), 50, centre=centre)
    folded = matrix.fold(weight)
    torch.testing.assert_close(patches.flatten(1) @ folded.T, matrix.rows @ weight.T, atol=1e-4, rtol=1e-4)


def test_no_patches_are_refused():
    with pytest.raises(LearningError, match="X learns from patches and was given none"):
        PatchMatrix.sample("X", BANK, None, 50)


def test_fewer_patches_than_filters_are_refused():
    with pytest.raises(LearningError, match="X cannot learn 4 filters from 3 patches: sample at least 4"):
        PatchMatrix.sample("X", BANK, Source(stack(50, 2, 3, 3)), 3)
    assert len(PatchMatrix.sample("X", BANK, Source(stack(50, 2, 3, 3)), 4).rows) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_patches_that_are_not_finite_are_refused(value):
    patches = stack(50, 2, 3, 3)
    patches[7, 1, 0, 2] = value
    with pytest.raises(LearningError, match="X cannot learn from patches that are not finite"):
        PatchMatrix.sample("X", BANK, Source(patches), 50)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 7.0, 1e-20, 1e10])
def test_constant_patches_are_refused(value):
    with pytest.raises(LearningError, match="hold no signal for X to learn from: all of them are constant"):
        PatchMatrix.sample("X", BANK, Source(torch.full((50, 2, 3, 3), value)), 50)


def correlated(count=500, inputs=6, rank=6, seed=0):
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((rank, inputs)) * (1 + np.arange(rank))[:, None]
    return torch.from_numpy(generator.standard_normal((count, rank)) @ mixing + 3).float()


def test_components_are_those_of_the_covariance():
    rows = correlated()
    found = PrincipalComponents.of(rows)
    covariance = np.cov(rows.numpy().T.astype(np.float64), bias=True)
    np.testing.assert_allclose(found.variances, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-4)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(
        found.components.numpy() @ covariance @ found.components.numpy().T, np.diag(found.variances), atol=1e-3
    )
    np.testing.assert_allclose(found.mean, rows.mean(dim=0), atol=1e-6)


def test_directions_without_variance_are_left_out():
    assert len(PrincipalComponents.of(correlated(rank=4)).variances) == 4


def test_no_more_components_than_asked_for_and_the_leading_ones():
    rows = correlated()
    some, every = PrincipalComponents.of(rows, 2), PrincipalComponents.of(rows)
    assert torch.equal(some.components, every.components[:2])
    assert torch.equal(some.variances, every.variances[:2])
    assert len(PrincipalComponents.of(rows, 20).variances) == 6


def test_first_large_entry_of_a_component_is_positive():
    rows = correlated()
    for component in (*PrincipalComponents.of(rows).components, *PrincipalComponents.of(-rows).components):
        large = component[component.abs() > 0.5 * component.abs().max()]
        assert large[0] > 0


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_whitening(epsilon):
    rows = correlated()
    found = PrincipalComponents.of(rows)
    white = (rows - found.mean) @ found.compute_whitener(epsilon).T
    expected = np.diag(found.variances / (found.variances + epsilon))
    np.testing.assert_allclose(white.T @ white / len(rows), expected, atol=1e-4)
    torch.testing.assert_close(white @ found.compute_unwhitener(epsilon), rows - found.mean, atol=1e-4, rtol=1e-4)
