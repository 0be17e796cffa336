"""Listeners: told how a comparison goes."""

from __future__ import annotations

from collections.abc import Sequence

from featbench.experiment.cell import Cell
from featbench.types import Result


class Listener:
    """Told how a comparison goes, from the thread that runs the cells; this one does nothing with it."""

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Tell that a cell is about to be computed."""

    def step(self, what: str, done: int, total: int) -> None:
        """Tell how far the cell's present step is."""

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Tell that a cell has its result, safe in the store: computed now, or read from there."""


class Relay(Listener):
    """A listener that tells several others."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.started(index, total, cell)

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.finished(index, total, cell, result, computed=computed)
