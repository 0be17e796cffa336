"""The convolutions of a network and nothing else, each as fast as torch can do it: what extraction is compared with.

They are the least that any implementation has to compute, so that a ratio to them depends little on the machine.
"""

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
"""Trials of each way to compute a convolution, after one that does not count; the best time decides."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Convolution:
    """One filter bank: weight [filters, fan_in, size, size] of so many groups, and the shape of the maps it sees."""

    weight: Tensor
    groups: int
    maps: tuple[int, int, int]


def find_convolutions(network: nn.Module, one: Tensor) -> list[Convolution]:
    """Return the convolutions that a network computes for maps `one` [1, ...], in order.

    A connection table makes a grouped convolution; a map counts once for each group that sees it.
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
    """Return a call that computes the convolutions of a batch of noise, each in the way that was fastest in a trial.

    Without bias; each output is dropped before the next one is computed.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for convolution in convolutions:
        maps = torch.randn(batch, *convolution.maps, generator=generator).to(device, dtype)
        ways = _list_ways(maps, convolution.weight.to(device, dtype), convolution.groups)
        chosen.append(min(ways, key=partial(_time_best, device=device)))

    def run() -> None:
        for convolve in chosen:
            convolve()

    return run


def _list_ways(maps: Tensor, weight: Tensor, groups: int) -> Iterator[Call]:
    """Yield ways to compute a convolution: maps first or last in memory, the batch at once or, on a CPU, by image."""
    # `contiguous` would leave a single map as it is, since both formats hold the same numbers; a clone has the strides
    # of its format, and those decide which code runs.
    last = maps.clone(memory_format=torch.channels_last), weight.clone(memory_format=torch.channels_last)
    for x, w in ((maps, weight), last):
        yield partial(functional.conv2d, x, w, groups=groups)
        if x.device.type == "cpu" and len(x) > 1:
            yield partial(_one_by_one, x, w, groups)


def _one_by_one(maps: Tensor, weight: Tensor, groups: int) -> None:
    for image in torch.split(maps, 1):
        functional.conv2d(image, weight, groups=groups)


def _time_best(convolve: Call, device: torch.device) -> float:
    convolve()
    seconds = []
    for _ in range(TRIALS):
        clock = Clock(device)
        convolve()
        seconds.append(clock.seconds())
    return min(seconds)
