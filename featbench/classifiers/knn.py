"""Nearest neighbours among the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.row_space import Standardiser, require_finite, require_training, standardised
from featbench.errors import LearningError
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

METRICS = ("euclidean", "cosine")


class _Neighbours(Predictor):
    def __init__(self, standardise: Standardiser | None, neighbours: Any, report: dict[str, Any]) -> None:
        self.standardise, self.neighbours, self.report = standardise, neighbours, report

    def predict(self, features: FloatArray) -> IntArray:
        require_finite(features)
        if not len(features):
            return np.zeros(0, dtype=np.int64)  # scikit-learn refuses no images
        predicted: IntArray = self.neighbours.predict(_rows(features, self.standardise)).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class NearestNeighbours(Classifier):
    """The class most frequent among the nearest training images; of equally frequent ones the first.

    k: how many. metric: `euclidean` or `cosine`. standardise: give all features zero mean and unit variance first.
    """

    name: ClassVar[str] = "knn"
    source: ClassVar[str] = "Cover and Hart 1967; scikit-learn's KNeighborsClassifier, all distances computed"

    k: int = 1
    metric: str = "euclidean"
    standardise: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, not {self.metric!r}")

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Keep all rows; nothing is chosen."""
        from sklearn.neighbors import KNeighborsClassifier

        require_training(features, labels, validation, classes)
        if self.k > len(features):
            raise LearningError(f"k={self.k} neighbours of {len(features)} training images: ask for no more than those")
        standardise = Standardiser.fit(features) if self.standardise else None
        neighbours = KNeighborsClassifier(self.k, algorithm="brute", metric=self.metric)
        neighbours.fit(_rows(features, standardise), labels)
        report = {"k": self.k, "metric": self.metric, "classes_seen": len(np.unique(labels))}
        return _Neighbours(standardise, neighbours, report)


def _rows(features: FloatArray, standardise: Standardiser | None) -> NDArray[np.float32]:
    return features.astype(np.float32) if standardise is None else standardised(features, standardise)


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register nearest neighbours."""
    return [NearestNeighbours()]
