"""Trained classifiers that several built-in classifiers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Predictor
from featbench.classification.row_space import Matrix, Standardiser, require_finite, standardise_rows
from featbench.types import FloatArray, IntArray


class LinearPredictor(Predictor):
    """Predicts the class with the largest score z w + b, for standardised rows z.

    weight: w [d, classes], on the standardised features. bias: b [classes], -∞ for classes that are never predicted.
    """

    def __init__(self, standardiser: Standardiser, weight: Matrix, bias: Matrix, report: Mapping[str, Any]) -> None:
        self.standardiser, self.weight, self.bias, self.report = standardiser, weight, bias, report

    def predict(self, features: FloatArray) -> IntArray:
        """Return the class index of each row of features [m, d]; raises `FeatureError` if a value is not finite."""
        predicted: IntArray = self.scores(features).argmax(axis=1).astype(np.int64)
        return predicted

    def scores(self, features: FloatArray) -> Matrix:
        """Return z w + b for each row of features [m, d], [m, classes]; raises `FeatureError` as `predict` does."""
        require_finite(features)
        return self.standardiser.compute_scores(features, self.weight, self.bias)


class ModelPredictor(Predictor):
    """Predicts with a model of scikit-learn, trained on rows as `prepare_rows` returns them.

    classes: how many classes the data set has; the model knows those of its training images alone.
    """

    def __init__(self, standardiser: Standardiser | None, model: Any, classes: int, report: Mapping[str, Any]) -> None:
        self.standardiser, self.model, self.classes, self.report = standardiser, model, classes, report

    def predict(self, features: FloatArray) -> IntArray:
        """Return the class index of each row of features [m, d]; raises `FeatureError` if a value is not finite."""
        require_finite(features)
        return predict_classes(self.model, prepare_rows(features, self.standardiser))

    def scores(self, features: FloatArray) -> Matrix:
        """Return the model's probabilities [m, classes] of rows of features [m, d], -∞ for classes it does not know."""
        require_finite(features)
        if not len(features):
            return np.zeros((0, self.classes))  # scikit-learn raises an error for an empty array
        probabilities = self.model.predict_proba(prepare_rows(features, self.standardiser))
        return spread_scores(probabilities, self.model.classes_, self.classes)


def prepare_rows(features: FloatArray, standardiser: Standardiser | None) -> NDArray[np.float32]:
    """Return features [n, d] in float32, standardised if there is a standardiser."""
    return features.astype(np.float32) if standardiser is None else standardise_rows(features, standardiser)


def spread_scores(scores: FloatArray, known: IntArray, classes: int) -> Matrix:
    """Return scores [m, k] of the known classes [k] as scores of all classes, [m, classes], -∞ for the others."""
    spread = np.full((len(scores), classes), -np.inf)
    spread[:, known] = scores
    return spread


def predict_classes(model: Any, rows: FloatArray) -> IntArray:
    """Return the class index that a model of scikit-learn predicts for each row, [m] for [m, d], int64."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)  # scikit-learn raises an error for an empty array
    predicted: IntArray = model.predict(rows).astype(np.int64)
    return predicted
