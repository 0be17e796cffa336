import numpy as np
import pytest
import torch

from featbench.classification import row_space
from featbench.classification.row_space import (
    Standardiser,
    TrainingRows,
    find_nonfinite,
    multiply,
    require_finite,
    require_training,
)
from featbench.errors import FeatureError, LearningError


def features(n, d, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    return (10.0 ** generator.uniform(-2, 2, d) * generator.standard_normal((n, d)) + 3).astype(dtype)


def by_hand(x):
    x = x.astype(np.float64)
    return (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(x.shape[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardised_rows_have_a_mean_squared_norm_of_one(dtype):
    x = features(80, 9, dtype=dtype)
    z = Standardiser.fit(x).apply(x)
    np.testing.assert_allclose(z, by_hand(x), atol=1e-9)
    assert (z**2).sum(axis=1).mean() == pytest.approx(1)


def test_some_columns_are_standardised_as_among_all():
    x = features(30, 20)
    standardiser = Standardiser.fit(x)
    whole = standardiser.apply(x)
    assert np.array_equal(standardiser.apply(x, slice(3, 11)), whole[:, 3:11])
    assert np.array_equal(standardiser.apply(x, np.array([7, 2, 19])), whole[:, [7, 2, 19]])


def test_rows_are_wide_only_where_there_are_more_columns():
    for shape, expected in (((60, 61), True), ((60, 60), False), ((60, 12), False)):
        x = features(*shape)
        assert TrainingRows(x, Standardiser.fit(x)).wide is expected


@pytest.mark.parametrize("shape", [(40, 300), (90, 12)])
@pytest.mark.parametrize("part", [False, True])
def test_axes_are_the_principal_axes_of_the_chosen_rows(shape, part):
    x = features(*shape)
    chosen = np.arange(len(x)) % 3 != 0 if part else np.ones(len(x), dtype=bool)
    rows = TrainingRows(x, Standardiser.fit(x))
    axes, variance = rows.find_principal_axes(chosen)
    z = by_hand(x)
    expected = np.linalg.svd(z[chosen], compute_uv=False) ** 2 / chosen.sum()
    expected = expected[expected > 1e-12 * expected[0]]
    np.testing.assert_allclose(variance[::-1], expected, rtol=1e-6, atol=1e-12)
    # Lifted to the features, axes have length 1, are orthogonal, and rows have along them what `base` has.
    lifted = rows.lift(axes)
    np.testing.assert_allclose(lifted.T @ lifted, np.eye(len(variance)), atol=1e-7)
    np.testing.assert_allclose(z @ lifted, rows.base @ axes, atol=1e-8)


def test_the_gram_matrix_is_made_some_columns_at_a_time_to_the_same(monkeypatch):
    x = features(20, 100)
    monkeypatch.setattr(row_space, "COLUMNS", 7)
    z = by_hand(x)
    np.testing.assert_allclose(TrainingRows(x, Standardiser.fit(x)).base, z @ z.T, atol=1e-9)


def test_multiply_is_the_product_of_matrices():
    a, b = torch.randn(5, 7, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(multiply(a, b), torch.einsum("ij,jk->ik", a, b))
    torch.testing.assert_close(multiply(a, a.T), torch.einsum("ij,kj->ik", a, a))
    assert multiply(a[:, :0], b[:0]).tolist() == [[0.0] * 3] * 5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("values", [8, 2**24])
def test_a_value_that_is_not_finite_is_named(value, dtype, values, monkeypatch):
    monkeypatch.setattr(row_space, "VALUES", values)
    x = np.ones((9, 5), dtype=dtype)
    require_finite(x)
    x[6, 2] = value
    with pytest.raises(FeatureError, match=rf"feature 2 of row 6 is {value}"):
        require_finite(x)


@pytest.mark.parametrize("values", [1, 8, 2**24])
def test_the_first_value_that_is_not_finite_is_found_in_any_blocks(values, monkeypatch):
    monkeypatch.setattr(row_space, "VALUES", values)
    x = np.ones((9, 5))
    assert find_nonfinite(x) is None
    x[6, 2] = x[6, 4] = x[8, 0] = np.nan
    assert find_nonfinite(x) == (6, 2)
    assert find_nonfinite(np.empty((0, 3))) is None
    assert find_nonfinite(np.empty((3, 0))) is None


def training(n=12, d=3, classes=4):
    return np.ones((n, d), dtype=np.float32), np.arange(n) % classes, np.arange(n) % 2 == 0


def test_what_cannot_be_trained_on_is_refused():
    x, labels, validation = training()
    require_training(x, labels, validation, 4)
    for bad, message in (
        ((x, labels[:-1], validation), r"12 rows of features, but labels of shape \(11,\)"),
        ((x, labels, validation[:5]), r"12 rows of features, but validation marks of shape \(5,\)"),
        ((x[:, 0], labels, validation), r"features of shape \(12,\)"),
        ((x[:, :0], labels, validation), r"features of shape \(12, 0\)"),
        ((x[:0], labels[:0], validation[:0]), r"features of shape \(0, 3\)"),
        ((x, labels + 1, validation), "row 3 has label 4: labels are from 0 to 3"),
        ((x, labels - 1, validation), "row 0 has label -1"),
    ):
        with pytest.raises(FeatureError, match=message):
            require_training(*bad, 4)
    with pytest.raises(LearningError, match="all 12 rows are held out for validation"):
        require_training(x, labels, np.ones(12, dtype=bool), 4)
