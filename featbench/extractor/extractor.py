"""The extractor as a scikit-learn transformer: preprocessing and stages, learned, refined, applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import validate_data

from featbench.arguments import naming_arguments, suggest_arguments
from featbench.data.arrays import count_values, read_pixels
from featbench.data.maps import Preprocessing
from featbench.errors import DataError, LearningError
from featbench.evaluation.labels import read_labels
from featbench.extractor.fitting import fit_network, make_equal_maps
from featbench.extractor.nested import change_inner, list_inner, split_changes
from featbench.extractor.settings import Computing, Settings
from featbench.features.extraction import extract
from featbench.learning.learner import FeatureLearner
from featbench.refinement.settings import Refinement
from featbench.stages.architecture import Architecture
from featbench.stages.specs import Shape
from featbench.system.progress_bars import show_progress
from featbench.types import FloatArray


class Extractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images in, features out: preprocessing and stages as a scikit-learn transformer.

    `fit` learns filters without labels and, with `refined`, refines the whole network with them; `transform` applies
    it. It works in pipelines, in grid searches, with `clone`, with pickle and with `set_output`.

    Parameters
    ----------
    architecture : str or Architecture, default "32F3-Rabs-N3-PA2/2"
        The stages, in the papers' notation, as in ``featbench compare --stages``. A learner that gives the whole
        network, as `module` and `sift` do, ignores it.
    learner : str, class or FeatureLearner, default "random"
        The name of a feature learner, as ``featbench list learners`` shows them, with parameters if it has any, as in
        "psd(lam=0.5)"; or the class of a learner, or an instance.
    learner_params : mapping, optional
        Parameters of a learner that is named or given as a class, by name.
    refined : bool, default False
        Whether labels refine the learned network by back-propagation: the `+` of R+ and U+. A sixth of the images of
        each class is held out for validation.
    refinement : mapping or Refinement, optional
        Settings of that refinement, by the names of `featbench.Refinement`.
    preprocessing : Preprocessing or mapping, optional
        What happens to an image before the first stage. Defaults to grey images of zero mean and unit variance.
    seed : int, default 0
        Decides all that is random: filters, learning, which images are held out, refinement. Any integer.
    device : {"auto", "cpu", "cuda"}, default "auto"
        Where to compute. `auto` takes a GPU if there is one.
    precision : {"float32", "tf32", "bf16", "fp16"}, default "float32"
        What `transform` computes in. Filters are learned and refined in float32.
    image_shape : tuple of int, optional
        The shape (height, width) or (height, width, 3) of the image that a row of X holds; one side may be -1, as in
        numpy, for what fits. By default rows hold square grey images.
    verbose : bool, default False
        Whether bars show the progress of learning, refining and extracting; in a notebook they are the notebook's.

    Attributes
    ----------
    network_ : nn.Module
        The network after `fit`.
    shape_ : tuple of int
        The shape (maps, height, width) of the maps that it was fitted on.
    preprocessing_ : Preprocessing
        What happened to the images of `fit`, and happens to those of `transform`.
    n_features_in_ : int
        Values of an image, as scikit-learn counts them. Only if the images of `fit` had one shape.
    feature_names_in_ : array of str
        The names of the columns of X. Only if `fit` was given a data frame with names that are texts.
    refinement_ : dict
        What refinement did: epochs, the best epoch, the rate, and validation scores in percent. Only if `refined`.

    Notes
    -----
    Images X are an array [n, height, width] of grey values, [n, height, width, 3] of RGB values, [n, height × width] of
    square images as rows, or rows as `image_shape` says; or a list of images, grey or RGB, of any sizes that
    `preprocessing` makes one size, as `Preprocessing(size=64, pad=True)` does. X and y stay as they are, and so do the
    global random generators.

    Parameters inside `learner_params`, `refinement`, `preprocessing` and a learner that is an instance can be set by
    name, as in ``GridSearchCV(pipeline, {"extractor__learner_params__lam": [0.5, 1]})``.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(Extractor("32F3-Rabs-N3-PA2/2"), LogisticRegression())
    >>> model.fit(images, labels).score(others, their_labels)  # doctest: +SKIP
    """

    @suggest_arguments
    def __init__(
        self,
        architecture: str | Architecture = "32F3-Rabs-N3-PA2/2",
        learner: str | FeatureLearner | type[FeatureLearner] = "random",
        *,
        learner_params: Mapping[str, Any] | None = None,
        refined: bool = False,
        refinement: Mapping[str, Any] | Refinement | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
        image_shape: Sequence[int] | None = None,
        verbose: bool = False,
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
        self.image_shape = image_shape
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Extractor:  # noqa: N803
        """Learn the network from images.

        Parameters
        ----------
        X : array, data frame or list
            Images, in one of the forms that the class describes; preprocessing has to make them one size.
        y : array, [n], optional
            Their labels: integers, texts or booleans, at least two of each class. They are needed, and looked at, only
            if `refined`.

        Returns
        -------
        Extractor
            Itself.

        Raises
        ------
        FeatbenchError
            If a parameter, the images or the labels are not what they have to be, or if learning fails. The message
            says what to do. It is a `ValueError` too.
        """
        with naming_arguments(refine="refinement"):
            settings, computing = Settings.read(vars(self)), Computing.read(vars(self))
            if settings.refined and y is None:
                raise LearningError(
                    "refinement needs labels: call fit(X, y); with refined=True Extractor requires y to be passed, but "
                    "the target y is None"
                )
            validate_data(self, X, reset=True, skip_check_array=True, ensure_2d=False)
            images = read_pixels(X, computing.row_shape)
            labels = read_labels(y, len(images)) if settings.refined else None
            maps = make_equal_maps(images, settings.preprocessing)
            with show_progress(computing.verbose) as progress:
                fitted = fit_network(settings, maps, labels, computing.device, progress)
            one = extract(fitted.network, maps.select(np.arange(1)), computing.device)
        self.network_, self.shape_, self.preprocessing_ = fitted.network, maps.shape, settings.preprocessing
        self._n_features_out = one.shape[1]
        self._keep("refinement_", fitted.refinement)
        self._keep("n_features_in_", count_values(images))
        return self

    def transform(self, X: Any) -> FloatArray:  # noqa: N803
        """Return the features of images.

        Parameters
        ----------
        X : array, data frame or list
            Images, in one of the forms that the class describes. Preprocessing has to make them the size of those of
            `fit`; the columns of a data frame have to be those of `fit`, in their order.

        Returns
        -------
        array of float32, [n, d], or a data frame if `set_output` asks for one
            A row for each image.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        FeatbenchError
            If the images are not what they have to be, differ in size from those of `fit`, or their features are not
            finite. It is a `ValueError` too.
        """
        if not hasattr(self, "network_"):
            raise NotFittedError("this Extractor is not fitted: call fit first")
        with naming_arguments():
            computing = Computing.read(vars(self))
            validate_data(self, X, reset=False, skip_check_array=True, ensure_2d=False)
            images = read_pixels(X, computing.row_shape)
            maps = make_equal_maps(images, self.preprocessing_)
            if maps.shape != self.shape_:
                raise DataError(self._describe_other_size(count_values(images), maps.shape))
            with show_progress(computing.verbose) as progress:
                return extract(
                    self.network_,
                    maps,
                    computing.device,
                    partial(progress, "extracting features"),
                    precision=computing.precision,
                )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool, default True
            Whether those inside parameters are returned too, such as `learner_params__lam`.

        Returns
        -------
        dict of str to value
            The parameters, as they were given.
        """
        found: dict[str, Any] = super().get_params(deep=False)
        if not deep:
            return found
        return found | {name: one for outer, value in found.items() for name, one in list_inner(outer, value).items()}

    def set_params(self, **params: Any) -> Extractor:
        """Set parameters by name.

        Parameters
        ----------
        **params : value
            Parameters, and those inside parameters, such as `learner_params__lam`.

        Returns
        -------
        Extractor
            Itself.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        plain, nested = split_changes(params)
        super().set_params(**plain)
        for outer, changes in nested.items():
            setattr(self, outer, change_inner(outer, getattr(self, outer), changes))
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Tables of any width are images only where it is said how: without that, scikit-learn's checks, which fit such
        # tables, do not apply.
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.target_tags.required = bool(self.refined)
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _keep(self, name: str, value: object) -> None:
        """Set what this fit found, or remove what an earlier one left."""
        if value is None:
            self.__dict__.pop(name, None)
        else:
            setattr(self, name, value)

    def _describe_other_size(self, values: int | None, shape: Shape) -> str:
        expected = getattr(self, "n_features_in_", None)
        counted = (
            f"X has {values} features, but Extractor is expecting {expected} features as input: "
            if values is not None and expected is not None and values != expected
            else ""
        )
        return f"{counted}images become maps of {shape[1:]}, but the fit had {self.shape_[1:]}: give one size"
