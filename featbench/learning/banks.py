"""Filter banks filled by learners: each group of a connection table is asked for, and checked against the contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from featbench.errors import PluginError
from featbench.learning.learner import FilterLearner
from featbench.learning.patches import PatchSource
from featbench.stages.filters import Bank, Filters
from featbench.system.seeds import derive_seed, seed_for
from featbench.types import IntArray


def fill_table(
    learner: FilterLearner,
    bank: Bank,
    table: IntArray,
    maps: int,
    patches: PatchSource | None,
    seed: int,
    *purpose: object,
) -> Filters:
    """Ask the learner for the filters of every group of a connection table, together if it learns them so.

    bank: that of one group. table: [groups, fan_in]. maps: how many come in. seed, purpose: decide the seeds of the
    groups. Raises `PluginError` if the learner breaks its contract.
    """
    whole = replace(bank, filters=bank.filters * len(table))
    together = None
    if len(table) > 1:
        together = learner.connected(whole, table, maps, patches, seed_for(type(learner), derive_seed(seed, *purpose)))
    if together is not None:
        return _check_filters(learner, together, whole)
    return Filters.concatenate(
        [
            fill_bank(learner, bank, patches.of(seen) if patches else None, derive_seed(seed, *purpose, group))
            for group, seen in enumerate(table)
        ]
    )


def fill_bank(learner: FilterLearner, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
    """Ask the learner for the filters of `bank`; raises `PluginError` if it breaks its contract."""
    given = learner.filters(bank, patches, seed_for(type(learner), seed))
    if isinstance(given, np.ndarray):
        if given.dtype.kind not in "biufc":
            raise PluginError(f"learner {learner.name} gave a weight of type {given.dtype}; it must be floating point")
        # torch refuses negative strides.
        given = torch.from_numpy(np.ascontiguousarray(given))
    if isinstance(given, Tensor):
        given = Filters(given)
    if not isinstance(given, Filters):
        raise PluginError(f"learner {learner.name} gave {type(given).__name__} where Filters or a weight is expected")
    return _check_filters(learner, given, bank)


def _check_filters(learner: FilterLearner, given: Filters, bank: Bank) -> Filters:
    """Return what a learner gave, as float32 on the CPU; raises `PluginError` if it is not what the contract asks."""
    problem = given.find_problem(replace(bank, filters=learner.units(bank)))
    if problem:
        raise PluginError(f"learner {learner.name} broke its contract: {problem}")
    return Filters.from_tensors({k: v.detach().to("cpu", torch.float32) for k, v in given.tensors().items()})
