"""Trained support vector machines: from kernel values between images to decisions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np

from featbench.classification.predictors import spread_scores
from featbench.classification.row_space import Matrix, find_nonfinite, multiply_rows
from featbench.errors import FeatureError, LearningError
from featbench.types import FloatArray, IntArray, State


@dataclass(frozen=True)
class KernelMachine(ABC):
    """A support vector machine, trained on the kernel values between t images.

    report: objective, the sum over the binary machines of their dual objective Σα - ½ Σ αᵢαⱼyᵢyⱼKᵢⱼ, which is
    maximised; iterations; converged; support_vectors, the training images that any binary machine uses; C; multiclass;
    tolerance.
    """

    report: Mapping[str, Any]

    def predict(self, gram: FloatArray) -> IntArray:
        """Return the class of each row of kernel values [m, t] between new images and the training images.

        Raises `LearningError` if they have another shape, `FeatureError` if a value is not finite.
        """
        return self._predict(self._check(gram))

    def compute_scores(self, gram: FloatArray) -> Matrix:
        """Return scores of the classes, [m, classes], for kernel values [m, t], of which the largest is predicted.

        Classes without training images have -∞. Raises what `predict` raises.
        """
        return self._compute_scores(self._check(gram))

    def _check(self, gram: FloatArray) -> Matrix:
        if gram.ndim != 2 or gram.shape[1] != self.images:
            raise LearningError(f"kernel values of shape {gram.shape}: give [m, {self.images}], one for each image")
        require_finite_values(gram)
        return np.asarray(gram, dtype=np.float64)

    @abstractmethod
    def state(self) -> State:
        """Return the machine as named arrays, for `restore_machine` to rebuild it from."""

    @property
    @abstractmethod
    def images(self) -> int:
        """How many images it was trained on."""

    @abstractmethod
    def _predict(self, gram: Matrix) -> IntArray: ...

    @abstractmethod
    def _compute_scores(self, gram: Matrix) -> Matrix: ...


@dataclass(frozen=True)
class OneVsRest(KernelMachine):
    """One binary machine for each class against all others; the largest decision value wins.

    coefficients: yα [t, classes], where y is 1 for the images of the class and -1 for the others. intercepts:
    [classes], -∞ for classes without training images.
    """

    coefficients: Matrix
    intercepts: Matrix

    @property
    def images(self) -> int:
        """How many images it was trained on."""
        return len(self.coefficients)

    def compute_decisions(self, gram: Matrix) -> Matrix:
        """Return the decision values Σᵢ yᵢαᵢKᵢ + b of the classes, [m, classes], for kernel values [m, t]."""
        return multiply_rows(gram, self.coefficients) + self.intercepts

    def state(self) -> State:
        """Return coefficients and intercepts."""
        return {"coefficients": self.coefficients, "intercepts": self.intercepts}

    def _predict(self, gram: Matrix) -> IntArray:
        predicted: IntArray = self.compute_decisions(gram).argmax(axis=1).astype(np.int64)
        return predicted

    def _compute_scores(self, gram: Matrix) -> Matrix:
        return self.compute_decisions(gram)


@dataclass(frozen=True)
class OneVsOne(KernelMachine):
    """One binary machine for each pair of classes, with a vote each; of classes with equal votes the first wins.

    support: the s training images that any machine uses, those of a class together, in the order of the classes.
    counts: how many of them each of the k known classes has. coefficients: yα [k - 1, s], for each support vector those
    against the other classes, in their order. intercepts: of the pairs (0, 1), (0, 2) … (k - 2, k - 1). known: the
    classes that have training images. classes: how many classes there are. count: of training images.
    """

    support: IntArray
    counts: IntArray
    coefficients: Matrix
    intercepts: Matrix
    known: IntArray
    classes: int
    count: int

    @property
    def images(self) -> int:
        """How many images it was trained on."""
        return self.count

    def compute_margins(self, gram: Matrix) -> Matrix:
        """Return the decision values [m, pairs] for kernel values [m, t]; positive ones are for a pair's first class.

        Source: Chang and Lin 2011, section 7.
        """
        ends = np.cumsum(self.counts)
        own = [slice(end - count, end) for end, count in zip(ends, self.counts, strict=True)]
        # What the support vectors of each class contribute against each of the others, [m, k - 1].
        parts = [multiply_rows(gram[:, self.support[one]], self.coefficients[:, one].T) for one in own]
        pairs = combinations(range(len(self.known)), 2)
        # Their own class is left out before it: against class j the row of an earlier class is j - 1.
        sums = [parts[first][:, second - 1] + parts[second][:, first] for first, second in pairs]
        margins: Matrix = np.stack(sums, axis=1) + self.intercepts
        return margins

    def state(self) -> State:
        """Return support vectors, coefficients and intercepts."""
        names = [one.name for one in fields(self) if one.name != "report"]
        return {name: np.asarray(getattr(self, name)) for name in names}

    def _predict(self, gram: Matrix) -> IntArray:
        votes, _ = self._count_votes(self.compute_margins(gram))
        predicted: IntArray = self.known[votes.argmax(axis=1)]
        return predicted

    def _compute_scores(self, gram: Matrix) -> Matrix:
        margins = self.compute_margins(gram)
        votes, confidences = self._count_votes(margins)
        predicted = self.known[votes.argmax(axis=1)]
        # Votes, plus less than half a vote for the sum of the margins; a single margin where there are two classes.
        if len(self.known) == 2:
            ranked = np.hstack([margins, -margins])
        else:
            ranked = votes + confidences / (3 * (np.abs(confidences) + 1))
        scores = spread_scores(ranked, self.known, self.classes)
        # Margins decide between equal votes here, the order of the classes in libsvm's predictions. Those are the
        # results that are stored, and the first of the ranks has to agree with them.
        scores[np.arange(len(gram)), predicted] = ranked.max(axis=1) + 1
        return scores

    def _count_votes(self, margins: Matrix) -> tuple[Matrix, Matrix]:
        """Return the votes and the sums of the margins of each known class, [m, k]."""
        votes, sums = (np.zeros((len(margins), len(self.known))) for _ in range(2))
        for pair, (first, second) in enumerate(combinations(range(len(self.known)), 2)):
            # libsvm gives the first class what is above 0, and the second all else.
            votes[:, first] += margins[:, pair] > 0
            votes[:, second] += margins[:, pair] <= 0
            sums[:, first] += margins[:, pair]
            sums[:, second] -= margins[:, pair]
        return votes, sums


def restore_machine(state: State) -> KernelMachine:
    """Rebuild a machine from its state, which may hold other arrays as well."""
    if "support" not in state:
        return OneVsRest({}, np.ascontiguousarray(state["coefficients"]), state["intercepts"])
    return OneVsOne(
        {},
        support=state["support"],
        counts=state["counts"],
        coefficients=np.ascontiguousarray(state["coefficients"]),
        intercepts=state["intercepts"],
        known=state["known"],
        classes=int(state["classes"]),
        count=int(state["count"]),
    )


def require_finite_values(gram: FloatArray) -> None:
    """Raise a `FeatureError` that names the first image with a kernel value that is not finite."""
    if (found := find_nonfinite(gram)) is not None:
        raise FeatureError(f"kernel values of image {found[0]} are not finite: check its features and the kernel")
