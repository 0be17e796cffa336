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
from featbench.classification.parameter_checks import require_one_of
from featbench.classification.predictors import LinearPredictor
from featbench.classification.row_space import Matrix, Standardiser, TrainingRows, multiply, require_training
from featbench.classification.softmax_lasso import SoftmaxLasso
from featbench.classification.softmax_regression import LogisticSolution, SoftmaxRidge
from featbench.errors import LearningError
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray, State

Marks = NDArray[np.bool_]

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Strengths λ that are tried for mean log-loss + λ/2 ‖W‖², for rows of mean squared norm 1.

From strong to weak: each solution is close to the last one, from which its search starts.
"""

FRACTIONS = tuple(10.0**-exponent for exponent in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0))
"""Strengths λ that are tried for mean log-loss + λ ‖W‖₁, as fractions of the smallest λ at which W = 0."""


class _RidgeProblem:
    """The L2 penalty, solved in the space that all rows span.

    Its principal axes are computed once, from all rows, and serve the training on some of them as well as on all.
    """

    tolerance = softmax_regression.TOLERANCE

    def __init__(
        self, features: FloatArray, standardiser: Standardiser, labels: IntArray, classes: int, device: str
    ) -> None:
        self._rows, self._labels, self._classes = TrainingRows(features, standardiser, device), labels, classes
        self._axes, variance = self._rows.find_principal_axes(np.ones(len(labels), dtype=bool))
        base, axes, self._variance = (
            torch.from_numpy(one).to(device) for one in (self._rows.base, self._axes, variance)
        )
        self._coordinates = multiply(base, axes)

    def make_solver(self, chosen: Marks, start: LogisticSolution | None = None) -> SoftmaxRidge:
        return SoftmaxRidge(self._coordinates, self._variance, self._labels, chosen, self._classes, start)

    def make_path(self, chosen: Marks) -> tuple[SoftmaxRidge, Sequence[float]]:
        """Return a solver for the chosen rows, and the strengths to solve for."""
        return self.make_solver(chosen), STRENGTHS

    def lift(self, weight: Matrix) -> Matrix:
        """Return weights on the standardised features [d, classes] for those of a solution."""
        return self._rows.lift(self._axes @ weight)

    def describe(self, solution: LogisticSolution) -> dict[str, Any]:
        return {}


class _LassoProblem:
    """The L1 penalty, solved on the features themselves: turned to other axes, it would be another penalty."""

    tolerance = softmax_lasso.TOLERANCE

    def __init__(
        self, features: FloatArray, standardiser: Standardiser, labels: IntArray, classes: int, device: str
    ) -> None:
        self._features, self._standardiser, self._device = features, standardiser, device
        self._labels, self._classes = labels, classes

    def make_solver(self, chosen: Marks, start: LogisticSolution | None = None) -> SoftmaxLasso:
        return SoftmaxLasso(
            self._features, self._standardiser, self._labels, chosen, self._classes, start, self._device
        )

    def make_path(self, chosen: Marks) -> tuple[SoftmaxLasso, Sequence[float]]:
        """Return a solver for the chosen rows, and the strengths to solve for."""
        solver = self.make_solver(chosen)
        largest = solver.find_largest_strength()
        return solver, [fraction * largest for fraction in FRACTIONS]

    def lift(self, weight: Matrix) -> Matrix:
        return weight

    def describe(self, solution: LogisticSolution) -> dict[str, Any]:
        return {"nonzero": int(np.count_nonzero(solution.weight))}


PENALTIES: dict[str, type[_RidgeProblem | _LassoProblem]] = {"l1": _LassoProblem, "l2": _RidgeProblem}


@dataclass(frozen=True)
class Logistic(Classifier):
    """Multinomial logistic regression on standardised features; the penalty's strength is chosen on validation images.

    penalty: l2 or l1. strength: λ; 0: chosen on validation images. standardise: whether all features get equal
    variances.
    """

    name: ClassVar[str] = "logistic"
    source: ClassVar[str] = "Jarrett et al. 2009, section 4; the solvers are featbench's"
    # A class variable, because a field would be a parameter that users choose. `on` shadows it on a copy.
    device: ClassVar[str] = "cpu"

    penalty: str = "l2"
    strength: float = 0.0
    standardise: bool = True

    def __post_init__(self) -> None:
        require_one_of("penalty", self.penalty, PENALTIES)
        if self.strength < 0:
            raise ValueError(f"strength must not be negative, not {self.strength}")

    def on(self, device: str) -> Self:
        """Return the classifier with its products and decompositions on `cpu` or `cuda`, in double precision."""
        moved = copy(self)
        object.__setattr__(moved, "device", device)  # the dataclass is frozen
        return moved

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Choose the strength by validation accuracy (ties: by log-loss), then train on all rows with it.

        The report's `gap` bounds how far the objective lies above its minimum. `converged` covers the solutions for all
        strengths that were tried. Where all rows belong to one class, that class is always predicted. Raises
        `FeatureError` for features that do not match the labels or are not finite, `LearningError` where there are no
        rows to train or to choose on.
        """
        require_training(features, labels, validation, classes)
        standardiser = Standardiser.fit(features, unit_variance=self.standardise)
        problem = PENALTIES[self.penalty](features, standardiser, labels, classes, self.device)
        choice = _StrengthChoice(self.strength) if self.strength else _choose_strength(problem, labels, validation)
        # From the solution on the other rows, all of which are among these, the last search is short.
        solution = problem.make_solver(np.ones(len(labels), dtype=bool), choice.start).solve(choice.strength)
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
        return LinearPredictor(standardiser, problem.lift(solution.weight), solution.bias, report, "logits")

    def restore(self, state: State) -> Predictor:
        """Rebuild a predictor from its state."""
        return LinearPredictor.restore(state, "logits")


@dataclass(frozen=True)
class _StrengthChoice:
    """A strength, and the outcome of choosing it: a solution to start from, and what to report."""

    strength: float
    start: LogisticSolution | None = None
    report: Mapping[str, float] = field(default_factory=dict)
    converged: bool = True


def _choose_strength(problem: _RidgeProblem | _LassoProblem, labels: IntArray, validation: Marks) -> _StrengthChoice:
    """Choose the strength that does best on the validation rows after training on the others."""
    if not validation.any():
        raise LearningError("no row is held out for validation, to choose the strength on: give one, as strength=1e-4")
    solver, strengths = problem.make_path(~validation)
    solutions = [solver.solve(strength) for strength in strengths]
    best = max(solutions, key=lambda s: (*_evaluate(s.scores[validation], labels[validation]), s.strength))
    accuracy, _ = _evaluate(best.scores[validation], labels[validation])
    converged = all(solution.converged for solution in solutions)
    return _StrengthChoice(best.strength, best, {"validation_accuracy": 100 * accuracy}, converged)


def _evaluate(scores: Matrix, labels: IntArray) -> tuple[float, float]:
    """Return accuracy and mean log-likelihood (minus the log-loss), which breaks ties: larger is better."""
    logs = _log_softmax(scores)
    return float((logs.argmax(axis=1) == labels).mean()), float(logs[np.arange(len(labels)), labels].mean())


def _log_softmax(scores: Matrix) -> Matrix:
    # Less the maximum, which cancels: the largest exponential is 1, and none overflows.
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: Matrix = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register logistic regression."""
    return [Logistic()]
