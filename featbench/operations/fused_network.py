"""A network of stages as it is run without gradients: its operations joined into those of a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from featbench.operations.reference import BankWeights, Reference, Responses
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.pooling import Pooling
from featbench.stages.stage import MultiStage, Rectification, Stage

Step = Callable[[Responses], Responses]

REENTRANT = (
    *(f"featbench.{name}" for name in ("encoders", "head", "normalization", "pooling", "stages", "unrolled")),
    *(f"featbench.plugins.{name}" for name in ("convnet", "sift")),
    "torch.nn.modules",
)
"""Where the modules come from that keep nothing of a call; of a plugin's nobody knows."""


class FusedNetwork(nn.Module):
    """Computes what `network` does with the operations of a device; modules that it does not know run as they are.

    Filter bank, tanh with gain and absolute value are one operation, which gives the moments that N needs; N and
    pooling are another, which makes no normalised copy of the maps. Parameters are read at each call. Nothing is joined
    across maps that are features.
    """

    def __init__(self, network: nn.Module, operations: Reference) -> None:
        super().__init__()
        self.network, self.operations = network, operations
        self.chains = [_steps(chain, operations) for chain in chains(network)]

    @property
    def reentrant(self) -> bool:
        """Whether several threads may run it at once: its modules are known to keep nothing of a call."""
        modules = (module for chain in chains(self.network) for module in chain)
        return all(type(module).__module__.startswith(REENTRANT) for module in modules)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of maps x [n, ...], float32."""
        return self._features(x, sizes=[])

    def largest(self, x: Tensor) -> int:
        """Return how many values the largest maps hold on the way from maps x [1, ...] to their features."""
        sizes = [x.numel()]

        def watch(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.numel())

        # Of the modules, those that run as they are tell of what they make; the operations' maps are seen here.
        handles = [module.register_forward_hook(watch) for module in self.network.modules()]
        try:
            features = self._features(x, sizes)
        finally:
            for handle in handles:
                handle.remove()
        return max(*sizes, features.numel())

    def _features(self, x: Tensor, sizes: list[int]) -> Tensor:
        """Return the features of maps x; `sizes` is told how many values there are after each step."""
        responses, kept = Responses(x), []
        for chain in self.chains:
            for step in chain:
                responses = step(responses)
                sizes.append(responses.y.numel())
            kept.append(responses.y.float())
            # What is kept may be y itself, which what comes next must not overwrite.
            responses = replace(responses, own=False)
        return kept[0].contiguous() if len(kept) == 1 else torch.cat([maps.flatten(1) for maps in kept], dim=1)


def chains(network: nn.Module) -> list[list[nn.Module]]:
    """Return the modules that lead from one of the maps that are features to the next, in order."""
    if type(network) is not MultiStage:
        return [list(_leaves(network))]
    chains: list[list[nn.Module]] = [[]]
    for number, stage in enumerate(network, start=1):
        chains[-1] += _leaves(stage)
        if number in network.kept:
            chains.append([])
    return chains


def _leaves(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that a chain runs, in order; chains inside it are opened."""
    if type(network) in (nn.Sequential, Stage):
        for part in network.children():
            yield from _leaves(part)
    else:
        yield network


def _steps(modules: list[nn.Module], operations: Reference) -> list[Step]:
    steps: list[Step] = []
    while modules:
        match modules:
            case [FilterBank() as bank, *rest]:
                step, modules = _filter_bank(bank, rest, operations)
            case [LocalNormalisation() as norm, Pooling() as pooling, *modules]:
                step = _normalised_pool(norm, pooling, operations)
            case [LocalNormalisation() as norm, *modules]:
                step = _normalise(norm, operations)
            case [Pooling() as pooling, *modules]:
                step = _normalised_pool(None, pooling, operations)
            case [module, *modules]:
                step = _as_it_is(module)
        steps.append(step)
    return steps


def _filter_bank(bank: FilterBank, rest: list[nn.Module], operations: Reference) -> tuple[Step, list[nn.Module]]:
    """Join a filter bank with the non-linearity after it; return what is left."""
    gain, rectified = None, False
    if rest and isinstance(rest[0], TanhGain):
        gain, rest = rest[0].gain, rest[1:]
    if rest and isinstance(rest[0], Rectification):
        rectified, rest = True, rest[1:]
    moments = bool(rest) and isinstance(rest[0], LocalNormalisation)

    def step(responses: Responses) -> Responses:
        x = responses.y.float()
        table = None if bank.sees_all(x.shape[1]) else bank.table
        weights = BankWeights(bank.weight, bank.bias, table, gain, rectified)
        return operations.filter_bank(x, weights, moments=moments)

    return step, rest


def _normalised_pool(norm: LocalNormalisation | None, pooling: Pooling, operations: Reference) -> Step:
    def step(responses: Responses) -> Responses:
        shift, scale = (None, None) if norm is None else operations.statistics(responses, norm)
        return Responses(operations.normalised_pool(responses, shift, scale, pooling.spec), own=True)

    return step


def _normalise(norm: LocalNormalisation, operations: Reference) -> Step:
    def step(responses: Responses) -> Responses:
        shift, scale = operations.statistics(responses, norm)
        return Responses(operations.normalised(responses, shift, scale), own=True)

    return step


def _as_it_is(module: nn.Module) -> Step:
    return lambda responses: Responses(module(responses.y.float()))
