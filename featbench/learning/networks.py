"""Networks of stages: learned stage by stage, and assembled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featbench.data.maps import JoinedMaps, Maps
from featbench.learning.learner import FilterLearner, NetworkLearner, fill_table
from featbench.learning.patches import MapSource, PatchSource
from featbench.stages.architecture import Architecture, Shape, StageSpec
from featbench.stages.connection_table import draw_connection_table, make_full_table
from featbench.stages.filters import Bank, Filters
from featbench.stages.stage import MultiStage, Stage, build_operations
from featbench.system.seeds import derive_seed, seeded
from featbench.types import IntArray


@dataclass(frozen=True)
class StageFilters:
    """The filters of one stage and its connection table [groups, fan_in]."""

    filters: Filters
    table: IntArray


def stage_bank(spec: StageSpec, shape: Shape, seed: int) -> tuple[Bank, IntArray]:
    """Return the bank that a learner fills for each group of this stage's connection table, and the table."""
    maps = spec.bank_input(shape)[0]
    fan_in = spec.bank.fan_in
    table = make_full_table(maps) if fan_in is None else draw_connection_table(maps, spec.bank.filters, fan_in, seed)
    return Bank(spec.bank.filters // len(table), spec.bank.size, table.shape[1]), table


def refusal(architecture: Architecture, learner: FilterLearner, shape: Shape) -> str | None:
    """Say which stage the learner cannot fill, and why, or None; raises if the architecture does not fit `shape`."""
    inputs = [shape, *architecture.shapes(shape)]
    for number, (spec, came_in) in enumerate(zip(architecture.stages, inputs, strict=False), start=1):
        bank = stage_bank(spec, came_in, seed=0)[0]
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
    """Get the filters of every stage, each learned on the outputs of those below it.

    `images` are what a learner that looks at images may see, [n, *shape] or `Maps`; others are not given any. `seed`
    decides connection tables and filters.
    """
    with seeded(derive_seed(seed, "learn")):
        learned: list[StageFilters] = []
        below: list[nn.Module] = []
        inputs = [shape, *architecture.shapes(shape)]
        for number, (spec, came_in) in enumerate(zip(architecture.stages, inputs, strict=False), start=1):
            bank, table = stage_bank(spec, came_in, derive_seed(seed, "table", number))
            patches = None
            if learner.looks() and images is not None:
                before = build_operations(spec.around_bank()[0], came_in[0])
                entering = nn.Sequential(*below, before).to(device)
                patches = PatchSource(
                    MapSource(images, entering, device), bank.size, derive_seed(seed, "patches", number)
                )
            maps = spec.bank_input(came_in)[0]
            filters = fill_table(learner, bank, table, maps, patches, seed, "filters", number)
            learned.append(StageFilters(filters, table))
            below.append(Stage(spec, came_in[0], learned[-1].filters, table, learner.encoder))
        return learned


def assemble(
    architecture: Architecture, learner: FilterLearner, shape: Shape, stages: Sequence[StageFilters]
) -> nn.Sequential:
    """Build the network from its stages' filters: [n, *shape] to the maps of the last stage.

    Where the architecture keeps other stages too, it gives one row [n, d] of the maps of all these.
    """
    inputs = [shape, *architecture.shapes(shape)]
    built = [
        Stage(spec, came_in[0], stage.filters, stage.table, learner.encoder)
        for spec, came_in, stage in zip(architecture.stages, inputs, stages, strict=False)
    ]
    return MultiStage(built, architecture.kept) if architecture.kept else nn.Sequential(*built)


def network_of(
    learner: NetworkLearner, shape: Shape, images: Tensor | Maps | JoinedMaps | None, *, seed: int, device: torch.device
) -> nn.Module:
    """Get the network of a learner that gives the whole extractor; only one that looks at images is given any."""
    seen = MapSource(images, nn.Identity(), device) if learner.looks() and images is not None else None
    own_seed = derive_seed(seed, "network")
    with seeded(own_seed):
        return learner.network(shape, seen, own_seed)
