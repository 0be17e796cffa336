"""Support vector machines on standardised features: linear, and with a Gaussian kernel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.kernel_machine import (
    MULTICLASS,
    TOLERANCE,
    KernelMachine,
    OneVsRest,
    require_gram_memory,
    require_two_classes,
    train,
)
from featbench.classification.row_space import (
    Standardiser,
    TrainingRows,
    column_blocks,
    require_finite,
    require_training,
)
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

Matrix = NDArray[np.float64]

LOSSES = ("squared_hinge", "hinge")

MANY = 10_000
"""Images above which the squared hinge is solved on columns, if those are no more: liblinear needs no kernel values,
and is slower than libsvm on few images."""

ITERATIONS = 1000
"""Newton steps after which liblinear gives up; libsvm's are limited by `kernel_machine`."""

REDUCTION = 1e-6
"""Part of its first gradient at which liblinear stops; Newton steps make small ones cheap."""

INTERCEPT = 100.0
"""liblinear penalises a bias b by ½ (b / this)²: next to nothing, as rows have zero mean and so b is about 1."""

_ROWS = 1024
"""New images whose kernel values are held at once."""


@dataclass(frozen=True)
class _Solution:
    """Weights as combinations [n or d, classes] of the training rows' base, and biases [classes]."""

    combined: Matrix
    bias: Matrix
    iterations: int
    converged: bool
    tolerance: float


class _Linear(Predictor):
    def __init__(self, standardise: Standardiser, weight: Matrix, bias: Matrix, report: Mapping[str, Any]) -> None:
        self.standardise, self.weight, self.bias, self.report = standardise, weight, bias, report

    def predict(self, features: FloatArray) -> IntArray:
        require_finite(features)
        predicted: IntArray = self.standardise.scores(features, self.weight, self.bias).argmax(axis=1).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class LinearSVM(Classifier):
    """Linear support vector machine, each class against the rest: ½‖w‖² + C Σ loss, the bias free.

    C: weight of the losses, for rows of mean squared norm 1. loss: `squared_hinge` or `hinge`. standardise: give all
    features unit variance and the rows that norm; without it features are taken as they are.
    """

    name: ClassVar[str] = "linear-svm"
    source: ClassVar[str] = (
        "Cortes and Vapnik 1995; solved by LIBSVM (Chang and Lin 2011) or LIBLINEAR (Fan et al. 2008)"
    )

    C: float = 1.0
    loss: str = "squared_hinge"
    standardise: bool = True

    def __post_init__(self) -> None:
        _require_positive("C", self.C)
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Train on all rows; nothing is chosen."""
        require_training(features, labels, validation, classes)
        require_two_classes(labels)
        dual = self.loss == "hinge" or len(features) <= max(MANY, features.shape[1] - 1)
        if dual:
            require_gram_memory(len(features))
        standardise = Standardiser.fit(features, whiten=self.standardise)
        if not self.standardise:
            # A free bias makes up for any shift: centring changes nothing but rounding, and constants weigh nothing.
            standardise = Standardiser(standardise.mean, np.sign(standardise.scale))
        rows = TrainingRows(features, standardise)
        solution = (self._dual if dual else self._primal)(rows, labels, classes)
        report = {
            "C": self.C,
            "loss": self.loss,
            "objective": self._objective(rows, solution, labels),
            "iterations": solution.iterations,
            "converged": solution.converged,
            "tolerance": solution.tolerance,
        }
        return _Linear(standardise, rows.lift(solution.combined), solution.bias, report)

    def _dual(self, rows: TrainingRows, labels: IntArray, classes: int) -> _Solution:
        """Solve on kernel values.

        The squared hinge's dual is the hinge's with 1 / 2C added to the diagonal, and no upper bound: coefficients are
        2C times the losses' roots, and those sum to no more than n in squares, which w = 0 attains.
        """
        gram, bound = (rows.base if rows.wide else rows.base @ rows.base.T), self.C
        if self.loss == "squared_hinge":
            gram = gram.copy()
            gram.flat[:: len(gram) + 1] += 1 / (2 * self.C)
            bound = 4 * self.C * float(np.sqrt(len(gram)))
        machine = train(gram, labels, classes, C=bound)
        assert isinstance(machine, OneVsRest)
        combined = machine.coefficients if rows.wide else rows.base.T @ machine.coefficients
        found = machine.report
        return _Solution(combined, machine.intercepts, found["iterations"], found["converged"], TOLERANCE)

    def _primal(self, rows: TrainingRows, labels: IntArray, classes: int) -> _Solution:
        """Solve on columns, no more than rows."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        solver = LinearSVC(C=self.C, dual=False, tol=REDUCTION, intercept_scaling=INTERCEPT, max_iter=ITERATIONS)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            solver.fit(rows.base, labels)
        weight, bias = solver.coef_.T, solver.intercept_
        if len(solver.classes_) == 2:
            weight, bias = np.hstack([-weight, weight]), np.concatenate([-bias, bias])
        combined, biases = np.zeros((len(weight), classes)), np.full(classes, -np.inf)
        combined[:, solver.classes_], biases[solver.classes_] = weight, bias
        converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
        return _Solution(combined, biases, int(solver.n_iter_), converged, REDUCTION)

    def _objective(self, rows: TrainingRows, solution: _Solution, labels: IntArray) -> float:
        """Return the sum of ½‖w‖² + C Σ loss over the classes there are."""
        present = np.unique(labels)
        combined = solution.combined[:, present]
        products = rows.base @ combined
        signs = np.where(labels[:, None] == present, 1.0, -1.0)
        losses = np.maximum(0, 1 - signs * (products + solution.bias[present]))
        squares = combined * products if rows.wide else combined**2
        return float(squares.sum() / 2 + self.C * (losses ** (2 if self.loss == "squared_hinge" else 1)).sum())


