"""Whether one way of classifying is better than another: a paired test on the same test images and the same draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def compute_paired_test(differences: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the mean of differences between two classifiers, and the two-sided p-value of its being zero.

    The mean varies with the images that happen to test and with the draws that happen to train. Its variance is the sum
    of what images and what draws contribute, each with all that belongs to one image, or one draw, kept together
    (Cameron, Gelbach, Miller 2011, without their subtraction, so that the test errs on the safe side); the statistic is
    compared with Student's t, its degrees of freedom by Satterthwaite. A single draw says nothing of draws: there, the
    sign test of McNemar 1947 is made, in its exact form, on the images that tell the two apart.

    Parameters
    ----------
    differences : ndarray of float
        [draws, images]: 1 where the first was right and the second wrong, -1 where it was the other way, 0 where both
        were alike, times the weight of the image; NaN where the image did not test.

    Returns
    -------
    mean : float
        Mean over all that tested.
    p : float
        Two-sided p-value, 1 where the two never differ.

    Raises
    ------
    ValueError
        If fewer than two images tested.
    """
    tested = ~np.isnan(differences)
    images = tested.any(axis=0)
    if images.sum() < 2:
        raise ValueError("a paired test needs two test images at least")
    count = int(tested.sum())
    mean = float(np.nansum(differences)) / count
    draws = len(differences)
    if draws == 1:
        return mean, _sign_test(int((differences > 0).sum()), int((differences < 0).sum()))
    rest = np.where(tested, differences - mean, 0.0)
    of_images = _cluster_variance(rest.sum(axis=0)[images], count)
    of_draws = _cluster_variance(rest.sum(axis=1), count)
    variance = of_images + of_draws
    if variance <= (ROUNDING * max(1.0, float(np.nanmax(np.abs(differences))))) ** 2:
        # All images differ alike in every draw: each of them votes for the same side.
        return mean, 1.0 if abs(mean) <= ROUNDING else _sign_test(int(images.sum()), 0)
    from scipy.stats import t

    freedom = variance**2 / (of_images**2 / (int(images.sum()) - 1) + of_draws**2 / (draws - 1))
    return mean, float(2 * t.sf(abs(mean) / math.sqrt(variance), freedom))


ROUNDING = 1e-12
"""Differences below this are rounding errors."""


def _cluster_variance(sums: NDArray[np.floating[Any]], count: int) -> float:
    """Return the variance of a mean of `count` values, from the sums of the residuals of each cluster of them."""
    clusters = len(sums)
    return float(clusters / (clusters - 1) * (sums**2).sum() / count**2)


def _sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value of so many wins and losses where either is as likely."""
    if wins + losses == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue)
