"""How well each class is recognised, and what it is taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featbench.details.predictions import RowPredictions
from featbench.statistics.confusion import count_confusions, wilson_interval
from featbench.types import IntArray


@dataclass(frozen=True)
class ClassAccuracy:
    """How well one class is recognised; shares are in percent.

    label: its index. images: how many of its images tested, in one draw or several. tests, right: how often they did,
    and how often the first prediction was right, over all draws. accuracies: of each draw that tested the class.
    low, high: the limits of the 95 % interval of the accuracy for so many independent images; None without images.
    """

    label: int
    images: int
    tests: int
    right: int
    accuracies: tuple[float, ...]
    low: float | None
    high: float | None

    @property
    def accuracy(self) -> float | None:
        """The mean over the draws, None where no image tested."""
        return float(np.mean(self.accuracies)) if self.accuracies else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over the draws (ddof 1), None for fewer than two."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class Confusion:
    """How often one class was taken for another, as indices, and for what share of its tests, in percent."""

    truth: int
    taken_for: int
    count: int
    share: float


def sum_confusions(row: RowPredictions) -> IntArray:
    """Return how often each class was taken for each over all draws, [classes, classes], true classes by rows."""
    classes = len(row.classes)
    counts = np.zeros((classes, classes), dtype=np.int64)
    for draw in row.draws:
        counts += count_confusions(row.labels[draw.test], draw.predicted, classes)
    return counts


def measure_classes(row: RowPredictions) -> list[ClassAccuracy]:
    """Return how well each class is recognised, in the order of the classes."""
    counts = [count_confusions(row.labels[draw.test], draw.predicted, len(row.classes)) for draw in row.draws]
    tested = np.unique(np.concatenate([draw.test for draw in row.draws]))
    images = np.bincount(row.labels[tested], minlength=len(row.classes))
    return [_measure_class(label, int(images[label]), [one[label] for one in counts]) for label in range(len(images))]


def _measure_class(label: int, images: int, counts: Sequence[IntArray]) -> ClassAccuracy:
    """Measure one class from what it was taken for in each draw, [classes] each."""
    tests, right = sum(int(one.sum()) for one in counts), sum(int(one[label]) for one in counts)
    accuracies = tuple(100 * float(one[label] / one.sum()) for one in counts if one.sum())
    # Draws share their images, so that an image counts once, however often it tested.
    limits = wilson_interval(right / tests, images) if tests else None
    low, high = (None, None) if limits is None else (100 * limits[0], 100 * limits[1])
    return ClassAccuracy(label, images, tests, right, accuracies, low, high)


def rank_confusions(counts: IntArray) -> list[Confusion]:
    """Return the classes that were taken for others, the most frequent first."""
    tests = counts.sum(axis=1)
    pairs = [(int(truth), int(other)) for truth, other in np.argwhere(counts) if truth != other]
    found = [
        Confusion(truth, other, int(counts[truth, other]), 100 * float(counts[truth, other] / tests[truth]))
        for truth, other in pairs
    ]
    return sorted(found, key=lambda one: (-one.count, -one.share, one.truth, one.taken_for))
