"""Tests of differences that were measured on the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, variance

ROUNDING = 1e-9
"""Differences of percentages below this are rounding."""


def corrected_resampled_test(differences: Sequence[float], test_over_train: float) -> float:
    """Return the one-sided p-value of the mean difference being above zero (Nadeau and Bengio 2003).

    differences: one for each draw, at least two. Draws of one data set share images, so the variance of their mean is
    taken to be (1/n + test/train) times that of a draw, not 1/n; test_over_train: number of test over training images.
    """
    from scipy.stats import t

    if len(differences) < 2:
        raise ValueError("a test needs at least two draws")
    mean, spread = fmean(differences), variance(differences)
    if spread < ROUNDING**2:
        return 0.0 if mean > ROUNDING else 1.0
    statistic = mean / sqrt((1 / len(differences) + test_over_train) * spread)
    return float(t.sf(statistic, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them (Holm 1979), in the same order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
