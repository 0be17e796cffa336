"""The connection table of a stage: which maps below each filter sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAPS_PER_GROUP = 16
"""Filters that share one subset of the maps below: enough to learn a dictionary on it, few enough to mix subsets."""


def draw_connection_table(maps: int, filters: int, fan_in: int, seed: int) -> NDArray[np.int64]:
    """Draw the random table of `256F9:16`: [groups, fan_in], the maps that each group of filters sees.

    Filters are dealt to equal groups of at most 16; each group sees one subset, so that a learner has a bank to learn
    on it. The subsets walk through a random permutation of the maps and draw a new one when it is used up, so that
    every map is used about equally often (Torch7's `nn.tables.random`; the paper says "random subset of 16" only).
    """
    groups = filters // _find_largest_divisor(filters, MAPS_PER_GROUP)
    generator = np.random.default_rng(seed)
    table = np.empty((groups, fan_in), dtype=np.int64)
    waiting: list[int] = []
    for group in range(groups):
        if len(waiting) < fan_in:
            # What is left of the last permutation is used first; the next one holds those maps back to its end.
            fresh = [int(i) for i in generator.permutation(maps)]
            waiting = waiting + sorted(fresh, key=waiting.__contains__)
        table[group] = np.sort(waiting[:fan_in])
        waiting = waiting[fan_in:]
    return table


def make_full_table(maps: int) -> NDArray[np.int64]:
    """Return the table of a bank without one: a single group that sees every map, [1, maps]."""
    return np.arange(maps, dtype=np.int64)[None, :]


def _find_largest_divisor(number: int, limit: int) -> int:
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)
