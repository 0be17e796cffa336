"""Progress on the terminal: a bar where someone looks, plain lines in a log."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from featbench.execution.listeners import Listener
from featbench.experiment.cell import Cell
from featbench.types import Result

INTERVAL = 30.0
"""Seconds between two lines in a log about the same cell."""


class Console(Listener):
    """Shows how a comparison goes on stderr; used as a context, so that the bar is closed whatever happens."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stderr.isatty()
        self._began = self._last_line = time.monotonic()
        self._cell = ""
        self._step_bar: tqdm[Any] | None = None
        self.name_of: Callable[[Cell], str] = str
        self._handler = _Handler(self)

    def __enter__(self) -> Console:
        logging.getLogger("featbench").addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_step()
        if self._bar is not None:
            self._bar.close()
        logging.getLogger("featbench").removeHandler(self._handler)

    def say(self, text: str) -> None:
        """Print a line on stderr, above the bar."""
        bar = self._bar or self._step_bar
        if bar is not None:
            bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def inform(self, text: str) -> None:
        """Print a line that --quiet suppresses."""
        if not self._quiet:
            self.say(text)

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Show which cell is computed."""
        self._began = self._last_line = time.monotonic()
        self._cell = self.name_of(cell)
        self._end_step()
        if self._terminal and not self._quiet:
            self._advance(index, total)

    def step(self, what: str, done: int, total: int) -> None:
        """Show how far the step is: in the bar, in one of its own before there are cells, or in a line now and then."""
        far = f"{what} {done}/{total}" if total > 1 else what
        if self._bar is not None:
            self._bar.set_postfix_str(far, refresh=False)
            self._bar.update(0)
        elif self._terminal and not self._quiet and total > 1:
            self._show_step(what, done, total)
        elif not self._terminal and time.monotonic() - self._last_line > INTERVAL:
            self._last_line = time.monotonic()
            self.inform(f"    {self._cell}: {far}" if self._cell else f"    {far}")

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Show a result that was computed now."""
        if computed:
            shown = result.status if result.score is None else f"{result.score.value:.2f} %"
            place = f"[{index + 1:{len(str(total))}}/{total}]"
            line = f"{place} {self.name_of(cell)}: {shown} ({time.monotonic() - self._began:.1f} s)"
            if result.status == "failed":
                self.say(f"{line}: {result.message}")
            elif not self._terminal:
                self.inform(line)
        if self._bar is not None:
            self._advance(index + 1, total)

    def _show_step(self, what: str, done: int, total: int) -> None:
        width = shutil.get_terminal_size().columns
        if self._step_bar is not None and self._step_bar.desc != what:
            self._end_step()
        bar = self._step_bar or tqdm(total=total, desc=what, file=sys.stderr, leave=False, ncols=width)
        self._step_bar = bar
        bar.update(done - bar.n)
        if done >= total:
            self._end_step()

    def _end_step(self) -> None:
        if self._step_bar is not None:
            self._step_bar.close()
            self._step_bar = None

    def _advance(self, done: int, total: int) -> None:
        width = shutil.get_terminal_size().columns  # a terminal that does not know its width counts as 80
        bar = self._bar or tqdm(total=total, unit="cell", file=sys.stderr, leave=False, ncols=width)
        self._bar = bar
        bar.set_description(self._cell, refresh=False)
        bar.n = done
        bar.refresh()


class _Handler(logging.Handler):
    """Shows the library's warnings above the bar."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.say(f"featbench: {record.getMessage()}")
