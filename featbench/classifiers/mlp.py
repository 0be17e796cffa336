"""A network of one hidden layer on the features, its epochs chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.row_space import Standardiser, require_finite, require_training, standardised
from featbench.errors import LearningError
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

Rows = NDArray[np.float32]

EPOCHS = 100
"""Most epochs that are tried."""

PATIENCE = 10
"""Epochs after which no more are tried, if neither accuracy nor log-loss on validation images became better."""


class _Network(Predictor):
    def __init__(self, standardise: Standardiser, network: Any, report: Mapping[str, Any]) -> None:
        self.standardise, self.network, self.report = standardise, network, report

    def predict(self, features: FloatArray) -> IntArray:
        require_finite(features)
        if not len(features):
            return np.zeros(0, dtype=np.int64)  # scikit-learn refuses no images
        predicted: IntArray = self.network.predict(standardised(features, self.standardise)).astype(np.int64)
        return predicted


class _OneClass(Predictor):
    def __init__(self, label: int) -> None:
        self.label = label
        self.report = {"epochs": 0, "objective": 0.0, "iterations": 0, "converged": True, "classes_seen": 1}

    def predict(self, features: FloatArray) -> IntArray:
        return np.full(len(features), self.label, dtype=np.int64)


@dataclass(frozen=True)
class Perceptron(Classifier):
    """One hidden layer of tanh units and a softmax, trained by Adam on mean log-loss + α/2 ‖w‖² / images of a batch.

    Batches are a tenth of the training images, and 200 at most.

    hidden: units. alpha: α. epochs: passes over the training images, if they are not to be chosen; 0: chosen.
    """

    name: ClassVar[str] = "mlp"
    source: ClassVar[str] = "the size is that of Jarrett et al. 2009 for MNIST; scikit-learn's MLPClassifier"

    hidden: int = 200
    alpha: float = 1e-4
    epochs: int = 0

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {self.hidden}")
        if self.alpha < 0 or not np.isfinite(self.alpha):
            raise ValueError(f"alpha must be finite and not negative, not {self.alpha}")
        if self.epochs < 0:
            raise ValueError(f"epochs must not be negative, not {self.epochs}")

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Choose the epochs by validation accuracy (ties: by log-loss), then train anew on all rows for as many.

        The report's `objective` is the mean over the batches of the last epoch, as they were met. `converged`: more
        epochs would not have been chosen; absent where they are given.
        """
        require_training(features, labels, validation, classes)
        if len(np.unique(labels)) == 1:
            return _OneClass(int(labels[0]))
        standardise = _unit_variance(features)
        rows = standardised(features, standardise)
        chosen = {"epochs": self.epochs} if self.epochs else self._choose(rows, labels, validation, seed)
        network = self._network(len(rows), seed)
        for _ in range(chosen["epochs"]):
            network.partial_fit(rows, labels, classes=np.unique(labels))
        report = {
            "hidden": self.hidden,
            "alpha": self.alpha,
            **chosen,
            "objective": float(network.loss_),
            "iterations": chosen["epochs"],
            "classes_seen": len(np.unique(labels)),
        }
        return _Network(standardise, network, report)

    def _choose(self, rows: Rows, labels: IntArray, validation: NDArray[np.bool_], seed: int) -> dict[str, Any]:
        """Return the epochs that do best on the validation rows after training on the others."""
        if not validation.any():
            raise LearningError("epochs are chosen on validation images, and there are none: give them, mlp(epochs=20)")
        train, held_out, present = rows[~validation], rows[validation], np.unique(labels[~validation])
        if len(present) == 1:
            raise LearningError(
                f"all training images but those for validation are of class {present[0]}, so that epochs cannot be "
                "chosen: give them, mlp(epochs=20)"
            )
        network, judged, latest = self._network(len(train), seed), np.empty((0, 2)), 0
        while len(judged) < EPOCHS and len(judged) - latest < PATIENCE:
            network.partial_fit(train, labels[~validation], classes=present)
            judged = np.vstack([judged, _judge(network, held_out, labels[validation])])
            latest = int(judged.argmax(axis=0).max()) + 1
        best = max(range(len(judged)), key=lambda epoch: tuple(judged[epoch]))
        return {
            "epochs": best + 1,
            "converged": len(judged) - latest >= PATIENCE,
            "validation_accuracy": 100 * float(judged[best, 0]),
        }

    def _network(self, images: int, seed: int) -> Any:
        """Return a network that is not trained: each `partial_fit` is an epoch, shuffled by one stream of numbers."""
        from sklearn.neural_network import MLPClassifier

        return MLPClassifier(
            (self.hidden,),
            activation="tanh",
            alpha=self.alpha,
            batch_size=min(200, max(1, images // 10)),
            random_state=np.random.RandomState(np.random.MT19937(seed)),  # which takes seeds of any size
        )


def _judge(network: Any, rows: Rows, labels: IntArray) -> tuple[float, float]:
    """Return accuracy, and minus the mean log-loss to break ties: larger is better."""
    probabilities = np.asarray(network.predict_proba(rows), dtype=np.float64)
    right = labels[:, None] == np.asarray(network.classes_)  # nowhere, for a class that was not trained on
    accuracy = float(right[np.arange(len(labels)), probabilities.argmax(axis=1)].mean())
    own = (right * probabilities).sum(axis=1)
    return accuracy, float(np.log(np.maximum(own, 1e-30)).mean())


def _unit_variance(features: FloatArray) -> Standardiser:
    """Return what gives features unit variance: first weights of usual size suit it."""
    fitted = Standardiser.fit(features)
    return Standardiser(fitted.mean, fitted.scale * np.sqrt(max(int(np.count_nonzero(fitted.scale)), 1)))


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register the network."""
    return [Perceptron()]
