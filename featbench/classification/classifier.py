"""Classifiers on features: the contract that plugins fill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from featbench.features.rows import LocalMaps, LocalVectors
from featbench.parameters import Parametrised
from featbench.system.seeds import SEED_BITS
from featbench.types import FloatArray, IntArray, State

Meaning = Literal["margins", "logits", "probabilities"]
"""What the scores of classes are: `logits` become probabilities by the softmax."""


class BasePredictor(ABC):
    """What trained classifiers of both kinds share: what their scores are, and a state that they are rebuilt from."""

    report: Mapping[str, Any]
    scores_are: Meaning = "margins"

    def state(self) -> State:
        """Return all that the predictor was trained to, for the `restore` of their classifier to rebuild it from.

        Returns
        -------
        mapping of str to numpy.ndarray
            Arrays of numbers by name; a single number is an array without axes.

        Raises
        ------
        NotImplementedError
            Unless overridden: rows of this classifier cannot be exported then.
        """
        raise NotImplementedError


class Predictor(BasePredictor):
    """A trained classifier of rows: what `Classifier.fit` returns.

    Attributes
    ----------
    report : Mapping[str, Any]
        What the result records about training, in values that JSON can hold: chosen hyper-parameters, the solver's
        `objective` and `iterations`, whether it `converged`. A classifier that chose on the validation images gives
        their accuracy in percent as `validation_accuracy`. It may be empty.
    scores_are : {"margins", "logits", "probabilities"}, default "margins"
        What `scores` returns. `featbench predict` shows probabilities where there are any.

    See Also
    --------
    MapPredictor : the same for a classifier of local vectors.
    """

    @abstractmethod
    def predict(self, features: FloatArray) -> IntArray:
        """Predict the class of each image.

        It is called several times, with some of the test images each: what it predicts for an image must not depend on
        the others that come with it.

        Parameters
        ----------
        features : numpy.ndarray
            Features [m, d] of m images, float16, float32 or float64: one row for each image, with the columns that the
            classifier was trained on.

        Returns
        -------
        numpy.ndarray
            Class indices [m], int64.

        Raises
        ------
        FeatureError
            If a feature is not finite.
        """

    def scores(self, features: FloatArray) -> FloatArray | None:
        """Score all classes of each image, for metrics that rank them.

        It is called as `predict` is, and agrees with it: the class of the largest score, of equal ones the first, is
        the predicted one.

        Parameters
        ----------
        features : numpy.ndarray
            Features [m, d] of m images, as in `predict`.

        Returns
        -------
        numpy.ndarray or None
            Scores [m, classes], floating point: the larger, the likelier the class; minus infinity for a class that is
            never predicted. None unless overridden: cells whose metric needs scores then fail.
        """
        return None


class MapPredictor(BasePredictor):
    """A trained classifier of local vectors: what `MapClassifier.fit` returns.

    Attributes
    ----------
    report : Mapping[str, Any]
        What the result records about training, as the `report` of a `Predictor`.
    scores_are : {"margins", "logits", "probabilities"}, default "margins"
        What `scores` returns.
    """

    @abstractmethod
    def predict(self, features: LocalVectors) -> IntArray:
        """Predict the class of each image.

        It is called several times, with some of the test images each: what it predicts for an image must not depend on
        the others that come with it.

        Parameters
        ----------
        features : LocalVectors
            The local vectors of b images: `vectors` [p, maps], image after image, and `grids` [b, 2], the rows and
            columns of positions of each image.

        Returns
        -------
        numpy.ndarray
            Class indices [b], int64.

        Raises
        ------
        FeatureError
            If a local vector is not finite.
        """

    def scores(self, features: LocalVectors) -> FloatArray | None:
        """Score all classes of each image, for metrics that rank them, as `Predictor.scores`.

        Parameters
        ----------
        features : LocalVectors
            The local vectors of b images, as in `predict`.

        Returns
        -------
        numpy.ndarray or None
            Scores [b, classes]; None unless overridden.
        """
        return None


class BaseClassifier(Parametrised):
    """What classifiers of both kinds share: a name, a source, parameters, a seed, and a device.

    seed_bits: bits of the seed that it is given. A subclass does not inherit it.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    seed_bits: ClassVar[int] = SEED_BITS

    def on(self, device: str) -> Self:
        """Choose where the classifier computes.

        Parameters
        ----------
        device : str
            `cpu` or `cuda`.

        Returns
        -------
        Self
            The classifier as it computes there: itself, unless it overrides this. The device is not a parameter, and
            an override must leave the parameters as they are.
        """
        return self

    def restore(self, state: State) -> Any:
        """Rebuild a predictor from its state.

        Parameters
        ----------
        state : mapping of str to numpy.ndarray
            What a predictor's `state` returned, from a classifier of the same parameters.

        Returns
        -------
        Predictor or MapPredictor
            A predictor that predicts and scores alike, to the bit. Its report may be empty.

        Raises
        ------
        NotImplementedError
            Unless overridden.
        """
        raise NotImplementedError


