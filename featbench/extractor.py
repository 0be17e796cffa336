"""The extractor as a scikit-learn transformer: preprocessing and stages, learned, refined, applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from torch import nn

from featbench.data.maps import Maps, Preprocessing, make_maps
from featbench.devices.selection import resolve_device
from featbench.errors import DataError, LearningError, UsageError
from featbench.evaluation.split import hold_out
from featbench.features.extraction import extract
from featbench.learning.learner import FeatureLearner, FilterLearner, NetworkLearner
from featbench.learning.networks import assemble, find_refusal, learn_network, learn_stages
from featbench.operations.precision import check_precision
from featbench.refinement.refine import refine
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.system.seeds import derive_seed
from featbench.types import FloatArray

VALIDATION_FRACTION = 1 / 6
"""Fraction of each class that refinement holds out for validation; 5 of 30 images in Jarrett et al. 2009."""


class Extractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images in, features out: preprocessing and stages as a scikit-learn transformer.

    `fit` learns filters without labels and, with `refined`, refines the whole network with them; `transform` applies
    it. It works in pipelines, in grid searches, with `clone` and with pickle.

    Parameters
    ----------
    architecture : str, default "32F3-Rabs-N3-PA2/2"
        The stages, in the papers' notation, as in ``featbench compare --stages``. A learner that gives the whole
        network, as `module` and `sift` do, ignores it.
    learner : str or FeatureLearner, default "random"
        The name of a feature learner, as ``featbench list learners`` shows them, or an instance of one.
    learner_params : mapping, optional
        Parameters of the learner that is named, by name.
    refined : bool, default False
        Whether labels refine the learned network by back-propagation: the `+` of R+ and U+. A sixth of the images of
        each class is held out for validation.
    refinement : mapping, optional
        Settings of that refinement, by the names of `featbench.Refinement`.
    preprocessing : Preprocessing, optional
        What happens to an image before the first stage. Defaults to grey images of zero mean and unit variance.
    seed : int, default 0
        Decides all that is random: filters, learning, which images are held out, refinement.
    device : {"auto", "cpu", "cuda"}, default "auto"
        Where to compute. `auto` takes a GPU if there is one.
    precision : {"float32", "tf32", "bf16", "fp16"}, default "float32"
        What `transform` computes in. Filters are learned and refined in float32.

    Attributes
    ----------
    network_ : nn.Module
        The network after `fit`.
    shape_ : tuple of int
        The shape (maps, height, width) of the maps that it was fitted on.
    n_features_in_ : int
        Values of an image, as scikit-learn counts them.
    refinement_ : dict
        What refinement did: epochs, the best epoch, the rate, and validation scores in percent. Only if `refined`.

    Notes
    -----
    Images X are an array [n, height, width] of grey values, [n, height, width, 3] of RGB values, or
    [n, height × width] of square images as rows.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(Extractor("32F3-Rabs-N3-PA2/2"), LogisticRegression())
    >>> model.fit(images, labels).score(others, their_labels)  # doctest: +SKIP
    """

    def __init__(
        self,
        architecture: str = "32F3-Rabs-N3-PA2/2",
        learner: str | FeatureLearner = "random",
        *,
        learner_params: Mapping[str, Any] | None = None,
        refined: bool = False,
        refinement: Mapping[str, Any] | None = None,
        preprocessing: Preprocessing | None = None,
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
    ) -> None:
        self.architecture = architecture
        self.learner = learner
        self.learner_params = learner_params
        self.refined = refined
        self.refinement = refinement
        self.preprocessing = preprocessing
        self.seed = seed
        self.device = device
        self.precision = precision

    def fit(self, X: Any, y: Any = None) -> Extractor:  # noqa: N803
        """Learn the network from images.

        Parameters
        ----------
        X : array
            Images, in one of the forms that the class describes; all of one size.
        y : array, [n], optional
            Their labels, of any kind. They are needed, and looked at, only if `refined`.

        Returns
        -------
        Extractor
            Itself.

        Raises
        ------
        FeatbenchError
            If a parameter, the images or the labels are not what they have to be, or if learning fails. The message
            says what to do.
        """
        device = resolve_device(self.device)
        maps = self._make_maps(X)
        learner = self._make_learner()
        network = self._learn(learner, maps, device)
        if self.refined:
            if not learner.differentiable:
                raise UsageError(f"{learner.name} is not differentiable, so labels cannot refine it")
            network, self.refinement_ = self._refine(network, maps, y, device)
        self.network_ = network
        self.shape_ = maps.shape
        self.n_features_in_ = math.prod(np.shape(X)[1:])
        return self

    def transform(self, X: Any) -> FloatArray:  # noqa: N803
        """Return the features of images.

        Parameters
        ----------
        X : array
            Images, in one of the forms that the class describes, of the size of those of `fit`.

        Returns
        -------
        array of float32, [n, d]
            A row for each image.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        FeatbenchError
            If images differ in size from those of `fit`, or features are not finite.
        """
        if not hasattr(self, "network_"):
            raise NotFittedError("this Extractor is not fitted: call fit first")
        maps = self._make_maps(X)
        if maps.shape != self.shape_:
            raise DataError(f"images become maps of {maps.shape[1:]}, but the fit had {self.shape_[1:]}: give one size")
        precision = check_precision(self.precision)
        return extract(self.network_, maps, resolve_device(self.device), precision=precision)

    def _make_learner(self) -> FeatureLearner:
        if isinstance(self.learner, FeatureLearner):
            if self.learner_params:
                raise UsageError("learner_params go with a learner's name, not with an instance")
            return self.learner
        return Registry().learner(self.learner).create(dict(self.learner_params or {}))

    def _learn(self, learner: FeatureLearner, maps: Maps, device: torch.device) -> nn.Module:
        shape = maps.shape
        if isinstance(learner, NetworkLearner):
            return learn_network(learner, shape, maps, seed=self.seed, device=device)
        assert isinstance(learner, FilterLearner)  # there is no other kind
        architecture = Architecture.parse(self.architecture)
        reason = find_refusal(architecture, learner, shape)
        if reason:
            raise UsageError(reason)
        stages = learn_stages(architecture, learner, shape, maps, seed=self.seed, device=device)
        return assemble(architecture, learner, shape, stages)

    def _refine(self, network: nn.Module, maps: Maps, y: Any, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
        if y is None:
            raise LearningError("refinement needs labels: call fit(X, y)")
        classes, labels = np.unique(np.asarray(y), return_inverse=True)
        if len(labels) != len(maps):
            raise DataError(f"there are {len(maps)} images but {len(labels)} labels")
        validation = hold_out(labels, VALIDATION_FRACTION, derive_seed(self.seed, "validation"))
        return refine(
            network,
            maps[:],
            labels.astype(np.int64),
            validation,
            classes=len(classes),
            seed=derive_seed(self.seed, "refine"),
            device=device,
            settings=Refinement.create(dict(self.refinement or {})),
        )

    def _make_maps(self, X: Any) -> Maps:  # noqa: N803
        return make_maps(_as_images(np.asarray(X)), self.preprocessing or Preprocessing())


def _as_images(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return images [n, height, width(, 3)] of numbers, rows of square images unfolded."""
    if pixels.dtype == object or pixels.ndim not in (2, 3, 4):
        raise DataError(
            "images come as [n, height, width], [n, height, width, 3] or rows of square images, "
            f"not {list(pixels.shape)}"
        )
    if pixels.ndim > 2:
        return pixels
    side = math.isqrt(pixels.shape[1])
    if side * side != pixels.shape[1]:
        raise DataError(f"rows of {pixels.shape[1]} values are not square images: give [n, height, width]")
    return pixels.reshape(len(pixels), side, side)
