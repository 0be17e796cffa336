"""A comparison: a request becomes cells, cells become results, and results become the rows of a table."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.arguments import naming_arguments, read_flag, read_path, suggest_arguments
from featbench.classification.classifier import AnyClassifier
from featbench.data.folder import resolve_data_folder
from featbench.data.maps import Preprocessing
from featbench.evaluation.split import Survey
from featbench.execution.listeners import Listener, Relay
from featbench.execution.mlflow_mirror import Mirror
from featbench.execution.rows import make_cells_frame
from featbench.execution.runner import Run, find_result, run_cells
from featbench.execution.stored_comparison import describe_comparison
from featbench.experiment.baselines import find_baseline_pairs
from featbench.experiment.cell import Cell
from featbench.experiment.grid import enumerate_cells
from featbench.experiment.keywords import read_plugins, read_request, read_track
from featbench.experiment.own_images import settle_request
from featbench.experiment.request import Request
from featbench.experiment.steps import Steps
from featbench.experiment.variations import list_row_columns
from featbench.learning.learner import FeatureLearner
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.statistics.summary import summarise
from featbench.store.artifacts import StoredArtifacts
from featbench.store.keys import Keys
from featbench.store.provenance import record_run
from featbench.store.store import Store
from featbench.system.hashing import content_hash


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison: every cell with its result, and the rows of its table."""

    key: str
    runs: Sequence[Run]
    rows: pd.DataFrame

    @property
    def protocol(self) -> str:
        """The name of the protocol of all cells."""
        return self.runs[0].cell.protocol

    @property
    def computed(self) -> int:
        """How many cells were computed now; the others were in the store."""
        return sum(run.computed for run in self.runs)

    @property
    def failed(self) -> list[Run]:
        """The cells that failed."""
        return [run for run in self.runs if run.result.status == "failed"]


class Workbench:
    """What every command works with: a registry, a store, and the steps of cells, whose artifacts the store keeps."""

    def __init__(
        self,
        *,
        plugins: Sequence[str | Path | object] = (),
        strict: bool = False,
        data_dir: str | Path | None = None,
        home: str | Path | None = None,
        listener: Listener | None = None,
        skip_bad_images: bool = False,
    ) -> None:
        self.listener = listener or Listener()
        self.registry = Registry(plugins, strict=strict)
        self.store = Store(None if home is None else Path(home))
        self.data_dir = resolve_data_folder(data_dir)
        self.keys = Keys(self.registry, self.data_dir)
        self.artifacts = StoredArtifacts(self.store, self.keys)
        self.steps = Steps(
            self.registry,
            self.data_dir,
            artifacts=self.artifacts,
            progress=self.listener.step,
            skip_bad_images=skip_bad_images,
        )

    def plan(self, request: Request) -> list[Cell]:
        """Return the cells of a request after checking all that can be checked before anything is computed."""
        return enumerate_cells(self.settle(request), self.registry, self.steps.survey, self.data_dir)

    def settle(self, request: Request) -> Request:
        """Return a request with its protocol settled, and tell the listener what was found and chosen."""
        settled = settle_request(request, self.registry)
        for remark in settled.remarks:
            self.listener.told(remark)
        if request.unlabelled is not None:
            self.steps.warn_of_pool(request.unlabelled)
        return settled.request

    def list_baselines(self, protocol: str) -> list[tuple[str, str]]:
        """Return learner and regime of a protocol's baselines, as the columns of rows hold them, the weakest first."""
        pairs = find_baseline_pairs(self.registry.protocol(protocol), self.registry)
        return [(str(learner), regime.name) for learner, regime in pairs]

    def compare(self, request: Request, *, retry: bool = False, track: str | bool = True) -> Comparison:
        """Run a request. `track` is the address of an MLflow server, True for the default one, False for none.

        A store that cannot be written serves as well, if it holds all results; nothing is tracked then.
        """
        settled = self.settle(request)
        survey = self.steps.survey if self.store.write_problem is None else self._recall_survey
        cells = enumerate_cells(settled, self.registry, survey, self.data_dir)
        return self.run(cells, asdict(settled), retry=retry, track=track)

    def run(
        self, cells: Sequence[Cell], asked: Mapping[str, Any], *, retry: bool = False, track: str | bool = True
    ) -> Comparison:
        """Run cells of one protocol; `asked` is what the user asked for, as the store and MLflow keep it."""
        keys = [self.keys.for_cell(cell).result.hash for cell in cells]
        if self.store.write_problem is not None:
            return self._recall(cells, keys, retry=retry)
        self.store.remove_leftovers()
        key = content_hash(keys)
        datasets = {cell.dataset: self.keys.dataset(cell.dataset) for cell in cells}
        self.store.write_record("comparisons", key, describe_comparison(asked, cells, keys, datasets))
        uri = None if track is True else str(track)
        mirror = Mirror(self.artifacts, key, cells[0].protocol, asked, uri) if track else None
        try:
            runs = run_cells(
                cells,
                self.steps,
                self.store,
                self.keys,
                provenance=record_run(self.store),
                retry=retry,
                listener=Relay([self.listener, mirror] if mirror else [self.listener]),
            )
            rows = summarise(make_cells_frame(runs, self.registry), list_row_columns())
        except BaseException:
            if mirror:
                mirror.close(None)
            raise
        if mirror:
            mirror.close(rows)
        return Comparison(key, runs, rows)

    def _recall(self, cells: Sequence[Cell], keys: Sequence[str], *, retry: bool) -> Comparison:
        """Return a comparison from a store that cannot be written; `StoreError` if not all of its results are there."""
        found = [find_result(cell, key, self.store, retry=retry) for cell, key in zip(cells, keys, strict=True)]
        missing = [cell for cell, result in zip(cells, found, strict=True) if result is None]
        if missing:
            lacks = f"{len(missing)} of {len(cells)} cells are not in it, the first: {missing[0]}"
            raise self.store.explain_read_only(lacks)
        self.listener.told(
            f"the store {self.store.home} cannot be written ({self.store.write_problem}): it holds all results, and "
            "nothing is tracked"
        )
        runs = [Run(cell, result, computed=False) for cell, result in zip(cells, found, strict=True) if result]
        rows = summarise(make_cells_frame(runs, self.registry), list_row_columns())
        return Comparison(content_hash(list(keys)), runs, rows)

    def _recall_survey(self, dataset: str, preprocessing: Preprocessing) -> Survey:
        """Return a survey from a store that cannot be written: without it, there are no results either."""
        if self.artifacts.read_survey(dataset, preprocessing) is None:
            raise self.store.explain_read_only(f"it holds no results on {dataset}")
        return self.steps.survey(dataset, preprocessing)


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
    with naming_arguments(plugin="plugins", no_track="track=False"):
        workbench = Workbench(
            plugins=read_plugins(plugins),
            data_dir=None if data_dir is None else read_path("data_dir", data_dir),
            home=None if home is None else read_path("home", home),
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
