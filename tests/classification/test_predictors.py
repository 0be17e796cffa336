"""The linear predictor that classifiers share, against the same computed row by row, and products of rows."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from featbench.classification.predictors import LinearPredictor
from featbench.classification.row_space import Standardiser, multiply_rows
from featbench.errors import FeatureError


def features(n=30, d=7, dtype=np.float32):
    return (5 + np.random.default_rng(0).standard_normal((n, d))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_score_of_standardised_rows_wins(dtype):
    x, generator = features(dtype=dtype), np.random.default_rng(1)
    standardiser, weight, bias = Standardiser.fit(x), generator.standard_normal((7, 4)), generator.standard_normal(4)
    bias[2] = -np.inf
    predicted = LinearPredictor(standardiser, weight, bias, {}).predict(x)
    expected = [int(np.argmax(standardiser.apply(row[None])[0] @ weight + bias)) for row in x]
    assert predicted.dtype == np.int64
    assert predicted.tolist() == expected
    assert 2 not in predicted


def test_features_that_are_not_finite_are_refused():
    x = features()
    linear = LinearPredictor(Standardiser.fit(x), np.ones((7, 2)), np.zeros(2), {})
    x[4, 2] = np.nan
    for method in (linear.predict, linear.scores):
        with pytest.raises(FeatureError, match="feature 2 of row 4 is nan"):
            method(x)


@pytest.mark.parametrize("inner, outer", [(1, 2), (3, 1), (17, 3), (64, 10), (300, 2), (2048, 40), (20_000, 10)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_row_of_a_product_is_the_same_bits_whatever_the_others_and_the_threads(inner, outer, dtype):
    generator = np.random.default_rng(inner)
    a, b = generator.standard_normal((150, inner)).astype(dtype), generator.standard_normal((inner, outer))
    whole = multiply_rows(a, b)
    assert whole.dtype == np.float64
    np.testing.assert_allclose(whole, a.astype(np.float64) @ b, rtol=1e-10, atol=1e-10)
    for threads in (1, 2, 5):
        with threadpool_limits(threads):
            for count in (1, 2, 63, 64, 65, 149):
                some = generator.permutation(150)[:count]
                assert np.array_equal(multiply_rows(a[some], b), whole[some])


def test_a_product_of_no_rows_is_empty():
    assert multiply_rows(np.zeros((0, 3)), np.ones((3, 2))).shape == (0, 2)
