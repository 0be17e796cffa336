"""A comparison's progress as a bar of tqdm's: the notebook's own in a notebook, on stderr elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from featbench.execution.listeners import Listener
from featbench.experiment.cell import Cell
from featbench.types import Result


@contextmanager
def show_bars(shown: bool) -> Iterator[Listener]:
    """Give a listener that shows a comparison's progress, or one that shows nothing; its bar is gone in the end."""
    bars = _CellBar() if shown else None
    try:
        yield bars or Listener()
    finally:
        if bars is not None:
            bars.close()


class _CellBar(Listener):
    """One bar, of cells; the present step stands beside it."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def told(self, remark: str) -> None:
        """Write a remark above the bar."""
        tqdm.write(remark)

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Show which cell is being computed."""
        self._advance(index, total, str(cell))

    def step(self, what: str, done: int, total: int) -> None:
        """Show the present step beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{what} {done}/{total}" if total > 1 else what, refresh=False)
            self._bar.update(0)

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Count a cell."""
        self._advance(index + 1, total, str(cell))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _advance(self, done: int, total: int, cell: str) -> None:
        if self._bar is None:
            self._bar = tqdm(total=total, desc=cell, unit="cell", leave=False)
        self._bar.set_description(cell, refresh=False)
        # Set, where `update` would add: cells say themselves where they stand.
        self._bar.n = done
        self._bar.refresh()
