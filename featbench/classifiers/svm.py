"""Support vector machines on standardised features: linear, and with a Gaussian kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.classification.kernel_machine import (
    TOLERANCE,
    require_gram_memory,
    require_machine_parameters,
    require_two_classes,
    train,
)
from featbench.classification.machines import KernelMachine, OneVsRest, restore_machine
from featbench.classification.parameter_checks import require_one_of, require_positive
from featbench.classification.predictors import LinearPredictor
from featbench.classification.row_space import (
    Matrix,
    Standardiser,
    TrainingRows,
    multiply_rows,
    require_finite,
    require_training,
    split_columns,
)
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray, State

LOSSES = ("squared_hinge", "hinge")

MANY = 10_000
"""Images above which the squared hinge is solved on columns, unless there are more columns than images.

liblinear needs no kernel values, but is slower than libsvm on few images.
"""

ITERATIONS = 1000
"""Newton steps after which liblinear stops; `kernel_machine` limits those of libsvm."""

REDUCTION = 1e-6
"""Norm of the gradient, relative to the first, at which liblinear stops: cheap, as Newton's method converges fast."""

INTERCEPT = 100.0
"""liblinear penalises a bias b by ½ (b / this)²: next to nothing, as rows have zero mean and so b is about 1."""

_ROWS = 1024
"""New images whose kernel values are computed at once."""


@dataclass(frozen=True)
class _LinearSolution:
    """Weights as combinations [n or d, classes] of the base of `TrainingRows`, and biases [classes]."""

    combined: Matrix
    bias: Matrix
    iterations: int
    converged: bool
    tolerance: float


@dataclass(frozen=True)
class LinearSVM(Classifier):
    """Linear support vector machine, each class against the rest: ½‖w‖² + C Σ loss, with a bias that is not penalised.

    C: weight of the losses, for rows of mean squared norm 1. loss: `squared_hinge` or `hinge`. standardise: whether all
    features get equal variances, and the rows that norm; otherwise features are used as they are.
    """

    name: ClassVar[str] = "linear-svm"
    source: ClassVar[str] = (
        "Cortes and Vapnik 1995; solved by LIBSVM (Chang and Lin 2011) or LIBLINEAR (Fan et al. 2008)"
    )

    C: float = 1.0
    loss: str = "squared_hinge"
    standardise: bool = True

    def __post_init__(self) -> None:
        require_positive("C", self.C)
        require_one_of("loss", self.loss, LOSSES)

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Train on all rows; nothing is chosen."""
        require_training(features, labels, validation, classes)
        require_two_classes(labels)
        dual = self.loss == "hinge" or len(features) <= max(MANY, features.shape[1] - 1)
        if dual:
            require_gram_memory(len(features))
        standardiser = Standardiser.fit(features, unit_variance=self.standardise)
        if not self.standardise:
            # The bias compensates any shift, so that centring changes nothing but the rounding, for the better. A scale
            # of 1 keeps features as they are; that of constant features stays 0.
            standardiser = Standardiser(standardiser.mean, np.sign(standardiser.scale))
        rows = TrainingRows(features, standardiser)
        solution = (self._solve_dual if dual else self._solve_primal)(rows, labels, classes)
        report = {
            "C": self.C,
            "loss": self.loss,
            "objective": self._compute_objective(rows, solution, labels),
            "iterations": solution.iterations,
            "converged": solution.converged,
            "tolerance": solution.tolerance,
        }
        return LinearPredictor(standardiser, rows.lift(solution.combined), solution.bias, report)

    def restore(self, state: State) -> Predictor:
        """Rebuild a predictor from its state."""
        return LinearPredictor.restore(state)

    def _solve_dual(self, rows: TrainingRows, labels: IntArray, classes: int) -> _LinearSolution:
        """Solve the dual problem, on kernel values."""
        # Hinge: maximise Σα - ½ Σ αᵢαⱼyᵢyⱼKᵢⱼ where 0 ≤ α ≤ C. Squared hinge: K has 1 / 2C added to its diagonal, and α
        # no upper bound. libsvm needs one all the same, which the solution must not touch: at the optimum α = 2C ξ for
        # slacks ξ = max(0, 1 - ys), and Σξ² ≤ n, as w = 0 has Σξ² = n. Hence α ≤ 2C √n, and 4C √n is out of reach.
        gram, bound = (rows.base if rows.wide else rows.base @ rows.base.T), self.C
        if self.loss == "squared_hinge":
            gram = gram.copy()  # of the base, which the objective needs as it is
            gram.flat[:: len(gram) + 1] += 1 / (2 * self.C)
            bound = 4 * self.C * float(np.sqrt(len(gram)))
        machine = train(gram, labels, classes, C=bound)
        assert isinstance(machine, OneVsRest)
        combined = machine.coefficients if rows.wide else rows.base.T @ machine.coefficients
        found = machine.report
        return _LinearSolution(combined, machine.intercepts, found["iterations"], found["converged"], TOLERANCE)

    def _solve_primal(self, rows: TrainingRows, labels: IntArray, classes: int) -> _LinearSolution:
        """Solve the problem itself, on columns, of which there are no more than rows."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        solver = LinearSVC(C=self.C, dual=False, tol=REDUCTION, intercept_scaling=INTERCEPT, max_iter=ITERATIONS)
        # The warning is the only sign of liblinear that it did not converge.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            solver.fit(rows.base, labels)
        weight, bias = solver.coef_.T, solver.intercept_
        if len(solver.classes_) == 2:  # scikit-learn solves for the second alone
            weight, bias = np.hstack([-weight, weight]), np.concatenate([-bias, bias])
        combined, biases = np.zeros((len(weight), classes)), np.full(classes, -np.inf)
        combined[:, solver.classes_], biases[solver.classes_] = weight, bias
        converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
        return _LinearSolution(combined, biases, int(solver.n_iter_), converged, REDUCTION)

    def _compute_objective(self, rows: TrainingRows, solution: _LinearSolution, labels: IntArray) -> float:
        """Return the sum of ½‖w‖² + C Σ loss over the classes with training images."""
        present = np.unique(labels)
        combined = solution.combined[:, present]
        products = rows.base @ combined
        signs = np.where(labels[:, None] == present, 1.0, -1.0)
        losses = np.maximum(0, 1 - signs * (products + solution.bias[present]))
        # For w = xᵀa of combinations a, ‖w‖² = aᵀ x xᵀ a = aᵀ K a: w itself is not needed.
        squares = combined * products if rows.wide else combined**2
        return float(squares.sum() / 2 + self.C * (losses ** (2 if self.loss == "squared_hinge" else 1)).sum())


