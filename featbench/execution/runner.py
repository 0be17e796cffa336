"""Run cells one after the other: what the store holds is not computed again, and a cell that fails keeps its row."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featbench.devices.failures import is_device_lost
from featbench.errors import DeviceLostError, PluginError, StoreError
from featbench.execution.failures import describe_failure, get_first_line
from featbench.execution.listeners import Listener
from featbench.experiment.cell import Cell
from featbench.experiment.run_cell import Outcome, run_cell
from featbench.experiment.steps import Steps
from featbench.store.keys import Keys
from featbench.store.store import Store
from featbench.system.hashing import content_hash
from featbench.system.printable import make_printable
from featbench.types import Result

log = logging.getLogger("featbench")


@dataclass(frozen=True)
class Run:
    """A cell with its result; `computed` is False if the store held it."""

    cell: Cell
    result: Result
    computed: bool


def run_cells(
    cells: Sequence[Cell],
    steps: Steps,
    store: Store,
    keys: Keys,
    *,
    provenance: str,
    retry: bool,
    listener: Listener,
) -> list[Run]:
    """Run every cell that has no result yet (with `retry` also those that failed), and return all of them.

    A cell that raises keeps its row with its traceback. A store that cannot be written stops the comparison
    (`StoreError`), and so does a GPU that failed (`DeviceLostError`).
    """
    runs: list[Run] = []
    warned: set[tuple[object, ...]] = set()
    for index, cell in enumerate(cells):
        key = keys.for_cell(cell).result.hash
        known = find_result(cell, key, store, retry=retry)
        if known is None:
            listener.started(index, len(cells), cell)
            result = _compute_result(cell, key, steps, provenance)
            # Written before anybody hears of it: a run that is killed from now on has lost nothing.
            store.write_result(result, cell.describe())
        else:
            result = known
        result = _point_to_traceback(result, store)
        _warn(cell, result, warned)
        listener.finished(index, len(cells), cell, result, computed=known is None)
        runs.append(Run(cell, result, computed=known is None))
    return runs


def find_result(cell: Cell, key: str, store: Store, *, retry: bool) -> Result | None:
    """Return the result of a cell that is not to be computed: it makes no sense, or the store holds its result."""
    if cell.skip:
        return Result(key, "skipped", message=cell.skip)
    known = store.read_result(key)
    return None if known is not None and known.status == "failed" and retry else known


def _warn(cell: Cell, result: Result, warned: set[tuple[object, ...]]) -> None:
    """Say what is suspicious about a result, read or computed, once for all draws and classifiers of a learner."""
    suspicions = result.report.get("suspicions")
    for line in suspicions if isinstance(suspicions, list) else ():
        if (cell.learner, cell.regime, line) not in warned:
            warned.add((cell.learner, cell.regime, line))
            log.warning("%s: %s", cell, line)


def _point_to_traceback(result: Result, store: Store) -> Result:
    """Return a result whose message, if it failed, says where its traceback is kept."""
    if result.status != "failed":
        return result
    # Not kept with the message: a store may be moved, and be named in several ways.
    place = make_printable(store.locate_result(result.key))
    return replace(result, message=f"{result.message}; traceback in {place}")


def _compute_result(cell: Cell, key: str, steps: Steps, provenance: str) -> Result:
    try:
        outcome = run_cell(cell, steps)
        report = _storable_report(cell, outcome)
    except (KeyboardInterrupt, StoreError):
        # Neither is the cell's fault: kept as failed, it would not be computed when the same command runs again.
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit included
        if is_device_lost(error):
            # Nothing runs on it any more in this process, so that every further cell would fail as well.
            raise DeviceLostError(
                f"{cell.device} failed while {cell} was computed: {get_first_line(error)}; what was finished is kept: "
                "see whether the device is there, and run the same command again, or without that row"
            ) from error
        message = describe_failure(error, cell, steps.registry)
        trace = traceback.format_exc()
        return Result(key, "failed", message=_to_utf8(message), traceback=_to_utf8(trace), provenance=provenance)
    return Result(
        key,
        "ok",
        score=outcome.score,
        predictions=outcome.predictions,
        seconds=outcome.seconds,
        report=report,
        provenance=provenance,
    )


def _storable_report(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    """Return a cell's report as JSON, or raise a `PluginError` for what the store cannot keep."""
    report = {name: value.item() if isinstance(value, np.generic) else value for name, value in outcome.report.items()}
    try:
        content_hash(report)
    except (TypeError, ValueError) as error:
        raise PluginError(f"classifier {cell.classifier} gave a report that is not JSON: {error}") from error
    return report


def _to_utf8(text: str) -> str:
    """Return a text that can be written as UTF-8: file names, and so messages, may hold bytes that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()
