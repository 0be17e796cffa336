"""A comparison that ran in a store, read back: its request, its cells with their results, and its rows by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import pandas as pd

from featbench.errors import UnknownNameError, UsageError
from featbench.execution.rows import make_cells_frame
from featbench.execution.runner import Run
from featbench.experiment.baselines import find_baseline_pairs
from featbench.experiment.cell import Cell
from featbench.experiment.variations import list_row_columns
from featbench.registry import Registry
from featbench.report.table import format_score, order_rows
from featbench.statistics.summary import summarise
from featbench.store.store import Store
from featbench.types import Result

KIND = "comparisons"
"""The folder of the store that holds the records of comparisons."""


@dataclass(frozen=True)
class StoredRow:
    """One row of a comparison's table, and the runs of its draws.

    number: its place in the printed table, from 1; None for a skipped row, which is not in it. columns: the row as
    `compare` returns it, by column. runs: in the order of their draws.
    """

    number: int | None
    columns: Mapping[str, Any]
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Learner, regime and classifier as the table prints them."""
        return f"{self.columns['learner']} {self.columns['label']} {self.columns['classifier']}"

    def find_run(self, draw: int) -> Run:
        """Return the run of a draw; raises `UsageError` if there is no such draw, or it has no score."""
        for run in self.runs:
            if run.cell.draw == draw:
                if run.result.status == "ok":
                    return run
                reason = run.result.message or "run the comparison again"
                raise UsageError(f"draw {draw} of {self.name} has no score, it is {run.result.status}: {reason}")
        draws = ", ".join(str(run.cell.draw) for run in self.runs)
        raise UsageError(f"{self.name} has no draw {draw}: its draws are {draws}")

    def __str__(self) -> str:
        """Return the row as an error lists it: its number, its name, its score."""
        number = "-" if self.number is None else str(self.number)
        score = format_score(*(self.columns[column] for column in ("status", "mean", "std", "unit")))
        return f"{number}: {self.name} ({score})"


@dataclass(frozen=True)
class StoredComparison:
    """A comparison as the store remembers it.

    key: what its record lies under. request: what was asked for. stored_rows: in the order of the printed table, which
    leaves out the skipped ones. rows: the same as a data frame, as `compare` returns it. datasets: the fingerprint that
    each data set had, by name. registry: what is known by name.
    """

    key: str
    request: Mapping[str, Any]
    datasets: Mapping[str, str]
    stored_rows: tuple[StoredRow, ...]
    rows: pd.DataFrame
    registry: Registry

    @classmethod
    def read(cls, store: Store, registry: Registry, key: str | None = None) -> Self:
        """Read the comparison whose key begins with `key`, or the last one that ran.

        Results are not computed: a cell whose result is missing is "not run". Raises `UsageError` if there is no such
        comparison, and `UnknownNameError` if the plugin of one of its rows is not loaded.
        """
        key, document = _find_record(store, key)
        try:
            groups = [_restore_runs(store, row) for row in document["rows"]]
            request, datasets = dict(document["request"]), dict(document["datasets"])
        except KeyError as error:
            raise UsageError(f"comparison {key[:12]} was kept by another version of featbench: run it again") from error
        runs = [run for group in groups for run in group]
        frame = summarise(make_cells_frame(runs, registry), list_row_columns())
        frame = order_rows(frame.assign(place=range(len(frame))), _list_baselines(runs[0].cell, registry))
        places = frame.pop("place").tolist()
        records: Any = frame.to_dict("records")
        numbers = (frame["status"] != "skipped").cumsum()
        rows = [
            StoredRow(None if columns["status"] == "skipped" else int(number), columns, groups[place])
            for columns, number, place in zip(records, numbers, places, strict=True)
        ]
        return cls(key, request, datasets, tuple(rows), frame, registry)

    @property
    def runs(self) -> list[Run]:
        """Every cell with its result, without the predictions; row after row."""
        return [run for row in self.stored_rows for run in row.runs]

    def find_row(self, text: str) -> StoredRow:
        """Return the row that a text means.

        `best`, the number of a line in the printed table, or the row's learner as the table prints it, followed by the
        regime, the classifier, or both. Raises `UsageError`, which lists the rows, if there is no such row or more than
        one.
        """
        words = " ".join(text.split())
        if words == "best":
            return self.find_best_row()
        if words.isdecimal():
            found = [row for row in self.stored_rows if row.number == int(words)]
        else:
            found = [row for row in self.stored_rows if words in _list_names(row)]
            # A row that was skipped is meant only where no printed one is.
            found = [row for row in found if row.number is not None] or found
        if not found:
            raise UsageError(f"the comparison has no row {text!r}; its rows:{_list_lines(self.stored_rows)}")
        if len(found) > 1:
            raise UsageError(f"{text!r} means several rows; name one by its number:{_list_lines(found)}")
        return found[0]

    def find_best_row(self) -> StoredRow:
        """Return the row with the best mean, of equal ones the first; raises `UsageError` if no row is complete."""
        complete = [row for row in self.stored_rows if row.columns["status"] == "ok"]
        if not complete:
            raise UsageError(f"the comparison has no complete row:{_list_lines(self.stored_rows)}")
        sign = 1 if self.registry.metric(complete[0].columns["metric"]).larger_is_better else -1
        return max(complete, key=lambda row: sign * float(row.columns["mean"]))


