"""Training a classifier on the features of a draw; of several classifiers, choosing one on validation images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import AnyClassifier, MapClassifier, MapPredictor, Predictor
from featbench.errors import FeatureError, PluginError, UsageError
from featbench.evaluation.split import hold_out
from featbench.features.rows import LocalMaps, PackedMaps, Rows
from featbench.system.global_state import keep_global_state
from featbench.system.seeds import seed_for, seeded
from featbench.types import FloatArray, IntArray

HELD_OUT = 1 / 6
"""Part of the images that a candidate receives as its own validation images, while the candidates are compared.

The real validation images judge the candidates, so a candidate that chooses something itself must choose on others.
"""


@dataclass(frozen=True)
class TrainingData:
    """What a classifier is trained on: features of t images, their labels [t] in range(classes), and a seed.

    validation: [t] bool, the images to choose hyper-parameters on.
    """

    features: Rows | PackedMaps
    labels: IntArray
    validation: NDArray[np.bool_]
    classes: int
    seed: int

    def select(self, chosen: NDArray[np.bool_]) -> TrainingData:
        """Return the chosen images alone, `HELD_OUT` of which are marked for validation."""
        indices = np.flatnonzero(chosen)
        labels = self.labels[chosen]
        validation = hold_out(labels, HELD_OUT, self.seed)
        return TrainingData(self.features.select(indices), labels, validation, self.classes, self.seed)


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier: its name, its predictor, and the report of its training."""

    name: str
    predictor: Predictor | MapPredictor
    report: Mapping[str, Any]

    @keep_global_state()
    @seeded(0)
    def predict(self, features: Rows | PackedMaps) -> IntArray:
        """Return the class of each image, [n]. The predictor receives some of the images at a time.

        Raises `PluginError` if it does not return one class for each.
        """
        predict: Any = self.predictor.predict
        blocks = self._blocks(features)
        return np.concatenate([_require_one_each(predict(block), count, self.name) for block, count in blocks])

    @keep_global_state()
    @seeded(0)
    def scores(self, features: Rows | PackedMaps, classes: int, metric: str) -> FloatArray:
        """Return the scores of the classes of each image, [n, classes] float64, for a metric that needs them.

        Raises `UsageError` if the classifier gives none, `PluginError` if they have another shape or contain NaN.
        """
        predictor: Any = self.predictor
        found = []
        for block, count in self._blocks(features):
            score = getattr(predictor, "scores", None)
            scores = score(block) if callable(score) else None
            if scores is None:
                raise UsageError(
                    f"classifier {self.name} gives no class scores, which metric {metric} needs: take another "
                    "classifier, or a protocol with another metric"
                )
            found.append(_require_scores(scores, (count, classes), self.name))
        return np.concatenate(found)

    def _blocks(self, features: Rows | PackedMaps) -> Iterator[tuple[Any, int]]:
        """Yield some of the images at a time, as the predictor receives them, and how many those are."""
        # Features may lie on disk and exceed the memory: blocks are read one after the other.
        if isinstance(self.predictor, MapPredictor):
            for vectors in _as_maps(features).blocks():
                yield vectors, len(vectors.grids)
        else:
            for rows in _require_rows(features, self.name).blocks():
                yield rows, len(rows)


def train(classifiers: Mapping[str, AnyClassifier], training: TrainingData, *, rate: bool = False) -> TrainedClassifier:
    """Train a classifier on all images: of several, by name, the one with the best accuracy on validation images.

    To be compared, each is trained on the other images alone; the best one, the first among equals, is then trained on
    all. rate: whether the report must have a `validation_accuracy`; it is measured in the same way where the classifier
    reports none.
    """
    accuracies = {}
    if len(classifiers) > 1:
        accuracies = {name: compute_validation_accuracy(name, one, training) for name, one in classifiers.items()}
    name = max(accuracies, key=lambda one: accuracies[one]) if accuracies else next(iter(classifiers))
    trained = _fit(name, classifiers[name], training)
    if accuracies:
        # In place of the accuracy that a classifier reports itself, which comes from another part of the images.
        return replace(trained, report={**trained.report, "classifier": name, "validation_accuracy": accuracies[name]})
    if rate and "validation_accuracy" not in trained.report:
        accuracy = compute_validation_accuracy(name, classifiers[name], training)
        return replace(trained, report={**trained.report, "validation_accuracy": accuracy})
    return trained


