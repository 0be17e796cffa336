"""Multinomial logistic regression with an L2 penalty, its strength chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classifier import Classifier, Predictor
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

Matrix = NDArray[np.float64]

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Penalties tried, from strong to weak: λ in mean log-loss + λ/2 ‖w‖², for features of mean squared norm 1."""

TOLERANCE = 1e-7
"""Largest component of the gradient, in coordinates where the curvature is about 1, at which L-BFGS stops. Solvers that
stop earlier can score points higher or lower by accident."""

ITERATIONS = 2000

RANK = 1e-12
"""Directions of the features with less than this part of the largest variance are rounding, and left out."""


@dataclass(frozen=True)
class Standardiser:
    """Gives each feature zero mean and unit variance over the training rows, and rows a mean squared norm of 1."""

    mean: Matrix
    scale: Matrix

    @classmethod
    def fit(cls, features: FloatArray) -> Standardiser:
        """Take the statistics of training features [t, d]; constant ones are given no weight."""
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        # What rounding leaves of a constant feature is small beside its mean, or beside the other features.
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), np.sqrt((deviation**2).mean()))
        scale = np.zeros_like(deviation)
        scale[varies] = 1 / (deviation[varies] * np.sqrt(max(int(varies.sum()), 1)))
        return cls(mean, scale)

    def apply(self, features: FloatArray) -> Matrix:
        """Standardise features [n, d]."""
        return (features.astype(np.float64) - self.mean) * self.scale


@dataclass(frozen=True)
class Solution:
    """Weights [d, classes] and biases [classes] that minimise the objective for `strength`."""

    weight: Matrix
    bias: Matrix
    strength: float
    objective: float
    iterations: int
    converged: bool


class Solver:
    """Minimises mean log-loss + λ/2 ‖w‖² over rows x [n, d] with labels [n], for one strength after the other.

    The rows are first turned to their principal axes: the penalty does not change, the optimum lies in their span (so
    with more columns than rows the problem has n unknowns a class), and there the curvature is nearly diagonal, h v + λ
    for an axis of variance v, with h the mean of p (1 - p). Scaled by it, L-BFGS needs far fewer steps.
    """

    def __init__(self, x: Matrix, labels: IntArray, classes: int) -> None:
        self.axes, self.variance = _principal_axes(x)
        self.rows, self.labels, self.classes = x @ self.axes, labels, classes
        self.present = np.unique(labels)
        self._columns = np.searchsorted(self.present, labels)
        count = len(self.present)
        self._start = np.zeros((self.rows.shape[1] + 1, count))
        self._curvature = (1 - 1 / count) / count if count > 1 else 1.0

    def solve(self, strength: float) -> Solution:
        """Return the optimum; the search starts from the last one."""
        from scipy.optimize import minimize

        scale = 1 / np.sqrt(np.append(self._curvature * self.variance + strength, self._curvature))[:, None]

        def objective(flat: Matrix) -> tuple[float, Matrix]:
            value, gradient = self._objective(flat.reshape(self._start.shape) * scale, strength)
            return value, (gradient * scale).ravel()

        options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "gtol": TOLERANCE, "ftol": 0.0, "maxcor": 20}
        found = minimize(objective, (self._start / scale).ravel(), method="L-BFGS-B", jac=True, options=options)
        self._start = found.x.reshape(self._start.shape) * scale
        probabilities = np.exp(_log_softmax(self._scores(self._start)))
        self._curvature = max(float((probabilities * (1 - probabilities)).mean()), 1e-6)
        # A class that no row belongs to is never predicted.
        weight, bias = np.zeros((len(self.axes), self.classes)), np.full(self.classes, -np.inf)
        weight[:, self.present], bias[self.present] = self.axes @ self._start[:-1], self._start[-1]
        reached = float(np.abs(found.jac).max(initial=0.0))
        return Solution(weight, bias, strength, float(found.fun), int(found.nit), reached <= 10 * TOLERANCE)

    def _scores(self, parameters: Matrix) -> Matrix:
        scores: Matrix = self.rows @ parameters[:-1] + parameters[-1]
        return scores

    def _objective(self, parameters: Matrix, strength: float) -> tuple[float, Matrix]:
        """Return the objective and its gradient at weights on the axes, biases below them."""
        logs = _log_softmax(self._scores(parameters))
        everyone = np.arange(len(logs))
        loss = -float(logs[everyone, self._columns].mean())
        error = np.exp(logs)
        error[everyone, self._columns] -= 1
        error /= len(error)
        weight = parameters[:-1]
        gradient = np.vstack([self.rows.T @ error + strength * weight, error.sum(axis=0)])
        return loss + strength / 2 * float((weight**2).sum()), gradient


class _Logistic(Predictor):
    def __init__(self, standardise: Standardiser, solution: Solution, report: Mapping[str, Any]) -> None:
        self.standardise, self.solution, self.report = standardise, solution, report

    def predict(self, features: FloatArray) -> IntArray:
        scores = self.standardise.apply(features) @ self.solution.weight + self.solution.bias
        predicted: IntArray = scores.argmax(axis=1).astype(np.int64)
        return predicted


class Logistic(Classifier):
    """Multinomial logistic regression, L2, on standardised features; strength chosen on validation images."""

    name: ClassVar[str] = "logistic"
    source: ClassVar[str] = "Jarrett et al. 2009, section 4; the solver is featbench's, on scipy's L-BFGS-B"

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Choose the strength by validation accuracy (ties: by log-loss), then train on all rows with it."""
        standardise = Standardiser.fit(features[~validation])
        solver = Solver(standardise.apply(features[~validation]), labels[~validation], classes)
        held_out = standardise.apply(features[validation])
        tried = [(*_judge(solver.solve(strength), held_out, labels[validation]), strength) for strength in STRENGTHS]
        accuracy, _, strength = max(tried)
        standardise = Standardiser.fit(features)
        solution = Solver(standardise.apply(features), labels, classes).solve(strength)
        report = {
            "strength": strength,
            "validation_accuracy": 100 * accuracy,
            "objective": solution.objective,
            "iterations": solution.iterations,
            "converged": solution.converged,
            "tolerance": TOLERANCE,
        }
        return _Logistic(standardise, solution, report)


def _judge(solution: Solution, x: Matrix, labels: IntArray) -> tuple[float, float]:
    """Return accuracy, and minus the mean log-loss to break ties: larger is better."""
    logs = _log_softmax(x @ solution.weight + solution.bias)
    return float((logs.argmax(axis=1) == labels).mean()), float(logs[np.arange(len(labels)), labels].mean())


def _log_softmax(scores: Matrix) -> Matrix:
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: Matrix = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _principal_axes(x: Matrix) -> tuple[Matrix, Matrix]:
    """Return the axes [d, r] that span the rows of x [n, d], and the mean square of the rows along each, [r]."""
    rows, columns = x.shape
    if columns <= rows:
        variance, axes = np.linalg.eigh(x.T @ x / rows)
        kept = variance > RANK * max(variance[-1], 0.0)
        return axes[:, kept], variance[kept]
    variance, inner = np.linalg.eigh(x @ x.T / rows)
    kept = variance > RANK * max(variance[-1], 0.0)
    return x.T @ (inner[:, kept] / np.sqrt(rows * variance[kept])), variance[kept]


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register logistic regression."""
    return [Logistic()]
