"""Tasks: what is predicted of an image. Today that is its class.

A task decides everything that depends on the kind of target: which targets images carry, from which groups a draw
takes equally many, and what a prediction must look like. Verifying pairs, or predicting ratings or pixels, would each
be another task; steps, runner, store and reports ask the task, and need not change for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featbench.data.prepare import PreparedImages
from featbench.errors import PluginError
from featbench.types import Images, IntArray


class Task(ABC):
    """What is predicted of each image.

    stored_as: the type that the store keeps predictions in.
    """

    stored_as: ClassVar[type[np.generic]]

    @abstractmethod
    def find_targets(self, images: Images | PreparedImages) -> NDArray[Any]:
        """Return what is to be predicted.

        Parameters
        ----------
        images : Images or PreparedImages
            n images, raw or prepared.

        Returns
        -------
        ndarray
            [n, …], the target of each image along the first axis.
        """

    @abstractmethod
    def find_strata(self, images: Images | PreparedImages) -> IntArray:
        """Return the group of each image: a draw takes equally many training images of each group.

        Parameters
        ----------
        images : Images or PreparedImages
            n images, raw or prepared.

        Returns
        -------
        ndarray of int64
            [n], groups counted from 0.
        """

    @abstractmethod
    def check_predictions(self, predictions: ArrayLike, count: int, classes: int, classifier: str) -> NDArray[Any]:
        """Return predictions as metrics take them.

        Parameters
        ----------
        predictions : array_like
            What the classifier predicted for the test images.
        count : int
            How many test images there are.
        classes : int
            How many classes the data set has.
        classifier : str
            The classifier's name, for the message of an error.

        Returns
        -------
        ndarray
            [count, …], of the type that metrics expect.

        Raises
        ------
        PluginError
            If the predictions have another shape or type, or lie outside the classes; the message names the classifier.
        """


class Classification(Task):
    """Each image belongs to one of the data set's classes: targets and predictions are class indices [n], int64."""

    stored_as: ClassVar[type[np.generic]] = np.int32

    def find_targets(self, images: Images | PreparedImages) -> IntArray:
        """Return the labels."""
        return images.labels

    def find_strata(self, images: Images | PreparedImages) -> IntArray:
        """Return the labels: a draw takes equally many images of each class."""
        return images.labels

    def check_predictions(self, predictions: ArrayLike, count: int, classes: int, classifier: str) -> IntArray:
        """Return class indices [count], each in range(classes)."""
        found = np.asarray(predictions)
        if found.shape != (count,):
            raise PluginError(f"classifier {classifier} gave predictions of shape {found.shape} for {count} images")
        if found.dtype.kind not in "iu":
            raise PluginError(
                f"classifier {classifier} predicted values of type {found.dtype}; class indices are integers"
            )
        outside = found[(found < 0) | (found >= classes)]
        if len(outside):
            # They would count as wrong, as if the features were to blame.
            raise PluginError(
                f"classifier {classifier} predicted class {outside[0]} for an image, and {len(outside)} of {count} "
                f"images lie outside the {classes} classes, which count from 0"
            )
        return found.astype(np.int64, copy=False)


CLASSIFICATION = Classification()

TASKS: dict[str, Task] = {"classification": CLASSIFICATION}
"""The tasks, by the names that protocols give them."""
