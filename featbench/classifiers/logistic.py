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


COLUMNS = 2048
"""Features standardised at once, where there are more of them than rows."""


@dataclass(frozen=True)
class Standardiser:
    """Gives each feature zero mean and unit variance over the training rows, and rows a mean squared norm of 1."""

    mean: Matrix
    scale: Matrix

    @classmethod
    def fit(cls, features: FloatArray, *, whiten: bool = True) -> Standardiser:
        """Take the statistics of training features [t, d]; constant ones are given no weight.

        Without `whiten` features keep their own variances; centring and the rows' norm stay.
        """
        mean, deviation = np.empty(features.shape[1]), np.empty(features.shape[1])
        for here in _column_blocks(features.shape[1]):
            block = features[:, here].astype(np.float64)
            mean[here], deviation[here] = block.mean(axis=0), block.std(axis=0)
        # What rounding leaves of a constant feature is small beside its mean, or beside the other features.
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), np.sqrt((deviation**2).mean()))
        scale = np.zeros_like(deviation)
        if whiten:
            scale[varies] = 1 / (deviation[varies] * np.sqrt(max(int(varies.sum()), 1)))
        elif varies.any():
            scale[varies] = 1 / np.linalg.norm(deviation[varies])
        return cls(mean, scale)

    def apply(self, features: FloatArray, columns: slice = slice(None)) -> Matrix:
        """Standardise features [n, d], or some columns of them."""
        x = features[:, columns].astype(np.float64)
        x -= self.mean[columns]
        x *= self.scale[columns]
        return x

    def scores(self, features: FloatArray, weight: Matrix, bias: Matrix) -> Matrix:
        """Return weight and bias applied to standardised features, which are never made."""
        folded = self.scale[:, None] * weight
        scores: Matrix = features.astype(np.float64) @ folded + (bias - self.mean @ folded)
        return scores


