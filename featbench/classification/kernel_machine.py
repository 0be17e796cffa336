"""Support vector machines on a precomputed Gram matrix, solved by libsvm."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.classification.machines import KernelMachine, OneVsOne, OneVsRest, require_finite_values
from featbench.classification.parameter_checks import require_one_of, require_positive
from featbench.classification.row_space import Matrix
from featbench.errors import LearningError, UsageError
from featbench.system.memory import available_memory
from featbench.types import FloatArray, IntArray

TOLERANCE = 1e-4
"""Largest violation of the optimality conditions at which libsvm stops, in units of the margin: a tenth of its default,
which takes a tenth more time."""

ITERATIONS = 1_000_000
"""Iterations after which libsvm stops a binary machine, which is then reported as not converged."""

MULTICLASS = ("ovr", "ovo")

_BLOCK = 1024
"""Rows of a Gram matrix that are compared with its columns at once."""


def train(
    gram: FloatArray,
    labels: IntArray,
    classes: int,
    *,
    C: float,  # noqa: N803, the literature's symbol
    multiclass: str = "ovr",
) -> KernelMachine:
    """Train on kernel values [t, t] between images with labels [t] in range(classes).

    Each binary machine minimises ½‖w‖² + C Σ max(0, 1 - y (w·φ(x) + b)), the sum over its images. multiclass: `ovr`,
    each class against the rest, or `ovo`, each against each other. Classes without images are never predicted.

    Raises `UsageError` for a wrong C or multiclass, `FeatureError` if a kernel value is not finite, and `LearningError`
    for wrong shapes or labels, a matrix that is not symmetric, and fewer than two classes.
    Source: Chang and Lin 2011, LIBSVM, through scikit-learn's SVC.
    """
    try:
        require_machine_parameters(C, multiclass)
    except ValueError as error:
        raise UsageError(str(error)) from error
    _require_problem(gram, labels, classes)
    # libsvm reads rows of float64: converted here, the matrix is not copied again for every binary machine.
    kernel = np.ascontiguousarray(gram, dtype=np.float64)
    if multiclass == "ovr":
        return _train_one_vs_rest(kernel, labels, classes, C)
    return _train_one_vs_one(kernel, labels, classes, C)


def require_machine_parameters(C: float, multiclass: str) -> None:  # noqa: N803, the literature's symbol
    """Raise `ValueError` unless `train` can use these parameters."""
    require_positive("C", C)
    require_one_of("multiclass", multiclass, MULTICLASS)


def require_two_classes(labels: IntArray) -> None:
    """Raise `LearningError` if all labels [t] are of one class."""
    if labels.min() == labels.max():
        raise LearningError(
            f"a support vector machine needs two classes, and all {len(labels)} training images are of class "
            f"{labels[0]}: give images of another class"
        )


def require_gram_memory(images: int, length: int = 0) -> None:
    """Raise `UsageError` unless kernel values between that many images fit into memory, and what training needs.

    length: how many float32 values the caller stores for each image besides, as a row of features.
    """
    gram, available = 8 * images**2, available_memory(torch.device("cpu"))
    # The Gram matrix in float64, a copy of it, and libsvm's cache of it in float32: 1 + 1 + ½ times its size.
    needed = gram * 5 // 2 + 4 * images * length
    if needed > available:
        raise UsageError(
            f"kernel values between {images} training images take {gram / 1e9:.1f} GB, training with them "
            f"{needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are available: train on fewer images of each class"
        )


def _train_one_vs_rest(gram: Matrix, labels: IntArray, classes: int, cost: float) -> OneVsRest:
    coefficients, intercepts = np.zeros((len(gram), classes)), np.full(classes, -np.inf)
    machines = []
    for label in np.unique(labels):
        machine = _train_libsvm(gram, labels == label, cost)
        coefficients[machine.support_, label] = machine.dual_coef_[0]
        intercepts[label] = machine.intercept_[0]
        machines.append(machine)
    # Σα is Σ|yα|: α is never negative.
    objective = np.abs(coefficients).sum() - (coefficients * (gram @ coefficients)).sum() / 2
    return OneVsRest(_make_report(machines, float(objective), cost, "ovr"), coefficients, intercepts)


def _train_one_vs_one(gram: Matrix, labels: IntArray, classes: int, cost: float) -> OneVsOne:
    machine = _train_libsvm(gram, labels, cost)
    # libsvm stores yα in k - 1 rows for each support vector: against each of the other classes, in their order. Against
    # class j this is row j - 1 for vectors of an earlier class (their own is left out before it), row j for later ones.
    own = np.searchsorted(machine.classes_, labels[machine.support_])
    objective = 0.0
    for first in range(len(machine.classes_)):
        for second in range(first + 1, len(machine.classes_)):
            row = np.where(own == first, second - 1, first)
            used = np.flatnonzero((own == first) | (own == second))
            pair, images = machine.dual_coef_[row[used], used], machine.support_[used]
            objective += float(np.abs(pair).sum() - pair @ gram[np.ix_(images, images)] @ pair / 2)
    # For two classes scikit-learn turns the signs of libsvm's machine.
    sign = -1 if len(machine.classes_) == 2 else 1
    return OneVsOne(
        _make_report([machine], objective, cost, "ovo"),
        support=machine.support_.astype(np.int64),
        counts=machine.n_support_.astype(np.int64),
        coefficients=np.ascontiguousarray(sign * machine.dual_coef_),
        intercepts=sign * machine.intercept_,
        known=machine.classes_.astype(np.int64),
        classes=classes,
        count=len(gram),
    )


def _train_libsvm(gram: Matrix, labels: NDArray[Any], cost: float) -> Any:
    """Return libsvm's machine for two classes, or its machines for all pairs of more."""
    from sklearn import config_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    # A cache for all kernel values, in float32 as libsvm copies them: evicted rows would be copied again and again.
    megabytes = max(200.0, 4 * len(gram) ** 2 / 2**20 + 1)
    machine = SVC(C=cost, kernel="precomputed", tol=TOLERANCE, max_iter=ITERATIONS, cache_size=megabytes)
    with warnings.catch_warnings(), config_context(assume_finite=True):  # checked already, in blocks
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report records it
        return machine.fit(gram, labels)


