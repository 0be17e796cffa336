"""Multinomial logistic regression with an L2 or an L1 penalty, its strength chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.classification import softmax_lasso, softmax_regression
from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.row_space import (
    Matrix,
    Standardiser,
    TrainingRows,
    product,
    require_finite,
    require_training,
)
from featbench.classification.softmax_lasso import Lasso
from featbench.classification.softmax_regression import Ridge, Solution
from featbench.errors import LearningError
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

Marks = NDArray[np.bool_]

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Penalties tried, from strong to weak: λ in mean log-loss + λ/2 ‖w‖², for features of mean squared norm 1."""

FRACTIONS = tuple(10.0**-exponent for exponent in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0))
"""The same for λ ‖w‖₁, as parts of the least λ at which all weights are zero."""


class _SquaredPenalty:
    """L2: solved in the space that all rows span; its principal axes serve every solver."""

    tolerance = softmax_regression.TOLERANCE

    def __init__(
        self, features: FloatArray, standardise: Standardiser, labels: IntArray, classes: int, device: str
    ) -> None:
        self._rows, self._labels, self._classes = TrainingRows(features, standardise, device), labels, classes
        self._axes, variance = self._rows.axes(np.ones(len(labels), dtype=bool))
        base, axes, self._variance = (
            torch.from_numpy(one).to(device) for one in (self._rows.base, self._axes, variance)
        )
        self._across = product(base, axes)

    def solver(self, chosen: Marks, start: Solution | None = None) -> Ridge:
        return Ridge(self._across, self._variance, self._labels, chosen, self._classes, start)

    def path(self, chosen: Marks) -> tuple[Ridge, Sequence[float]]:
        return self.solver(chosen), STRENGTHS

    def lift(self, weight: Matrix) -> Matrix:
        return self._rows.lift(self._axes @ weight)

    def describe(self, solution: Solution) -> dict[str, Any]:
        return {}


class _AbsolutePenalty:
    """L1: solved on the features themselves."""

    tolerance = softmax_lasso.TOLERANCE

    def __init__(
        self, features: FloatArray, standardise: Standardiser, labels: IntArray, classes: int, device: str
    ) -> None:
        self._features, self._standardise, self._device = features, standardise, device
        self._labels, self._classes = labels, classes

    def solver(self, chosen: Marks, start: Solution | None = None) -> Lasso:
        return Lasso(self._features, self._standardise, self._labels, chosen, self._classes, start, self._device)

    def path(self, chosen: Marks) -> tuple[Lasso, Sequence[float]]:
        solver = self.solver(chosen)
        strongest = solver.strongest()
        return solver, [fraction * strongest for fraction in FRACTIONS]

    def lift(self, weight: Matrix) -> Matrix:
        return weight

    def describe(self, solution: Solution) -> dict[str, Any]:
        return {"nonzero": int(np.count_nonzero(solution.weight))}


PENALTIES: dict[str, type[_SquaredPenalty | _AbsolutePenalty]] = {"l1": _AbsolutePenalty, "l2": _SquaredPenalty}


class _Logistic(Predictor):
    def __init__(self, standardise: Standardiser, weight: Matrix, bias: Matrix, report: Mapping[str, Any]) -> None:
        self.standardise, self.weight, self.bias, self.report = standardise, weight, bias, report

    def predict(self, features: FloatArray) -> IntArray:
        require_finite(features)
        predicted: IntArray = self.standardise.scores(features, self.weight, self.bias).argmax(axis=1).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class Logistic(Classifier):
    """Multinomial logistic regression on standardised features; the penalty's strength chosen on validation images.

    penalty: l2 or l1. strength: λ, if it is not to be chosen; 0: chosen. standardise: give all features unit variance.
    """

    name: ClassVar[str] = "logistic"
    source: ClassVar[str] = "Jarrett et al. 2009, section 4; the solvers are featbench's"
    device: ClassVar[str] = "cpu"

    penalty: str = "l2"
    strength: float = 0.0
    standardise: bool = True

    def __post_init__(self) -> None:
        if self.penalty not in PENALTIES:
            raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}, not {self.penalty!r}")
        if self.strength < 0:
            raise ValueError(f"strength must not be negative, not {self.strength}")

    def on(self, device: str) -> Self:
        """Return the classifier with its products and decompositions on `cpu` or `cuda`, in double precision."""
        moved = copy(self)
        object.__setattr__(moved, "device", device)
        return moved

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Choose the strength by validation accuracy (ties: by log-loss), then train on all rows with it.

        The report's `gap` bounds how far the objective lies above the optimum; `converged` speaks of every solution
        on the way too. Where rows are of one class only, it is always predicted. Raises `FeatureError` for features
        that do not fit the labels or are not finite, `LearningError` where no rows are left to train or to choose on.
        """
        require_training(features, labels, validation, classes)
        standardise = Standardiser.fit(features, whiten=self.standardise)
        problem = PENALTIES[self.penalty](features, standardise, labels, classes, self.device)
        choice = _Choice(self.strength) if self.strength else _choose(problem, labels, validation)
        solution = problem.solver(np.ones(len(labels), dtype=bool), choice.start).solve(choice.strength)
        report = {
            "strength": choice.strength,
            **choice.report,
            "objective": solution.objective,
            "gap": solution.gap,
            "iterations": solution.iterations,
            "converged": choice.converged and solution.converged,
            "tolerance": problem.tolerance,
            "classes_seen": len(np.unique(labels)),
            **problem.describe(solution),
        }
        return _Logistic(standardise, problem.lift(solution.weight), solution.bias, report)


@dataclass(frozen=True)
class _Choice:
    """A strength, and what choosing it gave: a solution to start from, and what to report."""

    strength: float
    start: Solution | None = None
    report: Mapping[str, float] = field(default_factory=dict)
    converged: bool = True


def _choose(problem: _SquaredPenalty | _AbsolutePenalty, labels: IntArray, validation: Marks) -> _Choice:
    """Choose the strength that does best on the validation rows after training on the others."""
    if not validation.any():
        raise LearningError("no row is held out for validation, to choose the strength on: give one, as strength=1e-4")
    solver, strengths = problem.path(~validation)
    solutions = [solver.solve(strength) for strength in strengths]
    best = max(solutions, key=lambda s: (*_judge(s.scores[validation], labels[validation]), s.strength))
    accuracy, _ = _judge(best.scores[validation], labels[validation])
    converged = all(solution.converged for solution in solutions)
    return _Choice(best.strength, best, {"validation_accuracy": 100 * accuracy}, converged)


def _judge(scores: Matrix, labels: IntArray) -> tuple[float, float]:
    """Return accuracy, and minus the mean log-loss to break ties: larger is better."""
    logs = _log_softmax(scores)
    return float((logs.argmax(axis=1) == labels).mean()), float(logs[np.arange(len(labels)), labels].mean())


def _log_softmax(scores: Matrix) -> Matrix:
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: Matrix = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register logistic regression."""
    return [Logistic()]
