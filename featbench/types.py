"""What flows through featbench: images, splits, features, scores and results. All frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Pixels = NDArray[np.uint8] | NDArray[np.floating[Any]]

Status = Literal["ok", "failed", "skipped", "not run"]


@dataclass(frozen=True)
class Images:
    """Labelled images as a data set gives them.

    pixels: n images, each [height, width] grey or [height, width, 3] RGB, uint8 or floating point; one array where all
    have one size, else a sequence, which may read an image when it is asked for it. labels: [n], indices into
    `classes`. `test` marks the images of the set's own test split, [n] bool, or is None where the set has none.
    """

    pixels: Sequence[Pixels] | Pixels
    labels: IntArray
    classes: tuple[str, ...]
    test: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Split:
    """One draw: indices of the training and test images, and which training images serve as validation.

    train: [t] sorted indices. validation: [t] bool, True where the training image is held out while something is
    chosen. test: [m] sorted indices, disjoint from train.
    """

    train: IntArray
    validation: NDArray[np.bool_]
    test: IntArray


@dataclass(frozen=True)
class Score:
    """The metric's name and its value in percent."""

    metric: str
    value: float


@dataclass(frozen=True)
class Seconds:
    """What a cell cost, wherever its parts were computed: seconds spent learning, refining, extracting, classifying."""

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
    """What a cell gave. `key` is the hash of everything that decides the outcome.

    predictions: [m] class indices of the test images, in the order of the split; None unless status is ok.
    report: chosen hyper-parameters, solver objective, iterations, convergence. message: why it failed or was skipped.
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