class _GaussianPredictor(Predictor):
    def __init__(self, kernel: _GaussianKernel, machine: KernelMachine, report: Mapping[str, Any]) -> None:
        self.kernel, self.machine, self.report = kernel, machine, report

    def predict(self, features: FloatArray) -> IntArray:
        return np.concatenate([self.machine.predict(values) for values in self._compute_values(features)])

    def scores(self, features: FloatArray) -> FloatArray:
        return np.concatenate([self.machine.compute_scores(values) for values in self._compute_values(features)])

    def _compute_values(self, features: FloatArray) -> Iterator[Matrix]:
        """Yield the kernel values of some new images at a time."""
        require_finite(features)
        # One block even for no rows: numpy cannot join no blocks.
        for start in range(0, max(len(features), 1), _ROWS):
            yield self.kernel.compute_values(features[start : start + _ROWS], multiply_rows)

    def state(self) -> State:
        return {**self.kernel.state(), **self.machine.state()}


@dataclass(frozen=True)
class _GaussianKernel:
    """exp(-γ ‖x - x'‖²) between rows and the training features [t, d], both standardised."""

    features: FloatArray
    standardiser: Standardiser
    gamma: float

    def compute_values(self, features: FloatArray, multiply: Callable[[Matrix, Matrix], Matrix]) -> Matrix:
        """Return the kernel values [m, t] of rows [m, d]; some columns at a time are converted to float64.

        multiply: the matrix product.
        """
        # ‖x - y‖² = ‖x‖² + ‖y‖² - 2⟨x, y⟩, whose products are one matrix product. Kernel values may fill most of the
        # memory: every operation on them is in place.
        values = np.zeros((len(features), len(self.features)))
        norms, training_norms = np.zeros(len(features)), np.zeros(len(self.features))
        for columns in split_columns(features.shape[1]):
            x, y = (self.standardiser.apply(rows, columns) for rows in (features, self.features))
            values += multiply(x, y.T)
            norms += (x**2).sum(axis=1)
            training_norms += (y**2).sum(axis=1)
        values *= 2
        values -= norms[:, None]
        values -= training_norms
        values *= self.gamma
        # Between equal rows rounding can leave a distance below 0, and a kernel value above 1.
        return np.exp(np.minimum(values, 0, out=values), out=values)

    def state(self) -> State:
        """Return the training features, their statistics and γ."""
        return {"features": self.features, **self.standardiser.state(), "gamma": np.array(self.gamma)}

    @classmethod
    def restore(cls, state: State) -> _GaussianKernel:
        """Rebuild a kernel from its state."""
        return cls(state["features"], Standardiser.restore(state), float(state["gamma"]))


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
        require_positive("gamma", self.gamma)
        require_machine_parameters(self.C, self.multiclass)

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Train on all rows; nothing is chosen."""
        require_training(features, labels, validation, classes)
        require_gram_memory(len(features))
        kernel = _GaussianKernel(features, Standardiser.fit(features), self.gamma)
        machine = train(
            kernel.compute_values(features, np.matmul), labels, classes, C=self.C, multiclass=self.multiclass
        )
        return _GaussianPredictor(kernel, machine, {**machine.report, "gamma": self.gamma})

    def restore(self, state: State) -> Predictor:
        """Rebuild a predictor from its state."""
        return _GaussianPredictor(_GaussianKernel.restore(state), restore_machine(state), {})


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register both machines."""
    return [LinearSVM(), GaussianSVM()]
