"""Networks of stages: learned stage by stage, and assembled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featbench.data.maps import JoinedMaps, Maps
from featbench.errors import PluginError
from featbench.learning.banks import fill_table
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.patches import MapSource, PatchSource
from featbench.learning.trial import has_foreign_modules, try_network, try_rebuilt
from featbench.stages.architecture import Architecture
from featbench.stages.connection_table import draw_connection_table, make_full_table
from featbench.stages.filters import Bank, Filters
from featbench.stages.specs import Shape, StageSpec
from featbench.stages.stage import MultiStage, Stage, build_operations
from featbench.system.global_state import keep_global_state
from featbench.system.seeds import derive_seed, seed_for, seeded
from featbench.system.threads import use_threads
from featbench.types import IntArray

SMALL_BANK = 2**16
"""Weights of a bank, filters × maps × side², below which one thread learns it fastest."""


@dataclass(frozen=True)
class StageFilters:
    """The filters of one stage and its connection table [groups, fan_in]."""

    filters: Filters
    table: IntArray


def make_stage_bank(spec: StageSpec, shape: Shape, seed: int) -> tuple[Bank, IntArray]:
    """Return the bank that a learner fills for each group of this stage's connection table, and the table."""
    maps = spec.bank_input(shape)[0]
    fan_in = spec.bank.fan_in
    table = make_full_table(maps) if fan_in is None else draw_connection_table(maps, spec.bank.filters, fan_in, seed)
    return Bank(spec.bank.filters // len(table), spec.bank.size, table.shape[1]), table


def find_refusal(architecture: Architecture, learner: FilterLearner, shape: Shape) -> str | None:
    """Return which stage the learner cannot fill, and why, or None.

    shape: (maps, height, width) of the smallest image. Raises `ArchitectureError` if the architecture does not fit it.
    """
    inputs = [shape, *architecture.shapes(shape)]
    for number, (spec, input_shape) in enumerate(zip(architecture.stages, inputs, strict=False), start=1):
        # Any seed will do: it decides which maps each filter sees, and a bank only has how many there are.
        bank = make_stage_bank(spec, input_shape, seed=0)[0]
        reason = learner.refusal(bank)
        if not reason and not spec.bank.encoder and learner.units(bank) != bank.filters:
            reason = (
                "its encoder pools over filters, so that a bare filter bank (C) has more maps than it says: write F"
            )
        if reason:
            return f"{learner.name} in stage {number}: {reason}"
    return None


def learn_stages(
    architecture: Architecture,
    learner: FilterLearner,
    shape: Shape,
    images: Tensor | Maps | JoinedMaps | None,
    *,
    seed: int,
    device: torch.device,
) -> list[StageFilters]:
    """Return the filters of every stage, each learned on the outputs of the stages below it.

    images: what a learner that looks at images may see, [n, *shape] or `Maps`; others are not given any. seed: decides
    connection tables and filters. device: where images pass through the stages. Raises `PluginError` if the learner
    breaks its contract, and what the learner raises.
    """
    # Plugins may draw from the global generators, which are seeded here and given back as they were.
    with keep_global_state(), seeded(derive_seed(seed, "learn")):
        learned: list[StageFilters] = []
        below: list[nn.Module] = []
        inputs = [shape, *architecture.shapes(shape)]
        for number, (spec, input_shape) in enumerate(zip(architecture.stages, inputs, strict=False), start=1):
            bank, table = make_stage_bank(spec, input_shape, derive_seed(seed, "table", number))
            patches = None
            if learner.looks() and images is not None:
                # Patches are cut from the maps that enter the filter bank: operations of the stage may stand before it.
                before_bank = build_operations(spec.around_bank()[0], input_shape[0])
                source = MapSource(images, nn.Sequential(*below, before_bank).to(device), device)
                patches = PatchSource(source, bank.size, derive_seed(seed, "patches", number))
            maps = spec.bank_input(input_shape)[0]
            with use_threads(count_useful_threads(spec.bank.filters * maps * bank.size**2)):
                filters = fill_table(learner, bank, table, maps, patches, seed, "filters", number)
            learned.append(StageFilters(filters, table))
            below.append(Stage(spec, input_shape[0], learned[-1].filters, table, learner.encoder))
            if has_foreign_modules(below[-1]):
                try_network(f"stage {number} of {learner.name}", below[-1], input_shape, device)
        return learned


def count_useful_threads(weights: int) -> int:
    """Return how many threads pay off where a bank of so many weights is learned.

    An update of a small bank takes less than a millisecond, most of which several threads would spend on waiting for
    one another; where another process has one of the cores, they wait twenty times as long as they compute.
    """
    return 1 if weights < SMALL_BANK else torch.get_num_threads()


def assemble(
    architecture: Architecture, learner: FilterLearner, shape: Shape, stages: Sequence[StageFilters]
) -> nn.Sequential:
    """Return the network of these stages: maps [n, *shape] to the maps of the last stage.

    Where the architecture keeps other stages too, it gives one row [n, d] of the maps of all of them.
    """
    inputs = [shape, *architecture.shapes(shape)]
    built = [
        Stage(spec, input_shape[0], stage.filters, stage.table, learner.encoder)
        for spec, input_shape, stage in zip(architecture.stages, inputs, stages, strict=False)
    ]
    return MultiStage(built, architecture.kept) if architecture.kept else nn.Sequential(*built)


def learn_network(
    learner: NetworkLearner, shape: Shape, images: Tensor | Maps | JoinedMaps | None, *, seed: int, device: torch.device
) -> nn.Module:
    """Return the network of a learner that gives the whole extractor, tried on random maps.

    Only a learner that looks at images is given any. Raises `PluginError` if the network breaks its contract, and what
    the learner raises.
    """
    maps = MapSource(images, nn.Identity(), device) if learner.looks() and images is not None else None
    network_seed = derive_seed(seed, "network")
    with keep_global_state(), seeded(network_seed):
        network = learner.network(shape, maps, seed_for(type(learner), network_seed))
        who = f"the network of {type(learner).choice(learner.parameters())}"
        if not isinstance(network, nn.Module):
            raise PluginError(f"{who} is a {type(network).__name__}, not a torch.nn.Module")
        features = try_network(who, network, shape, device, learner.gives)
        if type(learner).rebuild is not NetworkLearner.rebuild:
            state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
            try_rebuilt(who, learner.rebuild(shape, state), shape, features)
        return network
