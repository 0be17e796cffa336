"""Run cells one after the other: what the store holds is not computed again, what fails keeps its row."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from featbench.caching import CachedSteps
from featbench.cell import Cell
from featbench.errors import FeatbenchError, StoreError
from featbench.experiment import run_cell
from featbench.hashing import content_hash
from featbench.types import Result


class Listener:
    """Told how a comparison goes, from the thread that runs the cells; this one does nothing with it."""

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Tell that a cell is about to be computed."""

    def step(self, what: str, done: int, total: int) -> None:
        """Tell how far the cell's present step is."""

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Tell that a cell has its result, safe in the store: computed now, or read from there."""


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

    A cell that raises keeps its row with its traceback; a store that cannot be written stops the comparison.
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
    except (KeyboardInterrupt, StoreError):
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit included
        message = str(error) if isinstance(error, FeatbenchError) else f"{type(error).__name__}: {error}"
        return Result(key, "failed", message=message, traceback=traceback.format_exc(), provenance=provenance)
    return Result(
        key,
        "ok",
        score=outcome.score,
        predictions=outcome.predictions,
        seconds=outcome.seconds,
        report=outcome.report,
        provenance=provenance,
    )
