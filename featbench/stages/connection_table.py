"""The connection table of a stage: which maps of the stage below each filter sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAPS_PER_GROUP = 16
"""Filters that share one subset of the maps below, at most: enough to learn a dictionary on it, few enough that subsets
mix."""


def draw_connection_table(maps: int, filters: int, fan_in: int, seed: int) -> NDArray[np.int64]:
    """Draw the random table of `256F9:16`: [groups, fan_in], the maps that each group of filters sees.

    Filters are divided into equal groups of at most 16, and each group sees one subset: so a learner has a whole bank
    to learn on it, and the convolution is one grouped convolution. The subsets walk through a random permutation of the
    maps, and through a new one when it is used up, so that every map is used about equally often (Torch7's
    `nn.tables.random`; the paper says "random subset of 16" only).
    """
    # Equal groups, since a grouped convolution knows no others: 48 filters are 3 groups of 16, 20 are 2 of 10.
    groups = filters // _find_largest_divisor(filters, MAPS_PER_GROUP)
    generator = np.random.default_rng(seed)
    table = np.empty((groups, fan_in), dtype=np.int64)
    waiting: list[int] = []
    for group in range(groups):
        if len(waiting) < fan_in:
            # The rest of the last permutation is used first. Of the new one, those maps move to the end (the sort is
            # stable, and False sorts before True), so that no subset holds a map twice.
            fresh = [int(i) for i in generator.permutation(maps)]
            waiting = waiting + sorted(fresh, key=waiting.__contains__)
        # In order: equal subsets are then equal rows.
        table[group] = np.sort(waiting[:fan_in])
        waiting = waiting[fan_in:]
    return table


def make_full_table(maps: int) -> NDArray[np.int64]:
    """Return the table of a bank without one: a single group that sees every map, [1, maps]."""
    return np.arange(maps, dtype=np.int64)[None, :]


def _find_largest_divisor(number: int, limit: int) -> int:
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)
