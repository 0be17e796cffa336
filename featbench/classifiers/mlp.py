"""A network of one hidden layer on the features, its epochs chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.predictors import spread_scores
from featbench.classification.row_space import (
    Matrix,
    Standardiser,
    multiply_rows,
    require_finite,
    require_training,
    standardise_rows,
)
from featbench.errors import LearningError
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray, State

FloatRows = NDArray[np.float32]

EPOCHS = 100
"""Epochs that are tried, at most."""

PATIENCE = 10
"""Epochs without a better accuracy or log-loss on validation images, after which no more are tried."""


class _ConstantPredictor(Predictor):
    scores_are = "probabilities"

    def __init__(self, label: int, classes: int) -> None:
        self.label, self.classes = label, classes
        self.report = {"epochs": 0, "objective": 0.0, "iterations": 0, "converged": True, "classes_seen": 1}

    def predict(self, features: FloatArray) -> IntArray:
        return np.full(len(features), self.label, dtype=np.int64)

    def scores(self, features: FloatArray) -> FloatArray:
        return spread_scores(np.ones((len(features), 1)), np.array([self.label]), self.classes)

    def state(self) -> State:
        return {"label": np.array(self.label), "classes": np.array(self.classes)}


class _NetworkPredictor(Predictor):
    """The trained network: tanh units and a softmax, on standardised rows.

    layers: weight [d, hidden] and bias [hidden], then weight [hidden, k] and bias [k]. known: the k classes that it was
    trained on; of two classes scikit-learn has one output, the logit of the second, and a sigmoid.
    """

    scores_are = "probabilities"

    def __init__(
        self,
        standardiser: Standardiser,
        layers: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
        known: IntArray,
        classes: int,
        report: Mapping[str, Any],
    ) -> None:
        self.standardiser, self.known, self.classes, self.report = standardiser, known, classes, report
        self.layers = tuple(np.ascontiguousarray(layer, dtype=np.float64) for layer in layers)

    def predict(self, features: FloatArray) -> IntArray:
        predicted: IntArray = self.scores(features).argmax(axis=1).astype(np.int64)
        return predicted

    def scores(self, features: FloatArray) -> Matrix:
        require_finite(features)
        weight, bias, outer, outer_bias = self.layers
        hidden = np.tanh(multiply_rows(standardise_rows(features, self.standardiser), weight) + bias)
        logits = multiply_rows(hidden, outer) + outer_bias
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        # Less the maximum, which cancels: the largest exponential is 1, and none overflows.
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return spread_scores(powers / powers.sum(axis=1, keepdims=True), self.known, self.classes)

    def state(self) -> State:
        names = ("weight", "bias", "outer_weight", "outer_bias")
        numbers = {"known": self.known, "classes": np.array(self.classes)}
        return {**self.standardiser.state(), **dict(zip(names, self.layers, strict=True)), **numbers}

    @classmethod
    def restore(cls, state: State) -> Predictor:
        names = ("weight", "bias", "outer_weight", "outer_bias")
        weight, bias, outer, outer_bias = (state[name] for name in names)
        layers = weight, bias, outer, outer_bias
        return cls(Standardiser.restore(state), layers, state["known"], int(state["classes"]), {})


@dataclass(frozen=True)
class Perceptron(Classifier):
    """One hidden layer of tanh units and a softmax, trained by Adam on mean log-loss + α/2 ‖w‖² / images of a batch.

    Batches are a tenth of the training images, and 200 at most.

    hidden: units. alpha: α. epochs: passes over the training images; 0: chosen on validation images.
    """

    name: ClassVar[str] = "mlp"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
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
        """Choose the epochs by validation accuracy (ties: by log-loss), then train a new network that long on all rows.

        The report's `objective` is the mean over the batches of the last epoch, each before its own update.
        `converged`: validation accuracy and log-loss had stopped improving; absent where the epochs are given.
        """
        require_training(features, labels, validation, classes)
        if len(np.unique(labels)) == 1:
            return _ConstantPredictor(int(labels[0]), classes)
        standardiser = _fit_unit_variance(features)
        rows = standardise_rows(features, standardiser)
        chosen = {"epochs": self.epochs} if self.epochs else self._choose_epochs(rows, labels, validation, seed)
        network = self._make_network(len(rows), seed)
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
        (weight, outer), (bias, outer_bias) = network.coefs_, network.intercepts_
        known = network.classes_.astype(np.int64)
        return _NetworkPredictor(standardiser, (weight, bias, outer, outer_bias), known, classes, report)

    def restore(self, state: State) -> Predictor:
        """Rebuild a predictor from its state."""
        if "label" in state:
            return _ConstantPredictor(int(state["label"]), int(state["classes"]))
        return _NetworkPredictor.restore(state)

    def _choose_epochs(
        self, rows: FloatRows, labels: IntArray, validation: NDArray[np.bool_], seed: int
    ) -> dict[str, Any]:
        """Report how many epochs do best on the validation rows after training on the others."""
        if not validation.any():
            raise LearningError("epochs are chosen on validation images, and there are none: give them, mlp(epochs=20)")
        train, held_out, present = rows[~validation], rows[validation], np.unique(labels[~validation])
        if len(present) == 1:
            raise LearningError(
                f"all training images but those for validation are of class {present[0]}, so that epochs cannot be "
                "chosen: give them, mlp(epochs=20)"
            )
        # Accuracy and log-likelihood after each epoch, [epochs, 2], and the last epoch that improved either of them.
        measured, latest, network = np.empty((0, 2)), 0, self._make_network(len(train), seed)
        while len(measured) < EPOCHS and len(measured) - latest < PATIENCE:
            network.partial_fit(train, labels[~validation], classes=present)
            measured = np.vstack([measured, _evaluate(network, held_out, labels[validation])])
            latest = int(measured.argmax(axis=0).max()) + 1
        best = max(range(len(measured)), key=lambda epoch: tuple(measured[epoch]))
        return {
            "epochs": best + 1,
            "converged": len(measured) - latest >= PATIENCE,
            "validation_accuracy": 100 * float(measured[best, 0]),
        }

    def _make_network(self, images: int, seed: int) -> Any:
        """Return an untrained network, each `partial_fit` of which is an epoch; one random stream shuffles them all."""
        from sklearn.neural_network import MLPClassifier

        return MLPClassifier(
            (self.hidden,),
            activation="tanh",
            alpha=self.alpha,
            batch_size=min(200, max(1, images // 10)),
            # A RandomState of its own takes seeds below 2³² alone; its bit generator takes any.
            random_state=np.random.RandomState(np.random.MT19937(seed)),
        )


def _evaluate(network: Any, rows: FloatRows, labels: IntArray) -> tuple[float, float]:
    """Return accuracy and mean log-likelihood (minus the log-loss): larger is better."""
    probabilities = np.asarray(network.predict_proba(rows), dtype=np.float64)
    # A label of a class that the network was not trained on matches no column: its row counts as wrong.
    right = labels[:, None] == np.asarray(network.classes_)
    accuracy = float(right[np.arange(len(labels)), probabilities.argmax(axis=1)].mean())
    own = (right * probabilities).sum(axis=1)
    # Not log 0 for such a row: -∞ for every epoch would leave nothing to compare.
    return accuracy, float(np.log(np.maximum(own, 1e-30)).mean())


def _fit_unit_variance(features: FloatArray) -> Standardiser:
    """Return a standardiser to unit variance, which scikit-learn's initial weights are made for."""
    # `Standardiser.fit` divides by the root of the number of features besides, for rows of unit norm; this undoes it.
    fitted = Standardiser.fit(features)
    return Standardiser(fitted.mean, fitted.scale * np.sqrt(max(int(np.count_nonzero(fitted.scale)), 1)))


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register the network."""
    return [Perceptron()]
