"""What flows through featbench: images, splits, features, scores and results. All frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

IntArray = NDArray[np.int64]

State = Mapping[str, NDArray[Any]]
"""What a trained thing is rebuilt from: arrays by name, numbers as arrays without axes."""

Pixels = NDArray[np.uint8] | NDArray[np.floating[Any]]
"""One image, [height, width] grey or [height, width, 3] RGB; or several of one size, [n, ...]."""

Test = Literal["rest", "fixed", "held-out"]
"""Which images test: all that do not train, the data set's own test images, or a part set apart for all draws."""

Status = Literal["ok", "failed", "skipped", "not run"]
"""How far a cell came: skipped by a refusal that was known before it began, failed by an error while it ran."""


@dataclass(frozen=True)
class Images:
    """Labelled images as a data set gives them, before any preprocessing.

    Parameters
    ----------
    pixels : ndarray or sequence of ndarray
        n images, each [height, width] grey or [height, width, 3] RGB, uint8 or other real numbers, in any unit:
        a protocol's preprocessing usually standardises them. One array [n, height, width(, 3)] where all have one size,
        else a sequence, which may read an image when it is asked for it, from several threads at once.
    labels : ndarray of int
        [n], each an index into `classes`.
    classes : tuple of str
        The names of the classes.
    test : ndarray of bool or None, default None
        [n], True for the images of the data set's own test split; None where it has none.
    names : sequence of str or None, default None
        [n], what reports call each image, as the path of its file below the data set's folder; None where images have
        no names.

    Notes
    -----
    Nothing is checked when it is made. A data set whose images break the contract is refused with a `DataError` when it
    is loaded.
    """

    pixels: Sequence[Pixels] | Pixels
    labels: IntArray
    classes: tuple[str, ...]
    test: NDArray[np.bool_] | None = None
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Split:
    """One draw: indices of the training and test images, and which training images serve as validation.

    train: [t] sorted indices. validation: [t] bool, True where the training image is held out while hyper-parameters
    are chosen. test: [m] sorted indices, disjoint from train. seen: [s] sorted indices of the images that filters may
    be learned from without their labels, disjoint from test.
    """

    train: IntArray
    validation: NDArray[np.bool_]
    test: IntArray
    seen: IntArray


@dataclass(frozen=True)
class Score:
    """The metric's name, its value, and the unit of that: "%" for percent, "" for a number without unit."""

    metric: str
    value: float
    unit: str


@dataclass(frozen=True)
class Seconds:
    """What a cell cost: seconds spent learning, refining, extracting and classifying.

    A part that was read from the store counts what its first computation took.
    """

    learn: float = 0.0
    refine: float = 0.0
    extract: float = 0.0
    classify: float = 0.0

    @property
    def fit(self) -> float:
        """Everything that looks at training data: filters, refinement and classifier."""
        return self.learn + self.refine + self.classify


@dataclass(frozen=True)
class Result:
    """What a cell gave.

    key: the hash of everything that decides the outcome. predictions: [m] class indices of the test images, in the
    order of the split; None unless status is ok. report: chosen hyper-parameters, the solver's objective, iterations
    and convergence. message: why the cell failed or was skipped. traceback: where it failed. provenance: the key of
    the record of the run that computed it.
    """

    key: str
    status: Status
    score: Score | None = None
    predictions: IntArray | None = None
    seconds: Seconds = field(default_factory=Seconds)
    report: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    traceback: str = ""
    provenance: str = ""
