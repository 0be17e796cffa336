"""A comparison: a request becomes cells, cells become results, and results become the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

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
from featbench.experiment.own_images import settle_request
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
        # Whether the request that was settled last turns images in colour grey although nobody asked for it.
        self.loses_colour = False
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
        self.loses_colour = settled.loses_colour
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
