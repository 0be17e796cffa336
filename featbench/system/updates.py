"""Long loops of updates that can be watched: how many are done, at what energy, and how much time is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

Watcher = Callable[[str, int, int], None]
"""Receives what is being done, how many updates are finished, and out of how many."""

Energy = Tensor | float | Callable[[], Tensor | float]
"""What updates lower: a number, or a function that computes it when it is to be shown."""

INTERVAL = 0.5
"""Least seconds between two reports: an energy on a GPU, and a line on a terminal, cost more than many updates."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watch_updates(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` hear of all `Updates` inside the block."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class Updates:
    """The numbers of the updates of a loop, 0, 1, …, whose progress is reported to whoever watches.

    A learner goes through them in place of a `range`. Reporting changes nothing of what is computed.

    Parameters
    ----------
    count : int
        How many updates there are, at most.
    what : str, default "learning filters"
        What the updates do, in words for the user.

    Attributes
    ----------
    energy : Tensor, float, callable or None
        What the updates lower, as the loop sets it after each of them; or a function that returns it, which is called
        only where it is shown. None: no energy is shown.

    Examples
    --------
    >>> import featbench
    >>> updates, value = featbench.Updates(3), 8.0
    >>> for update in updates:
    ...     value /= 2
    ...     updates.energy = value
    >>> value
    1.0
    """

    def __init__(self, count: int, what: str = "learning filters") -> None:
        self.count, self.what, self.done = count, what, 0
        self.energy: Energy | None = None
        self._watcher = _watcher.get()
        self._began = self._reported = time.monotonic()

    def __iter__(self) -> Iterator[int]:
        for update in range(self.count):
            yield update
            self.advance()

    def advance(self) -> None:
        """Count an update as done: for loops that something else runs, as an optimiser that calls a function."""
        self.done = min(self.done + 1, self.count)
        now = time.monotonic()
        if self._watcher is None or (now - self._reported < INTERVAL and self.done < self.count):
            return
        self._reported = now
        left = (now - self._began) / self.done * (self.count - self.done)
        parts = [self.what, *self._describe_energy(), f"{format_seconds(left)} left", "update"]
        self._watcher(", ".join(parts), self.done, self.count)

    def _describe_energy(self) -> list[str]:
        if self.energy is None:
            return []
        return [f"energy {float(self.energy() if callable(self.energy) else self.energy):.4g}"]


def format_seconds(seconds: float) -> str:
    """Return a duration in words: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
