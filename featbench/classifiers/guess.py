"""A uniform guess: what chance scores."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray


class _Guess(Predictor):
    def __init__(self, classes: int, seed: int) -> None:
        self.classes, self.seed = classes, seed
        self.report = {}

    def predict(self, features: FloatArray) -> IntArray:
        return np.random.default_rng(self.seed).integers(self.classes, size=len(features))


class Guess(Classifier):
    """A uniform guess among the classes, whatever the features: the row chance."""

    name: ClassVar[str] = "guess"

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Learn nothing."""
        return _Guess(classes, seed)


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register the guess."""
    return [Guess()]
