"""Random numbers of modules in training: a generator for each piece of work, whichever thread does it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCAL = threading.local()
"""What belongs to each thread: threads that share one generator would draw in the order in which they happen to run."""


class _SeededGenerators:
    """The generators of one seed, one for each device that asks."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def on(self, device: torch.device) -> torch.Generator:
        # Made when first asked for: most networks draw nothing, and a generator on a GPU costs a launch.
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Give modules that this thread runs inside the context a generator of this seed; contexts may be nested."""
    before = getattr(_LOCAL, "generators", None)
    _LOCAL.generators = _SeededGenerators(seed)
    try:
        yield
    finally:
        _LOCAL.generators = before


def generator(device: torch.device | str) -> torch.Generator:
    """Return the generator that a module in training draws from.

    A module that draws (dropout, noise) passes it to torch's functions, as in
    ``torch.rand(x.shape, device=x.device, generator=generator(x.device))``. Its draws then depend on the seed of the
    refinement, the epoch and the images alone: they are the same whatever the number of threads, and after a killed
    refinement is resumed.

    Parameters
    ----------
    device : torch.device or str
        Where the numbers are drawn: the device of the maps that the module receives.

    Returns
    -------
    torch.Generator
        During refinement, that of the present part of a batch; the same one at every call until the part is done.
        Otherwise torch's own generator of the device, the one that `torch.manual_seed` seeds.

    Notes
    -----
    Modules that draw from torch's own generator (such as `torch.nn.Dropout`) are reproducible as well, but they are
    not run on several parts of a batch at once, since all threads share that generator.
    """
    device = torch.device(device)
    generators = getattr(_LOCAL, "generators", None)
    if generators is not None:
        return generators.on(device)  # type: ignore[no-any-return]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator
