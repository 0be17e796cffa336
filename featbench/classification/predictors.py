"""Trained classifiers that several built-in classifiers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featbench.classification.classifier import Meaning, Predictor
from featbench.classification.row_space import Matrix, Standardiser, require_finite
from featbench.types import FloatArray, IntArray, State


class LinearPredictor(Predictor):
    """Predicts the class with the largest score z w + b, for standardised rows z.

    weight: w [d, classes], on the standardised features. bias: b [classes], -∞ for classes that are never predicted.
    """

    def __init__(
        self,
        standardiser: Standardiser,
        weight: Matrix,
        bias: Matrix,
        report: Mapping[str, Any],
        scores_are: Meaning = "margins",
    ) -> None:
        # In one order of memory, since the digits of products depend on it: weights from a file have this one.
        self.standardiser, self.weight, self.bias = standardiser, np.ascontiguousarray(weight), bias
        self.report, self.scores_are = report, scores_are

    def predict(self, features: FloatArray) -> IntArray:
        """Return the class index of each row of features [m, d]; raises `FeatureError` if a value is not finite."""
        predicted: IntArray = self.scores(features).argmax(axis=1).astype(np.int64)
        return predicted

    def scores(self, features: FloatArray) -> Matrix:
        """Return z w + b for each row of features [m, d], [m, classes]; raises `FeatureError` as `predict` does."""
        require_finite(features)
        return self.standardiser.compute_scores(features, self.weight, self.bias)

    def state(self) -> State:
        """Return the statistics of the features, the weights and the biases."""
        return {**self.standardiser.state(), "weight": self.weight, "bias": self.bias}

    @classmethod
    def restore(cls, state: State, scores_are: Meaning = "margins") -> LinearPredictor:
        """Rebuild a predictor from its state."""
        return cls(Standardiser.restore(state), state["weight"], state["bias"], {}, scores_are)


def spread_scores(scores: FloatArray, known: IntArray, classes: int) -> Matrix:
    """Return scores [m, k] of the known classes [k] as scores of all classes, [m, classes], -∞ for the others."""
    spread = np.full((len(scores), classes), -np.inf)
    spread[:, known] = scores
    return spread