class Classifier(BaseClassifier, ABC):
    """A classifier of features, one row for each image.

    A subclass is a dataclass whose fields are its parameters, each with a default, or a class without parameters. It
    receives training images alone: test labels reach the scorer and nothing else.

    Attributes
    ----------
    name : str
        What `--classifiers` calls it. A class variable, which every subclass sets.
    source : str, default ""
        The paper or the library that it follows. A class variable.

    See Also
    --------
    MapClassifier : a classifier of local vectors, for images of several sizes.

    Notes
    -----
    `create`, `choice` and `parameters`, inherited from `Parametrised`, read and write `name(parameter=value)`.
    `__post_init__` may raise `ValueError` for a parameter without sense: a user sees it as a `UsageError`.
    """

    @abstractmethod
    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Train on all training images.

        Hyper-parameters may be chosen first: by training on the images that `validation` does not mark, and judging on
        those that it marks. What is chosen is then trained on all images.

        Parameters
        ----------
        features : numpy.ndarray
            Features [t, d] of t training images, float16, float32 or float64. Leave them unchanged.
        labels : numpy.ndarray
            Class indices [t], int64, each in `range(classes)`. Some classes may have no image here.
        validation : numpy.ndarray
            Marks [t], bool: the images to choose hyper-parameters on.
        classes : int
            How many classes the data set has.
        seed : int
            The source of all randomness, in [0, 2^32): equal seeds give equal predictors.

        Returns
        -------
        Predictor
            The trained classifier.

        Raises
        ------
        FeatureError
            If the features cannot be used, for instance because one is not finite.
        LearningError
            If these images cannot train it, for instance because they are too few.
        """


class MapClassifier(BaseClassifier, ABC):
    """A classifier of local vectors: of the maps of the last stage, in place of one row for each image.

    Images may differ in size. A subclass is a dataclass of parameters, as that of a `Classifier`.

    Attributes
    ----------
    name : str
        What `--classifiers` calls it. A class variable, which every subclass sets.
    source : str, default ""
        The paper or the library that it follows. A class variable.

    See Also
    --------
    Classifier : a classifier of rows, with the rules that hold for both.
    """

    @abstractmethod
    def fit(
        self, features: LocalMaps, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> MapPredictor:
        """Train on the local vectors of all training images.

        Parameters
        ----------
        features : LocalMaps
            The local vectors of t training images, `len(features)` of them. They may exceed the memory:
            `features.blocks()` yields `LocalVectors`, some images at a time.
        labels : numpy.ndarray
            Class indices [t], int64, each in `range(classes)`. Some classes may have no image here.
        validation : numpy.ndarray
            Marks [t], bool: the images to choose hyper-parameters on.
        classes : int
            How many classes the data set has.
        seed : int
            The source of all randomness, in [0, 2^32): equal seeds give equal predictors.

        Returns
        -------
        MapPredictor
            The trained classifier.

        Raises
        ------
        FeatureError
            If the local vectors cannot be used, for instance because one is not finite.
        LearningError
            If these images cannot train it, for instance because they are too few.
        """


AnyClassifier = Classifier | MapClassifier
"""What the hook for classifiers may return."""
