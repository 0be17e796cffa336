"""Training a classifier on the features of a draw, and choosing between its parameters' values on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import AnyClassifier, MapClassifier, MapPredictor, Predictor
from featbench.errors import FeatureError, PluginError
from featbench.evaluation.split import hold_out
from featbench.features.rows import LocalMaps, PackedMaps, Rows
from featbench.types import IntArray

HELD_OUT = 1 / 6
"""Part of the training images on which a classifier may choose while its own parameters are being chosen on others."""


@dataclass(frozen=True)
class Training:
    """What a classifier is trained on: features of t images, their labels [t], and which of them validate, [t] bool."""

    features: Rows | PackedMaps
    labels: IntArray
    validation: NDArray[np.bool_]
    classes: int
    seed: int

    def select(self, chosen: NDArray[np.bool_]) -> Training:
        """Return some of the images, another part of which validates."""
        indices = np.flatnonzero(chosen)
        labels = self.labels[chosen]
        validation = hold_out(labels, HELD_OUT, self.seed)
        return Training(self.features.select(indices), labels, validation, self.classes, self.seed)


@dataclass(frozen=True)
class Classified:
    """A trained classifier: its name, what predicts, and what is known of it."""

    name: str
    predictor: Predictor | MapPredictor
    report: Mapping[str, Any]

    def predict(self, features: Rows | PackedMaps) -> IntArray:
        """Return the class of each image; they are asked for some at a time."""
        if isinstance(self.predictor, MapPredictor):
            blocks = _maps(features).blocks()
            found = [_held(self.predictor.predict(block), len(block.grids), self.name) for block in blocks]
        else:
            rows = _rows(features, self.name).blocks()
            found = [_held(self.predictor.predict(block), len(block), self.name) for block in rows]
        return np.concatenate(found)


def train(classifiers: Mapping[str, AnyClassifier], training: Training, *, rate: bool = False) -> Classified:
    """Train a classifier on all images; of several, by name, the one that does best on validation images.

    Those are first trained on the other images alone. `rate` asks for a `validation_accuracy` in the report, which is
    come by in the same way where the classifier gives none.
    """
    rated = {}
    if len(classifiers) > 1:
        rated = {name: validation_accuracy(name, classifier, training) for name, classifier in classifiers.items()}
    name = max(rated, key=lambda one: rated[one]) if rated else next(iter(classifiers))
    found = _fit(name, classifiers[name], training)
    if rated:
        return replace(found, report={**found.report, "classifier": name, "validation_accuracy": rated[name]})
    if rate and "validation_accuracy" not in found.report:
        accuracy = validation_accuracy(name, classifiers[name], training)
        return replace(found, report={**found.report, "validation_accuracy": accuracy})
    return found


def validation_accuracy(name: str, classifier: AnyClassifier, training: Training) -> float:
    """Return the accuracy in percent on validation images of a classifier that was trained on the others."""
    found = _fit(name, classifier, training.select(~training.validation))
    held_out = np.flatnonzero(training.validation)
    predictions = found.predict(training.features.select(held_out))
    return 100 * float((predictions == training.labels[held_out]).mean())


def _fit(name: str, classifier: AnyClassifier, training: Training) -> Classified:
    rest = (training.labels, training.validation, training.classes, training.seed)
    predictor: Predictor | MapPredictor
    if isinstance(classifier, MapClassifier):
        predictor = classifier.fit(_maps(training.features), *rest)
    else:
        predictor = classifier.fit(_rows(training.features, name).read(), *rest)
    return Classified(name, predictor, predictor.report)


def _maps(features: Rows | PackedMaps) -> LocalMaps:
    return features.local() if isinstance(features, Rows) else features


def _rows(features: Rows | PackedMaps, name: str) -> Rows:
    if isinstance(features, Rows):
        return features
    raise FeatureError(
        f"images of several sizes have features of several lengths, of which {name} can make nothing: take a "
        "classifier of local vectors (pmk-svm), or a protocol that resizes and pads"
    )


def _held(predictions: IntArray, count: int, name: str) -> IntArray:
    found = np.asarray(predictions)
    if found.shape != (count,):
        raise PluginError(f"classifier {name} gave predictions of shape {found.shape} for {count} images")
    return found
