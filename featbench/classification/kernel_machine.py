"""Support vector machines on a precomputed Gram matrix, solved by libsvm."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.errors import FeatureError, LearningError, UsageError
from featbench.system.memory import available_memory
from featbench.types import FloatArray, IntArray

Matrix = NDArray[np.float64]

TOLERANCE = 1e-4
"""Largest violation of the optimality conditions, where margins are 1, at which libsvm stops: a tenth of its default,
for a tenth more time."""

ITERATIONS = 1_000_000
"""Steps after which a binary machine is given up; it is then reported as not converged."""

MULTICLASS = ("ovr", "ovo")

_BLOCK = 1024
"""Rows of a Gram matrix that are checked at once."""


@dataclass(frozen=True)
class KernelMachine(ABC):
    """A trained machine of t images.

    report: objective, the sum over binary machines of the dual Σα - ½ Σ αᵢαⱼyᵢyⱼKᵢⱼ that is maximised; iterations;
    converged; support_vectors, the training images that any binary machine uses; C; multiclass; tolerance.
    """

    report: Mapping[str, Any]

    def predict(self, gram: FloatArray) -> IntArray:
        """Return the class of each row of kernel values [m, t] between new images and those of training.

        Raises `LearningError` if the shape is another one, `FeatureError` if a value is not finite.
        """
        if gram.ndim != 2 or gram.shape[1] != self.images:
            raise LearningError(f"kernel values of shape {gram.shape}: give [m, {self.images}], one for each image")
        _require_finite(gram)
        return self._predict(np.asarray(gram, dtype=np.float64))

    @property
    @abstractmethod
    def images(self) -> int:
        """How many images it was trained on."""

    @abstractmethod
    def _predict(self, gram: Matrix) -> IntArray: ...


@dataclass(frozen=True)
class OneVsRest(KernelMachine):
    """One binary machine for each class; the largest decision value wins.

    coefficients: yα, [t, classes]. intercepts: [classes], -∞ for classes without training images.
    """

    coefficients: Matrix
    intercepts: Matrix

    @property
    def images(self) -> int:
        """How many images it was trained on."""
        return len(self.coefficients)

    def decisions(self, gram: Matrix) -> Matrix:
        """Return the decision value of each class, [m, classes], for kernel values [m, t]."""
        values: Matrix = gram @ self.coefficients + self.intercepts
        return values

    def _predict(self, gram: Matrix) -> IntArray:
        predicted: IntArray = self.decisions(gram).argmax(axis=1).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class OneVsOne(KernelMachine):
    """One binary machine for each pair of classes, which votes; of classes with equal votes the first wins."""

    machine: Any

    @property
    def images(self) -> int:
        """How many images it was trained on."""
        return int(self.machine.shape_fit_[0])

    def _predict(self, gram: Matrix) -> IntArray:
        if not len(gram):
            return np.zeros(0, dtype=np.int64)  # scikit-learn refuses no images
        predicted: IntArray = self.machine.predict(gram).astype(np.int64)
        return predicted


def train(
    gram: FloatArray,
    labels: IntArray,
    classes: int,
    *,
    C: float,  # noqa: N803, as the literature writes it
    multiclass: str = "ovr",
) -> KernelMachine:
    """Train on kernel values [t, t] between images with labels [t] out of range(classes).

    C weighs the hinge losses, summed over images, against ½‖w‖². multiclass: `ovr`, one class against the rest, or
    `ovo`, one against one. Classes without images are never predicted.

    Raises `UsageError` for a wrong C or multiclass, `FeatureError` if a kernel value is not finite, and `LearningError`
    for wrong shapes or labels, a matrix that is not symmetric, and fewer than two classes.
    Source: Chang and Lin 2011, LIBSVM, through scikit-learn's SVC.
    """
    if not (np.isfinite(C) and C > 0):
        raise UsageError(f"C must be finite and greater than 0, not {C}")
    if multiclass not in MULTICLASS:
        raise UsageError(f"multiclass must be one of {', '.join(MULTICLASS)}, not {multiclass!r}")
    _check(gram, labels, classes)
    kernel = np.ascontiguousarray(gram, dtype=np.float64)
    return _one_vs_rest(kernel, labels, classes, C) if multiclass == "ovr" else _one_vs_one(kernel, labels, C)


def require_two_classes(labels: IntArray) -> None:
    """Raise `LearningError` if all labels [t] are of one class."""
    if labels.min() == labels.max():
        raise LearningError(
            f"a support vector machine needs two classes, and all {len(labels)} training images are of class "
            f"{labels[0]}: give images of another class"
        )


def require_gram_memory(images: int, length: int = 0) -> None:
    """Raise `UsageError` unless kernel values between that many images fit into memory, with what training takes.

    length: values of a row, where the caller keeps one in single precision for each image.
    """
    gram, available = 8 * images**2, available_memory(torch.device("cpu"))
    needed = gram * 5 // 2 + 4 * images * length  # a copy besides, and libsvm's own in single precision
    if needed > available:
        raise UsageError(
            f"kernel values between {images} training images take {gram / 1e9:.1f} GB, training with them "
            f"{needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are available: train on fewer images of each class"
        )


def _one_vs_rest(gram: Matrix, labels: IntArray, classes: int, cost: float) -> OneVsRest:
    coefficients, intercepts = np.zeros((len(gram), classes)), np.full(classes, -np.inf)
    machines = []
    for label in np.unique(labels):
        machine = _libsvm(gram, labels == label, cost)
        coefficients[machine.support_, label] = machine.dual_coef_[0]
        intercepts[label] = machine.intercept_[0]
        machines.append(machine)
    objective = np.abs(coefficients).sum() - (coefficients * (gram @ coefficients)).sum() / 2
    return OneVsRest(_report(machines, float(objective), cost, "ovr"), coefficients, intercepts)


def _one_vs_one(gram: Matrix, labels: IntArray, cost: float) -> OneVsOne:
    machine = _libsvm(gram, labels, cost)
    # libsvm keeps k - 1 coefficients for an image: those of its class against each other class, in order.
    own = np.searchsorted(machine.classes_, labels[machine.support_])
    objective = 0.0
    for first in range(len(machine.classes_)):
        for second in range(first + 1, len(machine.classes_)):
            row = np.where(own == first, second - 1, first)
            used = np.flatnonzero((own == first) | (own == second))
            pair, images = machine.dual_coef_[row[used], used], machine.support_[used]
            objective += float(np.abs(pair).sum() - pair @ gram[np.ix_(images, images)] @ pair / 2)
    return OneVsOne(_report([machine], objective, cost, "ovo"), machine)


def _libsvm(gram: Matrix, labels: NDArray[Any], cost: float) -> Any:
    """Return libsvm's machine for two classes, or its machines for all pairs of more."""
    from sklearn import config_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    megabytes = max(200.0, 4 * len(gram) ** 2 / 2**20 + 1)  # libsvm keeps kernel values in single precision
    machine = SVC(C=cost, kernel="precomputed", tol=TOLERANCE, max_iter=ITERATIONS, cache_size=megabytes)
    with warnings.catch_warnings(), config_context(assume_finite=True):
        warnings.simplefilter("ignore", ConvergenceWarning)  # it stands in the report
        return machine.fit(gram, labels)


def _report(machines: list[Any], objective: float, cost: float, multiclass: str) -> dict[str, Any]:
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


def _check(gram: FloatArray, labels: IntArray, classes: int) -> None:
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
    _require_finite(gram)
    for start in range(0, len(gram), _BLOCK):
        rows, columns = gram[start : start + _BLOCK], gram[:, start : start + _BLOCK].T
        if not np.allclose(rows, columns, rtol=1e-5, atol=1e-5 * float(np.abs(rows).max())):
            raise LearningError("the Gram matrix is not symmetric: give kernel values of each pair, the same both ways")


def _require_finite(gram: FloatArray) -> None:
    for start in range(0, len(gram), _BLOCK):
        finite = np.isfinite(gram[start : start + _BLOCK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise FeatureError(f"kernel values of image {row} are not finite: check its features and the kernel")
