"""Listeners: they receive how a comparison goes, as the console and the mirror in MLflow do."""

from __future__ import annotations

from collections.abc import Sequence

from featbench.experiment.cell import Cell
from featbench.types import Result


class Listener:
    """Receives how a comparison goes, in the thread that runs the cells. This one does nothing with it."""

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Receive a cell that is about to be computed; one that the store holds is not announced."""

    def step(self, what: str, done: int, total: int) -> None:
        """Receive how far the cell's present step is."""

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Receive a cell with its result, which is safe in the store: computed now, or read from there."""


class Relay(Listener):
    """A listener that passes on to several others which cells start and finish."""

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
