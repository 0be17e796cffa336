"""Protocols: data set, preprocessing, split rule, draws, metric, and the grid that is run by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from featbench.data.maps import Preprocessing
from featbench.types import Test


@dataclass(frozen=True)
class Baseline:
    """A row that a protocol adds to every table, whatever is compared: what features must beat to be of use.

    Parameters
    ----------
    learner : str
        The learner, as `--features` names it.
    classifier : str or None, default None
        The one classifier that it goes with. None: it has a row for each classifier of the comparison that takes
        rows of features.
    otherwise : str, default "logistic"
        The classifier that it goes with where `classifier` is None and every classifier of the comparison takes local
        vectors.
    regime : str, default "fixed"
        The regime that it runs under.
    """

    learner: str
    classifier: str | None = None
    otherwise: str = "logistic"
    regime: str = "fixed"


@dataclass(frozen=True)
class Selection:
    """Learners and regimes, as `--features` and `--regimes` write them, that a comparison runs on request.

    Parameters
    ----------
    features : tuple of str, default ()
        Learners.
    regimes : tuple of str, default ()
        Regimes.
    """

    features: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """The rules under which features are judged, so that nothing but the features differs between two rows.

    A protocol declares; it holds no logic. Options of `featbench compare` override some of what it declares.

    Parameters
    ----------
    name : str
        What `--protocol` calls it: a word without spaces, commas, slashes or brackets.
    summary : str
        What it is, in one line for `featbench list protocols`.
    dataset : str
        Name of the data set; `folder:PATH` is a folder with a folder of images for each class.
    architecture : str
        The architecture that learners of filters fill, as in "64F9-Rabs-N-PA10/5".
    preprocessing : Preprocessing
        What becomes of images before the first stage.
    train_per_class : int or None
        Training images of each class, validation images included; at least 2. None: all that do not test.
    test : {"rest", "fixed", "held-out"}
        Which images test: "rest", all that are not trained on; "fixed", the data set's own test images; "held-out",
        about half of each class, set apart once for all draws. Held-out images test in every draw, so that filters
        can be learned once for all draws, without labels, on all images that do not test.
    features : tuple of str
        Learners that a comparison runs by default, as `--features` writes them.
    own_classifiers : Mapping of str to tuple of str, default {}
        Learners, as `features` writes them, that go by default with classifiers of their own in place of
        `classifiers`.
    thorough : Selection or None, default None
        What `--thorough` adds to the learners and the regimes that a comparison runs by default.
    regimes : tuple of str, default ("R", "U", "R+", "U+", "fixed")
        Regimes that a comparison runs by default.
    classifiers : tuple of str, default ("logistic",)
        Classifiers that a comparison runs by default.
    validation_fraction : float, default 1/6
        Part of each class's training images on which hyper-parameters are chosen, by accuracy. At least one image of
        each class, and never all.
    test_per_class : int or None, default None
        At most so many test images of each class. None: all.
    draws : int, default 5
        How many times training images are drawn. All training images make one draw.
    metric : str, default "accuracy"
        Name of the metric that test images are scored by: `featbench list metrics`. A plugin's metric must be given by
        a plugin that is loaded too; a protocol whose metric nobody gives is refused.
    architectures : Mapping of str to str, default {}
        More architectures by name, for `--stages`.
    refinement : str, default ""
        Settings of R+ and U+ where they differ from the defaults, as in "epochs=30,rate=0.01".
    refinements : Mapping of str to str, default {}
        More settings of R+ and U+ by name, for `--refine`; they override those of `refinement`.
    source : str, default ""
        The paper.
    baselines : tuple of Baseline, default chance and raw pixels
        Rows that every table holds, the weakest first. Tables print them below all others, the weakest last.
    task : str, default "classification"
        What is predicted of an image, by its name in `featbench.evaluation.task`.

    Examples
    --------
    >>> import featbench
    >>> few = featbench.Protocol(
    ...     name="digits-few",
    ...     summary="8×8 digits, 5 labels per class",
    ...     dataset="digits",
    ...     architecture="32F3-Rabs-N3-PA2/2",
    ...     preprocessing=featbench.Preprocessing(),
    ...     train_per_class=5,
    ...     test="rest",
    ...     features=("random", "gabor"),
    ... )
    >>> few.metric
    'accuracy'
    """

    name: str
    summary: str
    dataset: str
    architecture: str
    preprocessing: Preprocessing
    train_per_class: int | None
    test: Test
    features: tuple[str, ...]
    own_classifiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    thorough: Selection | None = None
    regimes: tuple[str, ...] = ("R", "U", "R+", "U+", "fixed")
    classifiers: tuple[str, ...] = ("logistic",)
    validation_fraction: float = 1 / 6
    test_per_class: int | None = None
    draws: int = 5
    metric: str = "accuracy"
    architectures: Mapping[str, str] = field(default_factory=dict)
    refinement: str = ""
    refinements: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    baselines: tuple[Baseline, ...] = (Baseline("chance", "guess"), Baseline("raw-pixels"))
    task: str = "classification"
