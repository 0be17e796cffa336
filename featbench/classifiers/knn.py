"""Nearest neighbours among the training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.parameter_checks import require_one_of
from featbench.classification.predictors import spread_scores
from featbench.classification.row_space import (
    Matrix,
    Standardiser,
    multiply_rows,
    require_finite,
    require_training,
    split_columns,
    standardise_rows,
)
from featbench.errors import LearningError
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray, State

METRICS = ("euclidean", "cosine")

_BLOCK = 1024
"""New images whose distances are computed at once."""


@dataclass(frozen=True)
class NearestNeighbours(Classifier):
    """The most frequent class among the nearest training images; of equally frequent classes the first.

    Of training images at one distance the first ones count.

    k: how many images. metric: `euclidean` or `cosine`. standardise: whether all features get zero mean and equal
    variances first.
    """

    name: ClassVar[str] = "knn"
    source: ClassVar[str] = "Cover and Hart 1967; all distances are computed"

    k: int = 1
    metric: str = "euclidean"
    standardise: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")
        require_one_of("metric", self.metric, METRICS)

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Store all rows; nothing is chosen."""
        require_training(features, labels, validation, classes)
        if self.k > len(features):
            raise LearningError(f"k={self.k} neighbours of {len(features)} training images: ask for no more than those")
        standardiser = Standardiser.fit(features) if self.standardise else None
        rows = _prepare_rows(features, standardiser)
        return _NeighboursPredictor(self, standardiser, rows, labels.astype(np.int64), classes)

    def restore(self, state: State) -> Predictor:
        """Rebuild a predictor from its state."""
        standardiser = Standardiser.restore(state) if self.standardise else None
        return _NeighboursPredictor(self, standardiser, state["rows"], state["labels"], int(state["classes"]))


class _NeighboursPredictor(Predictor):
    """Counts the classes of the training rows [t, d] that are nearest to a new one; labels [t] in range(classes)."""

    scores_are = "probabilities"

    def __init__(
        self,
        neighbours: NearestNeighbours,
        standardiser: Standardiser | None,
        rows: NDArray[np.float32],
        labels: IntArray,
        classes: int,
    ) -> None:
        self.k, self.cosine = neighbours.k, neighbours.metric == "cosine"
        self.standardiser, self.rows, self.labels, self.classes = standardiser, rows, labels, classes
        self.report = {"k": self.k, "metric": neighbours.metric, "classes_seen": len(np.unique(labels))}

    def predict(self, features: FloatArray) -> IntArray:
        predicted: IntArray = self.scores(features).argmax(axis=1).astype(np.int64)
        return predicted

    def scores(self, features: FloatArray) -> Matrix:
        """Return which part of the nearest rows each class has, [m, classes]; -∞ for classes without any row."""
        require_finite(features)
        counts = np.zeros((len(features), self.classes))
        for start, distances in self._compute_distances(features):
            # Stable: of equal distances the first.
            nearest = self.labels[np.argsort(distances, axis=1, kind="stable")[:, : self.k]]
            for column in nearest.T:
                counts[np.arange(start, start + len(nearest)), column] += 1
        known = np.unique(self.labels)
        return spread_scores(counts[:, known] / self.k, known, self.classes)

    def state(self) -> State:
        statistics = {} if self.standardiser is None else self.standardiser.state()
        return {**statistics, "rows": self.rows, "labels": self.labels, "classes": np.array(self.classes)}

    def _compute_distances(self, features: FloatArray) -> Iterator[tuple[int, Matrix]]:
        """Yield the first of some new rows, and their distances from all training rows, up to what is the same."""
        for start in range(0, len(features), _BLOCK):
            rows = _prepare_rows(features[start : start + _BLOCK], self.standardiser)
            products = np.zeros((len(rows), len(self.rows)))
            norms, training_norms = np.zeros(len(rows)), np.zeros(len(self.rows))
            for columns in split_columns(rows.shape[1]):
                x, y = (part[:, columns].astype(np.float64) for part in (rows, self.rows))
                products += multiply_rows(x, y.T)
                norms += (x**2).sum(axis=1)
                training_norms += (y**2).sum(axis=1)
            if self.cosine:
                # A row of zeros is as far from all others as a right angle.
                yield start, -products / np.sqrt(np.where(training_norms > 0, training_norms, 1))
            else:
                yield start, training_norms - 2 * products + norms[:, None]


def _prepare_rows(features: FloatArray, standardiser: Standardiser | None) -> NDArray[np.float32]:
    """Return features [n, d] in float32, standardised if there is a standardiser."""
    return features.astype(np.float32) if standardiser is None else standardise_rows(features, standardiser)


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register nearest neighbours."""
    return [NearestNeighbours()]
