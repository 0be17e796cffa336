"""Classifiers on features: the contract that plugins fill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.parameters import Parametrised
from featbench.types import FloatArray, IntArray


class Predictor(ABC):
    """A trained classifier. `report`: chosen parameters, objective, iterations, and whether the solver converged."""

    report: Mapping[str, Any]

    @abstractmethod
    def predict(self, features: FloatArray) -> IntArray:
        """Return the class index of each row of features [m, d]; test images come some at a time."""


class Classifier(Parametrised, ABC):
    """A classifier: a dataclass whose fields are its parameters, with defaults, or a class without any.

    It is given training images alone, so that test labels reach the scorer only.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""

    @abstractmethod
    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Train on features [t, d] with labels [t] out of range(classes).

        `validation` [t] marks the rows to choose hyper-parameters on; what is chosen is then trained on all rows.
        """
