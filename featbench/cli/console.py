"""Progress on stderr: a bar on a terminal, plain lines in a log file or a pipe."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from featbench.execution.listeners import Listener
from featbench.experiment.cell import Cell
from featbench.types import Result, Score

INTERVAL = 30.0
"""Least number of seconds between two lines in a log about the same cell."""


class Console(Listener):
    """Shows the progress of a comparison on stderr.

    It is a context manager, so that the bar is closed and the log handler removed whatever happens.

    Parameters
    ----------
    quiet : bool, default False
        Whether to show failures and warnings alone.
    debug : bool, default False
        Whether to show the tracebacks of failed cells, also of those that the store holds.

    Attributes
    ----------
    name_of : callable
        Returns the name of a cell in bars and lines; `str` unless a command sets another.
    """

    def __init__(self, *, quiet: bool = False, debug: bool = False) -> None:
        self._quiet = quiet
        self._debug = debug
        self._bar: tqdm[Any] | None = None
        # A dumb terminal, such as an editor's, cannot go back to the beginning of a line, as bars do.
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
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
        """Print a line on stderr. On a terminal it appears above the bar, which moves down."""
        bar = self._bar or self._step_bar
        if bar is not None:
            bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def inform(self, text: str) -> None:
        """Print a line on stderr, unless --quiet was given."""
        if not self._quiet:
            self.say(text)

    def told(self, remark: str) -> None:
        """Print a remark, unless --quiet was given."""
        self.inform(remark)

    def started(self, index: int, total: int, cell: Cell) -> None:
        """Show which cell is being computed."""
        self._began = self._last_line = time.monotonic()
        self._cell = self.name_of(cell)
        self._end_step()
        if self._terminal and not self._quiet:
            self._advance(index, total)

    def step(self, what: str, done: int, total: int) -> None:
        """Show the progress of a step within a cell.

        On a terminal it stands in the bar of the cells, or has a bar of its own if there are no cells yet. In a log it
        is a line at least `INTERVAL` seconds after the last.
        """
        far = f"{what} {done}/{total}" if total > 1 else what
        if self._bar is not None:
            # update(0) redraws only if tqdm's least interval has passed; a refresh for every batch would cost time.
            self._bar.set_postfix_str(far, refresh=False)
            self._bar.update(0)
        elif self._terminal and not self._quiet and total > 1:
            self._show_step(what, done, total)
        elif not self._terminal and time.monotonic() - self._last_line > INTERVAL:
            self._last_line = time.monotonic()
            self.inform(f"    {self._cell}: {far}" if self._cell else f"    {far}")

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Show the result of a cell, if it was computed and not read from the store."""
        if computed:
            shown = result.status if result.score is None else _format_score(result.score)
            place = f"[{index + 1:{len(str(total))}}/{total}]"
            line = f"{place} {self.name_of(cell)}: {shown} ({time.monotonic() - self._began:.1f} s)"
            if result.status == "failed":
                self.say(f"{line}: {result.message}")
            elif not self._terminal:
                self.inform(line)
        if self._debug and result.traceback:
            self.say(result.traceback.rstrip())
        if self._bar is not None:
            self._advance(index + 1, total)

    def _show_step(self, what: str, done: int, total: int) -> None:
        if self._step_bar is not None and self._step_bar.desc != what:
            self._end_step()
        bar = self._step_bar or _make_bar(total, desc=what)
        self._step_bar = bar
        bar.update(done - bar.n)
        if done >= total:
            self._end_step()

    def _end_step(self) -> None:
        if self._step_bar is not None:
            self._step_bar.close()
            self._step_bar = None

    def _advance(self, done: int, total: int) -> None:
        bar = self._bar or _make_bar(total, unit="cell")
        self._bar = bar
        # Set, where update() would add: `started` and `finished` each say where the comparison is.
        bar.set_description(self._cell, refresh=False)
        bar.n = done
        bar.refresh()


def _make_bar(total: int, desc: str | None = None, unit: str = "it") -> tqdm[Any]:
    # 80 by 24 if the terminal does not know its size; tqdm itself would show no bar then.
    size = shutil.get_terminal_size()
    return tqdm(total=total, file=sys.stderr, leave=False, ncols=size.columns, nrows=size.lines, desc=desc, unit=unit)


def _format_score(score: Score) -> str:
    form = ".2f" if score.unit == "%" else ".4g"
    return f"{score.value:{form}} {score.unit}".rstrip()


class _Handler(logging.Handler):
    """Prints the library's warnings through the console: written directly, they would break the bar's line."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.say(f"featbench: {record.getMessage()}")