def describe_comparison(
    asked: Mapping[str, Any], cells: Sequence[Cell], keys: Sequence[str], datasets: Mapping[str, str]
) -> dict[str, Any]:
    """Return the record of a comparison: what was asked for, its rows with their cells, and the keys of their results.

    datasets: the fingerprint of each data set, by name. A row is kept with all that its draws share: a skipped cell,
    and one that was not run, have no result to tell it.
    """
    rows: dict[tuple[Cell, str], list[list[Any]]] = {}
    for cell, key in zip(cells, keys, strict=True):
        rows.setdefault((replace(cell, draw=0), cell.skip), []).append([cell.draw, key])
    return {
        "request": dict(asked),
        "datasets": dict(datasets),
        "cells": list(keys),
        "rows": [{"cell": cell.describe(), "skip": skip, "draws": draws} for (cell, skip), draws in rows.items()],
        # The time of the file would be lost where a store is copied.
        "written": datetime.now(UTC).isoformat(timespec="microseconds"),
    }


def _find_record(store: Store, key: str | None) -> tuple[str, dict[str, Any]]:
    """Return the key and the record of the comparison whose key begins with `key`, or of the last one."""
    records = dict(store.records(KIND))
    if not records:
        raise UsageError(f"the store {store.home} holds no comparison: run `featbench compare` first, or give --home")
    if key is None:
        return max(records.items(), key=lambda item: str(item[1].get("written", "")))
    found = [known for known in records if known.startswith(key)]
    if not found:
        raise UnknownNameError("comparison", key, (known[:12] for known in records))
    if len(found) > 1:
        raise UsageError(f"several comparisons begin with {key!r}: {', '.join(known[:12] for known in found)}")
    return found[0], records[found[0]]


def _restore_runs(store: Store, row: Mapping[str, Any]) -> tuple[Run, ...]:
    """Return the draws of a row, each with its result where the store has one."""
    shared = Cell.restore({**row["cell"], "skip": row["skip"]})
    runs = []
    for draw, key in sorted(row["draws"]):
        if shared.skip:
            result = Result(key, "skipped", message=shared.skip)
        else:
            result = store.read_result(key) or Result(key, "not run", message="run the comparison again")
        runs.append(Run(replace(shared, draw=draw), result, computed=False))
    return tuple(runs)


def _list_baselines(cell: Cell, registry: Registry) -> list[tuple[str, str]]:
    pairs = find_baseline_pairs(registry.protocol(cell.protocol), registry)
    return [(str(learner), regime.name) for learner, regime in pairs]


def _list_names(row: StoredRow) -> set[str]:
    """Return the texts that mean a row."""
    columns = row.columns
    learners = {columns["learner"], columns["learner"].replace("raw-pixels", "raw pixels")}
    regimes = {columns["label"], columns["regime"]}
    shorter = learners | {f"{learner} {regime}" for learner in learners for regime in regimes}
    return shorter | {f"{name} {columns['classifier']}" for name in shorter}


def _list_lines(rows: Sequence[StoredRow]) -> str:
    return "".join(f"\n  {row}" for row in rows)
