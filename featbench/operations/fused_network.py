"""A network of stages as it runs without gradients: its modules joined into the operations of a device."""

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
"""One operation of a device, or one module: takes the maps so far to the next ones."""


class FusedNetwork(nn.Module):
    """Computes what `network` does with the operations of a device; modules that it does not know run unchanged.

    Filter bank, tanh with gain and absolute value become one operation, which also returns the moments that N needs; N
    and pooling become another, which stores no normalised copy of the maps. Nothing is joined across maps that are
    features. Parameters are read at each call, so that a network may be trained after it was fused.
    """

    def __init__(self, network: nn.Module, operations: Reference) -> None:
        super().__init__()
        self.network, self.operations = network, operations
        self.chains = [_join_operations(chain, operations) for chain in split_into_chains(network)]

    @property
    def is_reentrant(self) -> bool:
        """Whether several threads may run it at once: no module of the network keeps anything of a call."""
        # All modules, not only those of the chains: a module that runs unchanged calls the modules inside it.
        return all(is_reentrant_class(type(module)) for module in self.network.modules())

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of maps x [n, ...], float32."""
        return self._compute_features(x, sizes=[])

    def find_largest_maps(self, x: Tensor) -> int:
        """Run the network, and return how many values the largest maps hold from maps x [1, ...] to their features."""
        sizes = [x.numel()]

        def watch(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.numel())

        # Hooks see what is computed inside modules that run unchanged. Joined modules are never called as modules, so
        # that their hooks stay silent: `_compute_features` reports their maps.
        handles = [module.register_forward_hook(watch) for module in self.network.modules()]
        try:
            features = self._compute_features(x, sizes)
        finally:
            for handle in handles:
                handle.remove()
        return max(*sizes, features.numel())

    def _compute_features(self, x: Tensor, sizes: list[int]) -> Tensor:
        """Return the features of maps x; the number of values after each step is appended to `sizes`."""
        responses, kept = Responses(x), []
        for chain in self.chains:
            for step in chain:
                responses = step(responses)
                sizes.append(responses.y.numel())
            kept.append(responses.y.float())
            # `float` returns y itself where y is float32: an operation in place would overwrite kept features.
            responses = replace(responses, own=False)
        # A single chain keeps the shape of its maps; several become rows, as `MultiStage` joins them.
        return kept[0].contiguous() if len(kept) == 1 else torch.cat([maps.flatten(1) for maps in kept], dim=1)


def is_reentrant_class(cls: type[nn.Module]) -> bool:
    """Whether several threads may run modules of this class at once.

    The modules of torch.nn may. Any other class has to say so itself, by `reentrant: ClassVar[bool] = True`.
    """
    # Read from the class alone, never inherited: a subclass may override `forward`, or a method that it calls, and keep
    # something of a call. The same holds for subclasses of torch.nn's modules, whose `__module__` is their author's.
    return cls.__module__.startswith("torch.nn.modules.") or cls.__dict__.get("reentrant") is True


def split_into_chains(network: nn.Module) -> list[list[nn.Module]]:
    """Return the modules in the order in which they run, one list for each of the maps that are features."""
    # Only these very types are opened: a subclass may do more than run its children in turn.
    if type(network) is not MultiStage:
        return [list(_flatten(network))]
    chains: list[list[nn.Module]] = [[]]
    for number, stage in enumerate(network, start=1):
        chains[-1] += _flatten(stage)
        if number in network.kept:
            chains.append([])
    return chains


def _flatten(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that a network runs, in order; sequences of modules are replaced by their members."""
    if type(network) in (nn.Sequential, Stage):
        for part in network.children():
            yield from _flatten(part)
    else:
        yield network


def _join_operations(modules: list[nn.Module], operations: Reference) -> list[Step]:
    """Return the steps of a chain; each takes as many modules as one operation covers."""
    steps: list[Step] = []
    while modules:
        match modules:
            case [FilterBank() as bank, *rest]:
                step, modules = _join_filter_bank(bank, rest, operations)
            case [LocalNormalisation() as norm, Pooling() as pooling, *modules]:
                step = _make_pooling(norm, pooling, operations)
            case [LocalNormalisation() as norm, *modules]:
                step = _make_normalisation(norm, operations)
            case [Pooling() as pooling, *modules]:
                step = _make_pooling(None, pooling, operations)
            case [module, *modules]:
                step = _run_unchanged(module)
        steps.append(step)
    return steps


def _join_filter_bank(bank: FilterBank, rest: list[nn.Module], operations: Reference) -> tuple[Step, list[nn.Module]]:
    """Join a filter bank with the non-linearity after it; return the step and the modules after those."""
    gain, rectified = None, False
    if rest and isinstance(rest[0], TanhGain):
        gain, rest = rest[0].gain, rest[1:]
    if rest and isinstance(rest[0], Rectification):
        rectified, rest = True, rest[1:]
    # N needs the mean and the mean square over maps: cheapest while a pixel's maps are still in registers or cache.
    moments = bool(rest) and isinstance(rest[0], LocalNormalisation)

    def step(responses: Responses) -> Responses:
        x = responses.y.float()
        table = None if bank.is_dense(x.shape[1]) else bank.table
        weights = BankWeights(bank.weight, bank.bias, table, gain, rectified)
        return operations.filter_bank(x, weights, moments=moments)

    return step, rest


def _make_pooling(norm: LocalNormalisation | None, pooling: Pooling, operations: Reference) -> Step:
    def step(responses: Responses) -> Responses:
        shift, scale = (None, None) if norm is None else operations.statistics(responses, norm)
        return Responses(operations.normalise_and_pool(responses, shift, scale, pooling.spec), own=True)

    return step


def _make_normalisation(norm: LocalNormalisation, operations: Reference) -> Step:
    def step(responses: Responses) -> Responses:
        shift, scale = operations.statistics(responses, norm)
        return Responses(operations.normalise(responses, shift, scale), own=True)

    return step


def _run_unchanged(module: nn.Module) -> Step:
    # The module may keep what it returns, or return what it was given, so that nobody may overwrite it: own=False.
    return lambda responses: Responses(module(responses.y.float()))
