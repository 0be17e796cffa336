"""Progress as bars of tqdm's: those of the notebook in a notebook, on stderr elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm


@contextmanager
def show_progress(shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told what is being done, how much of it is finished, and out of how much.

    It draws a bar, which is gone in the end, or nothing if nothing is to be shown.
    """
    bars = _Bars(shown)
    try:
        yield bars.show
    finally:
        bars.close()


class _Bars:
    """One bar after another."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._bar: tqdm[Any] | None = None

    def show(self, what: str, done: int, total: int) -> None:
        if not self._shown:
            return
        if self._bar is None or self._bar.total != total or done < self._bar.n:
            self.close()
            self._bar = tqdm(total=total, desc=what, leave=False)
        self._bar.set_description(what, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
