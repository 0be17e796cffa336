"""Nearest neighbours among the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.parameter_checks import require_one_of
from featbench.classification.predictors import ModelPredictor, prepare_rows
from featbench.classification.row_space import Standardiser, require_training
from featbench.errors import LearningError
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

METRICS = ("euclidean", "cosine")


@dataclass(frozen=True)
class NearestNeighbours(Classifier):
    """The most frequent class among the nearest training images; of equally frequent classes the first.

    k: how many images. metric: `euclidean` or `cosine`. standardise: whether all features get zero mean and equal
    variances first.
    """

    name: ClassVar[str] = "knn"
    source: ClassVar[str] = "Cover and Hart 1967; scikit-learn's KNeighborsClassifier, all distances computed"

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
        from sklearn.neighbors import KNeighborsClassifier

        require_training(features, labels, validation, classes)
        if self.k > len(features):
            raise LearningError(f"k={self.k} neighbours of {len(features)} training images: ask for no more than those")
        standardiser = Standardiser.fit(features) if self.standardise else None
        # All distances: trees prune next to nothing in hundreds of dimensions, and do not know the cosine.
        neighbours = KNeighborsClassifier(self.k, algorithm="brute", metric=self.metric)
        neighbours.fit(prepare_rows(features, standardiser), labels)
        report = {"k": self.k, "metric": self.metric, "classes_seen": len(np.unique(labels))}
        return ModelPredictor(standardiser, neighbours, classes, report)


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register nearest neighbours."""
    return [NearestNeighbours()]
