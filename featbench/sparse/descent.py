"""The way down that all solvers share: block by block, until the duality gap of each patch is small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from featbench.errors import UsageError
from featbench.sparse.inputs import Inputs
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution

TOLERANCE = 1e-6
"""Largest duality gap, as a part of the objective: what is found lies no further above the minimum."""


class Descent(ABC):
    """One block of patches [n, d] whose codes [n, m] a solver improves, all in float64.

    state: names of the attributes that have a row for each patch.
    """

    state: ClassVar[tuple[str, ...]] = ("patches", "codes")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        self.lasso, self.patches = lasso, patches
        self.codes = patches.new_zeros(len(patches), lasso.dictionary.shape[1]) if start is None else start

    @abstractmethod
    def advance(self, point: Point, steps: int) -> None:
        """Take some steps from the codes, of which `point` tells gradient, objective and gap."""

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the patches only."""
        for name in self.state:
            setattr(self, name, getattr(self, name)[rows])


@torch.no_grad()
def descend(
    method: Callable[[Lasso, Tensor, Tensor | None], Descent],
    inputs: Inputs,
    *,
    tolerance: float,
    iterations: int,
    every: int,
) -> Solution:
    """Let every patch descend until its gap is at most `tolerance` · objective, or `iterations` are spent.

    every: iterations between two looks at the gap. Raises UsageError if tolerance or iterations make no sense.
    """
    if not tolerance >= 0:
        raise UsageError(f"tolerance must be 0 or more, and this is {tolerance}")
    if iterations < 1:
        raise UsageError(f"iterations must be at least 1, and this is {iterations}")
    found = _empty(inputs)
    for rows, patches, start in inputs.blocks():
        _descend_block(method(inputs.lasso, patches, start), rows, found, tolerance, iterations, every)
    return found


def _descend_block(
    descent: Descent, rows: Tensor, found: Solution, tolerance: float, iterations: int, every: int
) -> None:
    taken = 0
    while True:
        point = descent.lasso.evaluate(descent.patches, descent.codes)
        converged = point.gap <= tolerance * point.objective
        leaving = converged if taken < iterations else torch.ones_like(converged)
        if bool(leaving.any()):
            gone, staying = rows[leaving], ~leaving
            found.codes[gone] = descent.codes[leaving].to(found.codes.dtype)
            found.objective[gone], found.gap[gone] = point.objective[leaving], point.gap[leaving]
            found.iterations[gone], found.converged[gone] = taken, converged[leaving]
            if len(gone) == len(rows):
                return
            rows, point = rows[staying], point.at(staying)
            descent.keep(staying)
        steps = min(every, iterations - taken)
        descent.advance(point, steps)
        taken += steps


def _empty(inputs: Inputs) -> Solution:
    n, device = inputs.shape[0], inputs.patches.device
    return Solution(
        codes=torch.zeros(inputs.shape, dtype=inputs.dtype, device=device),
        objective=torch.zeros(n, dtype=torch.float64, device=device),
        gap=torch.zeros(n, dtype=torch.float64, device=device),
        iterations=torch.zeros(n, dtype=torch.int64, device=device),
        converged=torch.zeros(n, dtype=torch.bool, device=device),
    )
