"""Classifiers on features: the contract that plugins fill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featbench.features.rows import LocalMaps, LocalVectors
from featbench.parameters import Parametrised
from featbench.types import FloatArray, IntArray


class Predictor(ABC):
    """A trained classifier. `report`: chosen parameters, objective, iterations, and whether the solver converged."""

    report: Mapping[str, Any]

    @abstractmethod
    def predict(self, features: FloatArray) -> IntArray:
        """Return the class index of each row of features [m, d]; test images come some at a time."""


class MapPredictor(ABC):
    """A trained classifier of local vectors. `report` as that of a `Predictor`."""

    report: Mapping[str, Any]

    @abstractmethod
    def predict(self, features: LocalVectors) -> IntArray:
        """Return the class index of each of the images; test images come some at a time."""


class _Trained(Parametrised):
    """What classifiers of both kinds have: a name, a source, parameters, and a device."""

    name: ClassVar[str]
    source: ClassVar[str] = ""

    def on(self, device: str) -> Self:
        """Return the classifier as it computes on `cpu` or `cuda`: itself, unless it knows more than one."""
        return self


class Classifier(_Trained, ABC):
    """A classifier: a dataclass whose fields are its parameters, with defaults, or a class without any.

    It is given training images alone, so that test labels reach the scorer only.
    """

    @abstractmethod
    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Train on features [t, d] with labels [t] out of range(classes).

        `validation` [t] marks the rows to choose hyper-parameters on; what is chosen is then trained on all rows.
        """


class MapClassifier(_Trained, ABC):
    """A classifier that is given the maps of the last stage as local vectors, in place of one row for each image.

    Images may differ in size. All else is as a `Classifier` has it.
    """

    @abstractmethod
    def fit(
        self, features: LocalMaps, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> MapPredictor:
        """Train on the local vectors of t images with labels [t] out of range(classes)."""


AnyClassifier = Classifier | MapClassifier
"""What the hook for classifiers may return."""
