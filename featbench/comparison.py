"""A comparison: a request becomes cells, cells become results, and results become the rows of a table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.data.folder import resolve_data_folder
from featbench.execution.listeners import Listener, Relay
from featbench.execution.mlflow_mirror import Mirror
from featbench.execution.rows import make_cells_frame
from featbench.execution.runner import Run, run_cells
from featbench.execution.stored_comparison import describe_comparison
from featbench.experiment.baselines import find_baseline_pairs
from featbench.experiment.cell import Cell
from featbench.experiment.grid import enumerate_cells
from featbench.experiment.request import Request
from featbench.experiment.steps import Steps
from featbench.experiment.variations import list_row_columns
from featbench.registry import Registry
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
        return enumerate_cells(request, self.registry, self.steps.survey, self.data_dir)

    def list_baselines(self, protocol: str) -> list[tuple[str, str]]:
        """Return learner and regime of a protocol's baselines, as the columns of rows hold them, the weakest first."""
        pairs = find_baseline_pairs(self.registry.protocol(protocol), self.registry)
        return [(str(learner), regime.name) for learner, regime in pairs]

    def compare(self, request: Request, *, retry: bool = False, track: str | bool = True) -> Comparison:
        """Run a request. `track` is the address of an MLflow server, True for the default one, False for none."""
        self.store.require_writable()
        return self.run(self.plan(request), asdict(request), retry=retry, track=track)

    def run(
        self, cells: Sequence[Cell], asked: Mapping[str, Any], *, retry: bool = False, track: str | bool = True
    ) -> Comparison:
        """Run cells of one protocol; `asked` is what the user asked for, as the store and MLflow keep it."""
        self.store.require_writable()
        keys = [self.keys.for_cell(cell).result.hash for cell in cells]
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


def compare(
    protocol: str = "digits",
    *,
    dataset: str | None = None,
    features: Sequence[str] | None = None,
    regimes: Sequence[str] | None = None,
    classifiers: Sequence[str] | None = None,
    stages: str | None = None,
    train_per_class: int | str | None = None,
    test_per_class: int | str | None = None,
    draws: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    refine: str | None = None,
    unlabelled: str | Path | None = None,
    plugins: Sequence[str | Path | object] = (),
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
    protocol : str, default "digits"
        The protocol, which gives what the other parameters leave open.
    dataset : str or None, default None
        Data set in place of the protocol's own; `folder:PATH` is a folder with a folder of images for each class.
    features : Sequence of str or None, default None
        Learners, as in "psd(lam=0.5)". Several values, as in "psd(lam=0.5|1)", leave the choice to validation images.
    regimes : Sequence of str or None, default None
        Regimes, among R, U, R+, U+, fixed and fixed+.
    classifiers : Sequence of str or None, default None
        Classifiers, as in "knn(k=3)".
    stages : str or None, default None
        The architecture of learners of filters, as in "64F9-Rabs-N-PA10/5", or the protocol's name for one.
    train_per_class : int, "all" or None, default None
        Training images of each class.
    test_per_class : int, "all" or None, default None
        At most so many test images of each class.
    draws : int or None, default None
        How many times training images are drawn.
    seed : int, default 0
        Seed of everything random.
    device : str, default "auto"
        Where to compute: auto, cpu or cuda.
    precision : str, default "float32"
        What features are extracted in: float32, tf32, bf16 or fp16.
    refine : str or None, default None
        Settings of R+ and U+, as in "epochs=30,rate=0.01", or the protocol's name for some.
    unlabelled : str, Path or None, default None
        Folder of images, or data set, to learn filters from in place of the training images; after `training+`,
        besides them.
    plugins : Sequence of str, Path or object, default ()
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
    FeatbenchError
        If the request makes no sense, or its data cannot be read: before anything is computed, wherever possible.

    Examples
    --------
    >>> import featbench
    >>> rows = featbench.compare("digits", features=["random"], regimes=["R"], draws=2)  # doctest: +SKIP
    >>> rows[["learner", "mean", "unit"]]  # doctest: +SKIP
    """
    workbench = Workbench(plugins=plugins, data_dir=data_dir, home=home, skip_bad_images=skip_bad_images)
    for record in workbench.registry.broken:
        warnings.warn(f"plugin {record.name} ({record.origin}) could not be loaded: {record.error}", stacklevel=2)
    request = Request(
        protocol=protocol,
        dataset=dataset,
        features=features,
        regimes=regimes,
        classifiers=classifiers,
        stages=stages,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        draws=draws,
        seed=seed,
        device=device,
        precision=precision,
        refine=refine,
        unlabelled=None if unlabelled is None else str(unlabelled),
    )
    return workbench.compare(request, retry=retry, track=track).rows
