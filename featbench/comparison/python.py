"""A comparison as a function of Python: `featbench.compare`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.arguments import naming_arguments, read_flag, read_path, suggest_arguments
from featbench.classification.classifier import AnyClassifier
from featbench.comparison.workbench import Workbench
from featbench.execution.bars import show_bars
from featbench.experiment.keywords import read_plugins, read_request, read_track
from featbench.learning.learner import FeatureLearner
from featbench.refinement.settings import Refinement
from featbench.stages.architecture import Architecture


@suggest_arguments
def compare(
    protocol: str | None = None,
    *,
    dataset: str | Path | None = None,
    features: str | Iterable[str | FeatureLearner | type[FeatureLearner]] | None = None,
    regimes: str | Iterable[str] | None = None,
    classifiers: str | Iterable[str | AnyClassifier] | None = None,
    stages: str | Architecture | None = None,
    train_per_class: int | str | None = None,
    test_per_class: int | str | None = None,
    draws: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    refine: str | Mapping[str, Any] | Refinement | None = None,
    unlabelled: str | Path | None = None,
    channels: str | None = None,
    thorough: bool = False,
    plugins: str | Path | object | Sequence[str | Path | object] = (),
    data_dir: str | Path | None = None,
    home: str | Path | None = None,
    track: str | bool = True,
    retry: bool = False,
    skip_bad_images: bool = False,
    verbose: bool = False,
) -> pd.DataFrame:
    """Compare feature learners under a protocol, as `featbench compare` does.

    What the store holds is read; the rest is computed and kept there.

    Parameters
    ----------
    protocol : str or None, default None
        The protocol, which gives what the other parameters leave open. None: `digits`, or for a folder of images the
        one that suits them, `photos` or `small-images`.
    dataset : str, Path or None, default None
        Data set in place of the protocol's own; `folder:PATH`, or a Path, is a folder with a folder of images for each
        class.
    features : str, iterable of str or None, default None
        Learners, as in "psd(lam=0.5)". Several values, as in "psd(lam=0.5|1)", leave the choice to validation images.
        One text may hold several learners, as in "random,psd". Classes and instances of registered learners are taken
        too.
    regimes : str, iterable of str or None, default None
        Regimes, among R, U, R+, U+, fixed and fixed+.
    classifiers : str, iterable of str or None, default None
        Classifiers, as in "knn(k=3)", or instances of registered ones.
    stages : str, Architecture or None, default None
        The architecture of learners of filters, as in "64F9-Rabs-N-PA10/5", or the protocol's name for one.
    train_per_class : int, "all" or None, default None
        Training images of each class.
    test_per_class : int, "all" or None, default None
        At most so many test images of each class.
    draws : int or None, default None
        How many times training images are drawn.
    seed : int, default 0
        Seed of everything random: any integer.
    device : str, default "auto"
        Where to compute: auto, cpu or cuda.
    precision : str, default "float32"
        What features are extracted in: float32, tf32, bf16 or fp16.
    refine : str, mapping, Refinement or None, default None
        Settings of R+ and U+, as in "epochs=30,rate=0.01" or {"epochs": 30}, on top of the protocol's; or the
        protocol's name for some. A `Refinement` has all settings.
    unlabelled : str, Path or None, default None
        Folder of images, or data set, to learn filters from in place of the training images; after `training+`,
        besides them.
    channels : str or None, default None
        What becomes of the images' colours: "grey", "rgb" or "opponent".
    thorough : bool, default False
        Compare the protocol's thorough selection of learners and regimes besides its usual one.
    plugins : str, Path, object or sequence of them, default ()
        Plugins: paths of Python files, modules, or objects with hook implementations. One that cannot be loaded gives
        a warning.
    data_dir : str, Path or None, default None
        Folder of the data sets. None: FEATBENCH_DATA.
    home : str, Path or None, default None
        Folder of the store. None: FEATBENCH_HOME, else `.featbench`.
    track : str or bool, default True
        Address of the MLflow server that mirrors the comparison. True: the default one; False: none.
    retry : bool, default False
        Compute cells again that failed before.
    skip_bad_images : bool, default False
        Leave out images that cannot be read, in place of an error.
    verbose : bool, default False
        Show what was chosen for the images, and a bar of progress; in a notebook it is the notebook's.

    Returns
    -------
    pandas.DataFrame
        A row for each learner × regime × classifier, baselines first. What tells rows apart: dataset, protocol,
        train_per_class, test_per_class, architecture, learner, regime, label (the regime as tables print it),
        classifier, metric, unlabelled, device, precision, refinement, seed. What was measured: mean and std (ddof 1)
        over n draws in the `unit` of the metric, scores (of each draw), fit_seconds, extract_seconds (means over
        draws). What became of it: status (ok, failed or skipped), draws, images_left_out, message. A row that is not
        complete has no mean; a cell that fails leaves its message.

    Raises
    ------
    TypeError
        If an argument is not known.
    FeatbenchError
        If an argument cannot be taken, the request makes no sense, or its data cannot be read: before anything is
        computed, wherever possible. What is wrong with the arguments or the data is a `ValueError` too.

    Notes
    -----
    Numbers may be numpy's, lists may be tuples, sets (taken in alphabetical order) or arrays, and a leading ~ of a path
    is the home folder. A list that is given must not be empty. How an argument is written does not matter to the store:
    equal requests find the same results.

    Examples
    --------
    >>> import featbench
    >>> rows = featbench.compare("digits", features=["random"], regimes=["R"], draws=2)  # doctest: +SKIP
    >>> rows[["learner", "mean", "unit"]]  # doctest: +SKIP
    """
    with (
        naming_arguments(plugin="plugins", no_track="track=False"),
        show_bars(read_flag("verbose", verbose)) as listener,
    ):
        workbench = Workbench(
            plugins=read_plugins(plugins),
            data_dir=None if data_dir is None else read_path("data_dir", data_dir),
            home=None if home is None else read_path("home", home),
            listener=listener,
            skip_bad_images=read_flag("skip_bad_images", skip_bad_images),
        )
        for record in workbench.registry.broken:
            warnings.warn(f"plugin {record.name} ({record.origin}) could not be loaded: {record.error}", stacklevel=3)
        asked = {
            "protocol": protocol,
            "dataset": dataset,
            "features": features,
            "regimes": regimes,
            "classifiers": classifiers,
            "stages": stages,
            "train_per_class": train_per_class,
            "test_per_class": test_per_class,
            "draws": draws,
            "seed": seed,
            "device": device,
            "precision": precision,
            "refine": refine,
            "unlabelled": unlabelled,
            "channels": channels,
            "thorough": thorough,
        }
        request = read_request(workbench.registry, asked)
        return workbench.compare(request, retry=read_flag("retry", retry), track=read_track(track)).rows
