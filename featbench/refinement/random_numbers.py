"""Random numbers of modules in training: a generator for each piece of work, whichever thread does it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCAL = threading.local()


class _Source:
    """The generators of one seed, one for each device that asks."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.made: dict[torch.device, torch.Generator] = {}

    def on(self, device: torch.device) -> torch.Generator:
        if device not in self.made:
            self.made[device] = torch.Generator(device).manual_seed(self.seed)
        return self.made[device]


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Give modules that this thread runs inside the context a generator of this seed."""
    before = getattr(_LOCAL, "source", None)
    _LOCAL.source = _Source(seed)
    try:
        yield
    finally:
        _LOCAL.source = before


def generator(device: torch.device) -> torch.Generator:
    """Return the generator of the present work on a device; outside `drawing_from` torch's own of that device."""
    source = getattr(_LOCAL, "source", None)
    if source is not None:
        return source.on(device)  # type: ignore[no-any-return]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator
