"""Which class is taken for which, and how surely a class is recognised."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""How often an interval holds the true share."""


def count_confusions(labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Return how often each class was taken for each, [classes, classes]: true classes by rows, predicted by columns.

    labels, predictions: [n] class indices.
    """
    pairs = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def wilson_interval(share: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the limits between which a share of `count` independent trials lies (Wilson 1927).

    share: between 0 and 1, as it was measured. Unlike the mean ± 2 deviations, the limits stay between 0 and 1, and do
    not meet where all trials, or none, came out. Raises `ValueError` without trials.
    """
    if count < 1:
        raise ValueError("an interval needs at least one trial")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # At shares of 0 and 1 one limit is exact; rounding would miss it.
    return (0.0 if share <= 0 else centre - half, 1.0 if share >= 1 else centre + half)
