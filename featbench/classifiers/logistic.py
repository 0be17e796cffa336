"""Multinomial logistic regression with an L2 penalty, its strength chosen on validation images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classifier import Classifier, Predictor
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Penalties tried, from strong to weak: λ in mean log-loss + λ/2 ‖w‖², for features of mean squared norm 1."""

TOLERANCE = 1e-6
"""Largest component of the gradient at which lbfgs stops. scikit-learn's default stops early, and its score with it."""

ITERATIONS = 10_000


@dataclass(frozen=True)
class Standardiser:
    """Gives each feature zero mean and unit variance over the training rows, and rows a mean squared norm of 1."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, features: FloatArray) -> Standardiser:
        """Take the statistics of training features [t, d]; constant features are given no weight."""
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        varies = deviation > 1e-6 * np.abs(mean).clip(min=1e-30)
        scale = np.zeros_like(deviation)
        scale[varies] = 1 / (deviation[varies] * np.sqrt(max(int(varies.sum()), 1)))
        return cls(mean, scale)

    def apply(self, features: FloatArray) -> NDArray[np.float64]:
        """Standardise features [n, d]."""
        return (features.astype(np.float64) - self.mean) * self.scale


class _Logistic(Predictor):
    def __init__(self, standardise: Standardiser, model: LogisticRegression, report: Mapping[str, Any]) -> None:
        self.standardise, self.model, self.report = standardise, model, report

    def predict(self, features: FloatArray) -> IntArray:
        predicted: IntArray = self.model.predict(self.standardise.apply(features)).astype(np.int64)
        return predicted


class Logistic(Classifier):
    """Multinomial logistic regression, L2, on standardised features; strength chosen on validation images."""

    name: ClassVar[str] = "logistic"
    source: ClassVar[str] = "Jarrett et al. 2009; solver: scikit-learn's lbfgs"

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Choose the strength by validation accuracy (ties: by log-loss), then train on all rows with it."""
        standardise = Standardiser.fit(features[~validation])
        x, held_out = standardise.apply(features[~validation]), standardise.apply(features[validation])
        tried: list[tuple[float, float, float]] = []
        model = None
        for strength in STRENGTHS:
            model = _solve(x, labels[~validation], strength, model)
            accuracy, loss = _judge(model, held_out, labels[validation])
            tried.append((accuracy, -loss, strength))
        accuracy, _, chosen = max(tried)
        standardise = Standardiser.fit(features)
        x = standardise.apply(features)
        model = _solve(x, labels, chosen, None)
        report = {
            "strength": chosen,
            "validation_accuracy": 100 * accuracy,
            "objective": _objective(model, x, labels, chosen),
            "iterations": int(model.n_iter_[0]),
            "converged": bool(model.n_iter_[0] < ITERATIONS),
            "tolerance": TOLERANCE,
        }
        return _Logistic(standardise, model, report)


def _solve(
    x: NDArray[np.float64], labels: IntArray, strength: float, start: LogisticRegression | None
) -> LogisticRegression:
    """Minimise mean log-loss + strength/2 ‖w‖², starting from another solution where one is given."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (strength * len(x)), tol=TOLERANCE, max_iter=ITERATIONS, warm_start=True)
    if start is not None:
        model.classes_, model.coef_, model.intercept_ = (
            start.classes_,
            start.coef_.copy(),
            start.intercept_.copy(),
        )
    with warnings.catch_warnings():
        # Convergence is reported with the result instead.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, labels)
    return model


def _judge(model: LogisticRegression, x: NDArray[np.float64], labels: IntArray) -> tuple[float, float]:
    """Return accuracy and mean log-loss."""
    log_probabilities = model.predict_log_proba(x)
    columns = np.searchsorted(model.classes_, labels)
    accuracy = float(np.mean(model.classes_[log_probabilities.argmax(axis=1)] == labels))
    return accuracy, float(-log_probabilities[np.arange(len(labels)), columns].mean())


def _objective(model: LogisticRegression, x: NDArray[np.float64], labels: IntArray, strength: float) -> float:
    return _judge(model, x, labels)[1] + strength / 2 * float((model.coef_**2).sum())


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register logistic regression."""
    return [Logistic()]