class TrainingRows:
    """Standardised training rows x [n, d], from which principal axes of all or some of them are taken.

    With more columns than rows x is never kept: it is made some columns at a time, its Gram matrix x xᵀ stands for it,
    and an axis is a combination of rows in place of columns.
    """

    def __init__(self, features: FloatArray, standardise: Standardiser) -> None:
        self._features, self._standardise = features, standardise
        self.wide = features.shape[1] > len(features)
        self.base = self._gram() if self.wide else standardise.apply(features)

    def axes(self, chosen: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        """Return the axes [n or d, r] that span the chosen rows, and the mean square of those along each, [r]."""
        rows, count = self.base[chosen], int(chosen.sum())
        variance, axes = np.linalg.eigh((rows[:, chosen] if self.wide else rows.T @ rows) / count)
        kept = variance > RANK * max(variance[-1], 0.0)
        if not self.wide:
            return axes[:, kept], variance[kept]
        combinations = np.zeros((len(self.base), int(kept.sum())))
        combinations[chosen] = axes[:, kept] / np.sqrt(count * variance[kept])
        return combinations, variance[kept]

    def lift(self, combined: Matrix) -> Matrix:
        """Return weights [d, classes] on the standardised features for combinations [n or d, classes]."""
        if not self.wide:
            return combined
        blocks = _column_blocks(self._features.shape[1])
        return np.vstack([self._standardise.apply(self._features, here).T @ combined for here in blocks])

    def _gram(self) -> Matrix:
        gram = np.zeros((len(self._features),) * 2)
        for here in _column_blocks(self._features.shape[1]):
            x = self._standardise.apply(self._features, here)
            gram += x @ x.T
        return gram


def _column_blocks(columns: int) -> list[slice]:
    return [slice(start, start + COLUMNS) for start in range(0, columns, COLUMNS)]


@dataclass(frozen=True)
class Solution:
    """Weights as combinations [n or d, classes] of the training rows' base, and biases [classes], for `strength`.

    scores: of all training rows, [n, classes].
    """

    combined: Matrix
    bias: Matrix
    scores: Matrix
    strength: float
    objective: float
    iterations: int
    converged: bool


class Solver:
    """Minimises mean log-loss + λ/2 ‖w‖² over the chosen training rows, for one strength after the other.

    On the rows' principal axes the penalty is the same, the optimum lies in their span (so with more columns than rows
    the problem has n unknowns a class), and the curvature is nearly diagonal, h v + λ for an axis of variance v, with h
    the mean of p (1 - p). Scaled by it, L-BFGS needs far fewer steps.
    """

    def __init__(
        self, x: TrainingRows, labels: IntArray, chosen: NDArray[np.bool_], classes: int, start: Solution | None = None
    ) -> None:
        self._x, self.classes = x, classes
        self.axes, self.variance = x.axes(chosen)
        self.everyone = x.base @ self.axes
        self.rows = self.everyone[chosen]
        self.present = np.unique(labels[chosen])
        self._columns = np.searchsorted(self.present, labels[chosen])
        count = len(self.present)
        self._start = np.zeros((self.rows.shape[1] + 1, count))
        self._curvature = (1 - 1 / count) / count if count > 1 else 1.0
        if start is not None:
            across = self.everyone if x.wide else self.axes
            bias = np.where(np.isfinite(start.bias), start.bias, 0)  # of a class that the last rows lacked
            self._start = np.vstack([across.T @ start.combined, bias])[:, self.present]
            self._curvature = _curvature(start.scores[chosen][:, self.present])

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
        self._curvature = _curvature(self._scores(self._start))
        # A class that no row belongs to is never predicted.
        combined, bias = np.zeros((len(self.axes), self.classes)), np.full(self.classes, -np.inf)
        combined[:, self.present], bias[self.present] = self.axes @ self._start[:-1], self._start[-1]
        scores = np.full((len(self.everyone), self.classes), -np.inf)
        scores[:, self.present] = self.everyone @ self._start[:-1] + self._start[-1]
        converged = float(np.abs(found.jac).max(initial=0.0)) <= 10 * TOLERANCE
        return Solution(combined, bias, scores, strength, float(found.fun), int(found.nit), converged)

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
    def __init__(self, standardise: Standardiser, weight: Matrix, bias: Matrix, report: Mapping[str, Any]) -> None:
        self.standardise, self.weight, self.bias, self.report = standardise, weight, bias, report

    def predict(self, features: FloatArray) -> IntArray:
        predicted: IntArray = self.standardise.scores(features, self.weight, self.bias).argmax(axis=1).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class Logistic(Classifier):
    """Multinomial logistic regression, L2, on standardised features; strength chosen on validation images.

    strength: λ, if it is not to be chosen; 0: chosen. standardise: give all features unit variance.
    """

    name: ClassVar[str] = "logistic"
    source: ClassVar[str] = "Jarrett et al. 2009, section 4; the solver is featbench's, on scipy's L-BFGS-B"

    strength: float = 0.0
    standardise: bool = True

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ValueError(f"strength must not be negative, not {self.strength}")

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Choose the strength by validation accuracy (ties: by log-loss), then train on all rows with it."""
        standardise = Standardiser.fit(features, whiten=self.standardise)
        rows = TrainingRows(features, standardise)
        chosen, start = (
            ({"strength": self.strength}, None) if self.strength else _choose(rows, labels, validation, classes)
        )
        solution = Solver(rows, labels, np.ones(len(labels), dtype=bool), classes, start).solve(chosen["strength"])
        report = {
            **chosen,
            "objective": solution.objective,
            "iterations": solution.iterations,
            "converged": solution.converged,
            "tolerance": TOLERANCE,
        }
        return _Logistic(standardise, rows.lift(solution.combined), solution.bias, report)


def _choose(
    rows: TrainingRows, labels: IntArray, validation: NDArray[np.bool_], classes: int
) -> tuple[dict[str, float], Solution]:
    """Return the strength that does best on the validation rows after training on the others, and its solution."""
    solver = Solver(rows, labels, ~validation, classes)
    solutions = [solver.solve(strength) for strength in STRENGTHS]
    best = max(solutions, key=lambda s: (*_judge(s.scores[validation], labels[validation]), s.strength))
    accuracy, _ = _judge(best.scores[validation], labels[validation])
    return {"strength": best.strength, "validation_accuracy": 100 * accuracy}, best


def _judge(scores: Matrix, labels: IntArray) -> tuple[float, float]:
    """Return accuracy, and minus the mean log-loss to break ties: larger is better."""
    logs = _log_softmax(scores)
    return float((logs.argmax(axis=1) == labels).mean()), float(logs[np.arange(len(labels)), labels].mean())


def _curvature(scores: Matrix) -> float:
    """Return the mean of p (1 - p) over rows and classes."""
    probabilities = np.exp(_log_softmax(scores))
    return max(float((probabilities * (1 - probabilities)).mean()), 1e-6)


def _log_softmax(scores: Matrix) -> Matrix:
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: Matrix = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register logistic regression."""
    return [Logistic()]
