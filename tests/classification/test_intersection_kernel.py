"""The histogram intersection against naive loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.classification import intersection_kernel
from featbench.classification.intersection_kernel import COLUMNS, ROWS, intersection_gram
from featbench.errors import FeatureError


def naive(a, b):
    """Σ min(a, b), one pair of rows after the other in double precision."""
    a, b = (np.asarray(histograms, dtype=np.float64) for histograms in (a, b))
    found = np.zeros((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            found[i, j] = np.minimum(one, other).sum()
    return found


def counts(n, d, seed=0):
    return np.random.default_rng(seed).poisson(1.5, size=(n, d)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 70), st.integers(0, 10**6))
def test_counts_intersect_exactly_whatever_the_numbers_of_rows(n, m, d, seed):
    a, b = counts(n, d, seed), counts(m, d, seed + 1)
    found = intersection_gram(a, b)
    assert found.dtype == np.float64
    assert np.array_equal(found, naive(a, b))


@pytest.mark.parametrize("d", [1, COLUMNS - 1, COLUMNS, COLUMNS + 1, 3 * COLUMNS + 517])
@pytest.mark.parametrize(("n", "m"), [(5, 7), (1, 1), (ROWS + 3, 2), (2 * ROWS, 3)])
def test_counts_of_many_bins_intersect_exactly(n, m, d):
    a, b = counts(n, d), counts(m, d, seed=1)
    assert np.array_equal(intersection_gram(a, b), naive(a, b))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_floats_intersect_up_to_single_precision(scale):
    generator = np.random.default_rng(0)
    a, b = (scale * generator.gamma(0.3, size=(rows, 4500)).astype(np.float32) for rows in (13, 10))
    np.testing.assert_allclose(intersection_gram(a, b), naive(a, b), rtol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_of_bins_and_rows_play_no_part(block, monkeypatch):
    a, b = counts(9, 60), counts(6, 60, seed=1)
    monkeypatch.setattr(intersection_kernel, "COLUMNS", block)
    monkeypatch.setattr(intersection_kernel, "ROWS", block)
    assert np.array_equal(intersection_gram(a, b), naive(a, b))


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, np.float64, np.float16, np.int64, lambda a: np.repeat(a, 2, 1)[:, ::2]]
)
def test_layout_and_type_play_no_part_and_inputs_are_left_alone(layout):
    a, b = layout(counts(6, 40)), layout(counts(5, 40, seed=1))
    copies = a.copy(), b.copy()
    assert np.array_equal(intersection_gram(a, b), naive(a, b))
    assert np.array_equal(a, copies[0]) and np.array_equal(b, copies[1])


def test_it_is_symmetric_and_positive_semidefinite():
    a = np.random.default_rng(0).random((30, 2000)).astype(np.float32)
    gram = intersection_gram(a, a)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-6)
    np.testing.assert_allclose(gram.diagonal(), a.sum(axis=1, dtype=np.float64), rtol=1e-6)
    assert np.linalg.eigvalsh((gram + gram.T) / 2).min() > -1e-3


def test_no_bins_have_nothing_in_common():
    assert np.array_equal(intersection_gram(np.zeros((2, 0)), np.zeros((3, 0))), np.zeros((2, 3)))


@pytest.mark.parametrize("bad", [-1e-3, np.nan, np.inf])
def test_histograms_that_cannot_intersect_are_named(bad):
    good, wrong = counts(6, 20), counts(6, 20)
    wrong[4, 11] = wrong[5, 0] = bad
    for a, b in ((good, wrong), (wrong, good)):
        with pytest.raises(FeatureError, match="histogram 4 has values that are negative or not finite"):
            intersection_gram(a, b)
