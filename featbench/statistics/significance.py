"""Tests of differences that were measured on the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, variance

ROUNDING = 1e-11
"""Part of the size of scores below which their differences are rounding errors."""


def corrected_resampled_test(differences: Sequence[float], test_over_train: float, size: float = 100.0) -> float:
    """Return the one-sided p-value of the mean difference being above zero (Nadeau and Bengio 2003).

    differences: one for each draw, at least two. test_over_train: number of test over number of training images.
    size: how large the scores are that were subtracted, 100 for percentages: it tells differences from rounding errors.
    """
    from scipy.stats import t

    if len(differences) < 2:
        raise ValueError("a test needs at least two draws")
    mean, spread = fmean(differences), variance(differences)
    rounding = ROUNDING * size
    if spread <= rounding**2:
        # All draws differ by the same amount: the statistic would be 0/0, or as large as the rounding errors are small.
        return 0.0 if mean > rounding else 1.0
    # Draws of one data set share images, so their differences are correlated, and 1/n of the variance of one would be
    # too little for their mean: Nadeau and Bengio take (1/n + test/train) of it.
    statistic = mean / sqrt((1 / len(differences) + test_over_train) * spread)
    return float(t.sf(statistic, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them, in the same order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        # The smallest of m is multiplied by m, the next by m - 1. None may become smaller than the one before it: a
        # hypothesis is rejected only if all with smaller p-values are.
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