def compute_validation_accuracy(name: str, classifier: AnyClassifier, training: TrainingData) -> float:
    """Return the accuracy on validation images, in percent, of a classifier that is trained on the others."""
    trained = _fit(name, classifier, training.select(~training.validation))
    held_out = np.flatnonzero(training.validation)
    predictions = trained.predict(training.features.select(held_out))
    return 100 * float((predictions == training.labels[held_out]).mean())


def _fit(name: str, classifier: AnyClassifier, training: TrainingData) -> TrainedClassifier:
    # Copies, since a classifier that changes what it is given must not change what it is judged by.
    given = (training.labels.copy(), training.validation.copy(), training.classes)
    seed = seed_for(type(classifier), training.seed)
    predictor: Predictor | MapPredictor
    with keep_global_state(), seeded(training.seed):
        if isinstance(classifier, MapClassifier):
            predictor = classifier.fit(_as_maps(training.features), *given, seed)
        else:
            predictor = classifier.fit(_require_rows(training.features, name).read(), *given, seed)
    return TrainedClassifier(name, predictor, _require_report(predictor, name))


def _require_report(predictor: Predictor | MapPredictor, name: str) -> Mapping[str, Any]:
    """Return the report of a predictor; raise `PluginError` for what is none."""
    if not callable(getattr(predictor, "predict", None)):
        raise PluginError(
            f"classifier {name} gave {type(predictor).__name__} where a predictor with a method predict is expected"
        )
    report = getattr(predictor, "report", None)
    if not isinstance(report, Mapping):
        raise PluginError(
            f"classifier {name} gave a predictor whose report is {type(report).__name__}: set its attribute report "
            "to a dict, which may be empty"
        )
    return report


def _as_maps(features: Rows | PackedMaps) -> LocalMaps:
    """Return features as local vectors: rows of images of one size hold them as well."""
    return features.to_local_maps() if isinstance(features, Rows) else features


def _require_rows(features: Rows | PackedMaps, name: str) -> Rows:
    """Return features that are rows; raise `FeatureError` for those of images of several sizes."""
    if isinstance(features, Rows):
        return features
    raise FeatureError(
        f"images of several sizes have features of several lengths, which {name} cannot take: take a classifier of "
        "local vectors (pmk-svm), or a protocol that resizes and pads"
    )


def _require_one_each(predictions: IntArray, count: int, name: str) -> IntArray:
    """Return predictions as an array; raise `PluginError` unless there is one for each of `count` images."""
    found = _as_array(predictions, "predictions", name)
    if found.shape != (count,):
        raise PluginError(f"classifier {name} gave predictions of shape {found.shape} for {count} images")
    # Here, since blocks of several types would be joined as one of them: True beside 2 becomes 1.
    if found.dtype.kind not in "iu":
        raise PluginError(f"classifier {name} predicted values of type {found.dtype}; class indices are integers")
    return found


def _as_array(given: Any, what: str, name: str) -> NDArray[Any]:
    """Return what a predictor gave as an array; raise `PluginError` where it makes none."""
    if isinstance(given, np.ma.MaskedArray):
        raise PluginError(f"classifier {name} gave {what} with a mask: fill what is masked")
    try:
        return np.asarray(given)
    except Exception as error:  # whatever object a plugin gives decides what is raised
        raise PluginError(f"classifier {name} gave {what} that make no array: {error}") from error


def _require_scores(scores: FloatArray, shape: tuple[int, int], name: str) -> FloatArray:
    found = _as_array(scores, "scores", name)
    if found.shape != shape or found.dtype.kind != "f":
        raise PluginError(
            f"classifier {name} gave scores of type {found.dtype} and shape {found.shape}: floating point of shape "
            f"{shape} is expected, one for each image and class"
        )
    if np.isnan(found).any():
        raise PluginError(f"classifier {name} gave scores that are NaN, which cannot be ranked")
    return found.astype(np.float64)
