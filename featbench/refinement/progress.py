"""What refinement reports while it runs: the loss, the best validation score, the pace, and the time that remains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from featbench.refinement.training_state import TrainingState

REPORT_INTERVAL = 0.5
"""Seconds between two reports of progress."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is finished, and out of how much."""


def ignore_progress(what: str, done: int, total: int) -> None:
    """Report to nobody."""


class TrainingProgress:
    """Reports one run of training of so many epochs over so many images, in batches of at most `batch_size`."""

    def __init__(self, report: Progress, epochs: int, images: int, batch_size: int) -> None:
        self.epochs, self.images, self.batch_size = epochs, images, batch_size
        self._report = report
        self._throughput = Throughput()
        self._reported = -math.inf

    def after_batch(self, state: TrainingState, batches: int, images: int) -> None:
        """Count a batch of `images`, the last so far of an epoch of `batches`, and report where it is time to.

        The last batch of an epoch is always reported, so that a log has every epoch.
        """
        rate, now = self._throughput.count(images), time.monotonic()
        if now - self._reported < REPORT_INTERVAL and state.batch < batches:
            return
        self._reported = now
        self._report(f"{self._describe(state, batches, rate)}, epoch", state.epoch, self.epochs)

    def _describe(self, state: TrainingState, batches: int, rate: float) -> str:
        parts = [f"{state.run}: loss {state.mean_loss:.3f}"]
        if state.has_score:
            parts.append(f"validation {100 * state.best_score.accuracy:.1f} %")
        if not math.isnan(rate):
            remaining = (self.epochs - state.epoch) * self.images + (batches - state.batch) * self.batch_size
            parts.append(f"{rate:.0f} images/s, {format_duration(remaining / rate)} left")
        return ", ".join(parts)


class Throughput:
    """Images a second since the first batch.

    That batch is left out: in it code is compiled and memory is allocated, and an estimate that counted it would
    promise hours in the first minutes.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._images = 0

    def count(self, images: int) -> float:
        """Return the images a second after a further batch; NaN after the first."""
        if self._began is None:
            self._began = time.monotonic()
            return math.nan
        self._images += images
        return self._images / max(time.monotonic() - self._began, 1e-9)


def format_duration(seconds: float) -> str:
    """Return `42 s` or `3 min 07 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
