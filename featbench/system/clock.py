"""A clock that waits for the device before each reading."""

from __future__ import annotations

import time

import torch


class Clock:
    """Measures seconds of work on a device, from the moment that it is made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._now()

    def seconds(self) -> float:
        """Return the seconds since the clock was made."""
        return self._now() - self._start

    def _now(self) -> float:
        # Python only launches kernels, and returns long before they have run.
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
