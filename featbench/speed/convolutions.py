"""The convolutions of a network and nothing else, each as fast as torch can do it: what extraction is measured by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.stages.encoders import FilterBank
from featbench.system.clock import Clock

TRIALS = 3
"""Each way to a convolution is tried so often, after once that does not count; the best time decides."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Convolution:
    """What one filter bank convolves: weight [filters, fan_in, size, size] in groups, maps [maps, height, width]."""

    weight: Tensor
    groups: int
    maps: tuple[int, int, int]


def find_convolutions(network: nn.Module, one: Tensor) -> list[Convolution]:
    """Return the convolutions of a network on the way of maps `one` [1, ...], in order.

    A connection table makes it one of groups; their maps count as often as groups see them.
    """
    found: list[Convolution] = []

    def watch(bank: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(bank, FilterBank)
        maps = bank.groups * bank.weight.shape[1]
        found.append(Convolution(bank.weight.detach(), bank.groups, (maps, *inputs[0].shape[2:])))

    banks = [module for module in network.modules() if isinstance(module, FilterBank)]
    handles = [bank.register_forward_pre_hook(watch) for bank in banks]
    try:
        network(one)
    finally:
        for handle in handles:
            handle.remove()
    return found


def choose_fastest(convolutions: list[Convolution], batch: int, device: torch.device, dtype: torch.dtype) -> Call:
    """Return a call that does the convolutions of a batch of noise, each in the way that was fastest in a trial.

    No bias, and each output is dropped before the next one is made.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for convolution in convolutions:
        maps = torch.randn(batch, *convolution.maps, generator=generator).to(device, dtype)
        ways = _ways(maps, convolution.weight.to(device, dtype), convolution.groups)
        chosen.append(min(ways, key=partial(_trial, device=device)))

    def run() -> None:
        for convolve in chosen:
            convolve()

    return run


def _ways(maps: Tensor, weight: Tensor, groups: int) -> Iterator[Call]:
    """Yield the ways to a convolution: maps first or last in memory, a batch at once or, on a CPU, image by image."""
    # A clone has the strides of its format even where there is one map, which `contiguous` would leave as it is.
    last = maps.clone(memory_format=torch.channels_last), weight.clone(memory_format=torch.channels_last)
    for x, w in ((maps, weight), last):
        yield partial(functional.conv2d, x, w, groups=groups)
        if x.device.type == "cpu" and len(x) > 1:
            yield partial(_one_by_one, x, w, groups)


def _one_by_one(maps: Tensor, weight: Tensor, groups: int) -> None:
    for image in torch.split(maps, 1):
        functional.conv2d(image, weight, groups=groups)


def _trial(convolve: Call, device: torch.device) -> float:
    convolve()
    seconds = []
    for _ in range(TRIALS):
        clock = Clock(device)
        convolve()
        seconds.append(clock.seconds())
    return min(seconds)
