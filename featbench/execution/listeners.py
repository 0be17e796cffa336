"""Listeners: they receive how a comparison goes, as the console and the mirror in MLflow do."""

from __future__ import annotations

from collections.abc import Sequence

from featbench.experiment.cell import Cell
from featbench.types import Result


class Listener:
    """Receives how a comparison goes, in the thread that runs the cells. This one does nothing with it."""

    def told(self, remark: str) -> None:
        """Receive what the user should know of a comparison before it begins, such as which protocol was chosen.

        Parameters
        ----------
        remark : str
            One line.
        """

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Receive a cell that is about to be computed; one that the store holds is not announced.

        Parameters
        ----------
        index : int
            Position of the cell in the comparison, from 0.
        total : int
            Number of cells in the comparison.
        cell : Cell
            The cell.
        """

    def step(self, what: str, done: int, total: int) -> None:
        """Receive how far the present step of a cell is.

        Parameters
        ----------
        what : str
            What is being done, such as "extracting, image".
        done : int
            How much of it is finished.
        total : int
            Out of how much.
        """

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Receive a cell with its result, which is already safe in the store.

        Parameters
        ----------
        index : int
            Position of the cell in the comparison, from 0.
        total : int
            Number of cells in the comparison.
        cell : Cell
            The cell.
        result : Result
            What it gave, or why it failed or was skipped.
        computed : bool
            True if it was computed now, False if it was read from the store or skipped.
        """


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