def _make_report(machines: list[Any], objective: float, cost: float, multiclass: str) -> dict[str, Any]:
    used = np.unique(np.concatenate([machine.support_ for machine in machines]))
    return {
        "objective": objective,
        "iterations": sum(int(np.sum(machine.n_iter_)) for machine in machines),
        "converged": all(machine.fit_status_ == 0 for machine in machines),
        "support_vectors": len(used),
        "C": float(cost),
        "multiclass": multiclass,
        "tolerance": TOLERANCE,
    }


def _require_problem(gram: FloatArray, labels: IntArray, classes: int) -> None:
    """Raise an error unless a machine can be trained on these kernel values and labels; `train` says which."""
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or labels.shape != (len(gram),):
        raise LearningError(
            f"a Gram matrix of shape {gram.shape} and labels of shape {labels.shape}: give [t, t] and [t], "
            "one row and one label for each training image"
        )
    if not len(gram):
        raise LearningError("a support vector machine needs training images, and there are none")
    if labels.min() < 0 or labels.max() >= classes:
        raise LearningError(f"labels {labels.min()} to {labels.max()} do not lie within the {classes} classes")
    require_two_classes(labels)
    require_finite_values(gram)
    # In blocks: a transposed copy and the differences of all values at once would double the memory.
    for start in range(0, len(gram), _BLOCK):
        rows, columns = gram[start : start + _BLOCK], gram[:, start : start + _BLOCK].T
        if not np.allclose(rows, columns, rtol=1e-5, atol=1e-5 * float(np.abs(rows).max())):
            raise LearningError("the Gram matrix is not symmetric: give kernel values of each pair, the same both ways")
