"""A comparison: a request becomes cells, cells become results, results become a table's rows."""

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
from featbench.execution.runner import Run, run_cells
from featbench.experiment.baselines import baseline_pairs
from featbench.experiment.cell import Cell
from featbench.experiment.grid import enumerate_cells
from featbench.experiment.request import Request
from featbench.experiment.steps import Steps
from featbench.experiment.variations import describe_row, row_columns
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
    """What a comparison gave: every cell with its result, and the rows of its table."""

    key: str
    runs: Sequence[Run]
    rows: pd.DataFrame

    @property
    def computed(self) -> int:
        """How many cells were computed now; the store held the others."""
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

    def baselines(self, protocol: str) -> list[str]:
        """Return the learners of a protocol's baselines, the weakest first."""
        return [str(learner) for learner, _ in baseline_pairs(self.registry.protocol(protocol), self.registry)]

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
        self.store.write_record("comparisons", key, {"request": dict(asked), "cells": keys})
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
            rows = summarise(cells_frame(runs, self.registry), row_columns())
        except BaseException:
            if mirror:
                mirror.close(None)
            raise
        if mirror:
            mirror.close(rows)
        return Comparison(key, runs, rows)


def cells_frame(runs: Sequence[Run], registry: Registry) -> pd.DataFrame:
    """Return one row for each cell, with the columns that `summarise` needs."""
    rows = []
    for cell, result in ((run.cell, run.result) for run in runs):
        rows.append(
            {
                **describe_row(cell),
                "label": regime_label(cell, registry),
                "draw": cell.draw,
                "images_left_out": result.report.get("images_left_out", 0),
                "status": result.status,
                "score": None if result.score is None else result.score.value,
                "unit": registry.metric(cell.metric).unit,
                "fit_seconds": result.seconds.fit,
                "extract_seconds": result.seconds.extract,
                "message": result.message,
            }
        )
    return pd.DataFrame(rows)


def regime_label(cell: Cell, registry: Registry) -> str:
    """Return a cell's regime as tables print it: RR for two stages of R, G for Gabor, fixed for who names no letter."""
    stages = len(Architecture.parse(cell.architecture).stages) if cell.architecture else 1
    return cell.regime.label(stages, registry.learner(cell.learner.name).initial or "fixed")


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
    """Compare feature learners; returns one row for each learner × regime × classifier.

    The parameters are the options of `featbench compare` (None: what the protocol declares); `plugins` are paths or
    modules. Columns: dataset, protocol, architecture, learner, regime, classifier, metric, mean and std in percent over
    n draws, scores, status, message, fit_seconds, extract_seconds, seed and others. Raises a `FeatbenchError` for
    a request that makes no sense; a cell that fails makes a row with its message.
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