class _Gaussian(Predictor):
    def __init__(self, kernel: _Kernel, machine: KernelMachine, report: Mapping[str, Any]) -> None:
        self.kernel, self.machine, self.report = kernel, machine, report

    def predict(self, features: FloatArray) -> IntArray:
        require_finite(features)
        starts = range(0, max(len(features), 1), _ROWS)
        return np.concatenate(
            [self.machine.predict(self.kernel.values(features[start : start + _ROWS])) for start in starts]
        )


@dataclass(frozen=True)
class _Kernel:
    """exp(-γ ‖x - x'‖²) between rows and the standardised training features [t, d]."""

    features: FloatArray
    standardise: Standardiser
    gamma: float

    def values(self, features: FloatArray) -> Matrix:
        """Return the kernel values [m, t] of rows [m, d], of which some columns at a time are made double."""
        values = np.zeros((len(features), len(self.features)))
        own, others = np.zeros(len(features)), np.zeros(len(self.features))
        for here in column_blocks(features.shape[1]):
            x, y = (self.standardise.apply(rows, here) for rows in (features, self.features))
            values += x @ y.T
            own += (x**2).sum(axis=1)
            others += (y**2).sum(axis=1)
        values *= 2
        values -= own[:, None]
        values -= others
        values *= self.gamma
        return np.exp(np.minimum(values, 0, out=values), out=values)


@dataclass(frozen=True)
class GaussianSVM(Classifier):
    """Support vector machine with the kernel exp(-γ ‖x - x'‖²) on features of unit variance.

    C: weight of the hinge losses. gamma: γ, for rows of mean squared norm 1; so 1 is scikit-learn's `scale`.
    multiclass: `ovo`, one class against one as in LIBSVM, or `ovr`, one against the rest.
    """

    name: ClassVar[str] = "rbf-svm"
    source: ClassVar[str] = "Cortes and Vapnik 1995; solved by LIBSVM (Chang and Lin 2011)"

    C: float = 10.0
    gamma: float = 1.0
    multiclass: str = "ovo"

    def __post_init__(self) -> None:
        _require_positive("C", self.C)
        _require_positive("gamma", self.gamma)
        if self.multiclass not in MULTICLASS:
            raise ValueError(f"multiclass must be one of {', '.join(MULTICLASS)}, not {self.multiclass!r}")

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Train on all rows; nothing is chosen."""
        require_training(features, labels, validation, classes)
        require_gram_memory(len(features))
        kernel = _Kernel(features, Standardiser.fit(features), self.gamma)
        machine = train(kernel.values(features), labels, classes, C=self.C, multiclass=self.multiclass)
        return _Gaussian(kernel, machine, {**machine.report, "gamma": self.gamma})


def _require_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and greater than 0, not {value}")


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register both machines."""
    return [LinearSVM(), GaussianSVM()]
