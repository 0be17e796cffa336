"""Run cells one after the other: what the store holds is not computed again, what fails keeps its row."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featbench.devices.failures import is_device_lost, is_out_of_memory
from featbench.errors import DeviceLostError, FeatbenchError, PluginError, StoreError
from featbench.execution.listeners import Listener
from featbench.experiment.cell import Cell
from featbench.experiment.run_cell import Outcome, run_cell
from featbench.store.cached_steps import CachedSteps
from featbench.system.hashing import content_hash
from featbench.types import Result


@dataclass(frozen=True)
class Run:
    """A cell with its result; `computed` is False if the store held it."""

    cell: Cell
    result: Result
    computed: bool


def run_cells(
    cells: Sequence[Cell], steps: CachedSteps, *, provenance: str, retry: bool, listener: Listener
) -> list[Run]:
    """Run every cell that has no result yet (with `retry` also those that failed), and return all of them.

    A cell that raises keeps its row with its traceback; a store that cannot be written stops the comparison, and so
    does a GPU that failed (`DeviceLostError`).
    """
    runs: list[Run] = []
    for index, cell in enumerate(cells):
        result, computed = _run(cell, index, len(cells), steps, provenance, retry, listener)
        listener.finished(index, len(cells), cell, result, computed=computed)
        runs.append(Run(cell, result, computed))
    return runs


def result_key(cell: Cell, steps: CachedSteps) -> str:
    """Return the hash under which the store keeps the result of a cell."""
    return content_hash(steps.keys.result(cell))


def _run(
    cell: Cell, index: int, total: int, steps: CachedSteps, provenance: str, retry: bool, listener: Listener
) -> tuple[Result, bool]:
    key = result_key(cell, steps)
    if cell.skip:
        return Result(key, "skipped", message=cell.skip), False
    known = steps.store.read_result(key)
    if known is not None and not (retry and known.status == "failed"):
        return known, False
    listener.started(index, total, cell)
    result = _compute(cell, key, steps, provenance)
    steps.store.write_result(result, cell.describe())
    return result, True


def _compute(cell: Cell, key: str, steps: CachedSteps, provenance: str) -> Result:
    try:
        outcome = run_cell(cell, steps)
        report = _storable_report(cell, outcome)
    except (KeyboardInterrupt, StoreError):
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit included
        if is_device_lost(error):
            # Nothing runs on it any more in this process, so that every further cell would fail as well.
            raise DeviceLostError(
                f"{cell.device} failed while {cell} was computed: {_first_line(error)}; what was finished is kept: see "
                "whether the device is there, and run the same command again, or without that row"
            ) from error
        message = _message(error, cell)
        trace = traceback.format_exc()
        return Result(key, "failed", message=_utf8(message), traceback=_utf8(trace), provenance=provenance)
    return Result(
        key,
        "ok",
        score=outcome.score,
        predictions=outcome.predictions,
        seconds=outcome.seconds,
        report=report,
        provenance=provenance,
    )


def _message(error: BaseException, cell: Cell) -> str:
    if is_out_of_memory(error):
        return (
            f"{cell.device} has no memory left: {_first_line(error)}; free some, or compare fewer filters or smaller "
            "images, and run again with --retry"
        )
    return str(error) if isinstance(error, FeatbenchError) else f"{type(error).__name__}: {error}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _storable_report(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    """Return a cell's report as JSON, or raise a `PluginError` for what the store cannot keep."""
    kind = np.asarray(outcome.predictions).dtype
    if kind.kind not in "iu":
        raise PluginError(f"classifier {cell.classifier} predicted values of type {kind}; class indices are integers")
    report = {name: value.item() if isinstance(value, np.generic) else value for name, value in outcome.report.items()}
    try:
        content_hash(report)
    except (TypeError, ValueError) as error:
        raise PluginError(f"classifier {cell.classifier} gave a report that is no JSON: {error}") from error
    return report


def _utf8(text: str) -> str:
    """Return a text that can be written as UTF-8: names of files, and so messages, may hold what is none."""
    return text.encode(errors="backslashreplace").decode()
