"""What the batched solvers share: blocks of patches, iterations, and the duality gap at which each patch is done."""

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


class IterativeSolver(ABC):
    """One block of patches [n, d] whose codes [n, m] a method improves step by step, all in float64.

    state: names of the attributes that have a row for each patch. start: codes [n, m] to begin with, or None for zeros.
    """

    state: ClassVar[tuple[str, ...]] = ("patches", "codes")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        self.lasso, self.patches = lasso, patches
        self.codes = patches.new_zeros(len(patches), lasso.dictionary.shape[1]) if start is None else start

    @abstractmethod
    def advance(self, point: Point, steps: int) -> None:
        """Take `steps` steps from the codes; `point` has their gradient, objective and gap."""

    def keep(self, rows: Tensor) -> None:
        """Drop all patches but those of a mask [n]: the others are done."""
        for name in self.state:
            setattr(self, name, getattr(self, name)[rows])


@torch.no_grad()
def solve_in_blocks(
    method: Callable[[Lasso, Tensor, Tensor | None], IterativeSolver],
    inputs: Inputs,
    *,
    tolerance: float,
    iterations: int,
    check_every: int,
) -> Solution:
    """Solve for every patch until its gap is at most `tolerance` · objective, or `iterations` are spent.

    check_every: iterations between two checks of the gap, which costs about as much as an iteration. Raises UsageError
    if tolerance or iterations make no sense.
    """
    if not tolerance >= 0:
        raise UsageError(f"tolerance must be 0 or more, and this is {tolerance}")
    if iterations < 1:
        raise UsageError(f"iterations must be at least 1, and this is {iterations}")
    solution = _make_empty_solution(inputs)
    for rows, patches, start in inputs.blocks():
        _solve_block(method(inputs.lasso, patches, start), rows, solution, tolerance, iterations, check_every)
    return solution


def _solve_block(
    solver: IterativeSolver, rows: Tensor, solution: Solution, tolerance: float, iterations: int, check_every: int
) -> None:
    """Solve for one block, and write what is found into these `rows` of the solution."""
    # The gap is checked before the first step too: a start may be the optimum, and patches of zeros need no step.
    count = 0
    while True:
        point = solver.lasso.evaluate(solver.patches, solver.codes)
        converged = point.gap <= tolerance * point.objective
        leaving = converged if count < iterations else torch.ones_like(converged)
        if bool(leaving.any()):
            # A patch that is done leaves the batch at once: easy patches do not pay for the hard ones beside them.
            finished, staying = rows[leaving], ~leaving
            solution.codes[finished] = solver.codes[leaving].to(solution.codes.dtype)
            solution.objective[finished], solution.gap[finished] = point.objective[leaving], point.gap[leaving]
            solution.iterations[finished], solution.converged[finished] = count, converged[leaving]
            if len(finished) == len(rows):
                return
            rows, point = rows[staying], point.at(staying)
            solver.keep(staying)
        steps = min(check_every, iterations - count)
        solver.advance(point, steps)
        count += steps


def _make_empty_solution(inputs: Inputs) -> Solution:
    n, device = inputs.shape[0], inputs.patches.device
    return Solution(
        codes=torch.zeros(inputs.shape, dtype=inputs.dtype, device=device),
        objective=torch.zeros(n, dtype=torch.float64, device=device),
        gap=torch.zeros(n, dtype=torch.float64, device=device),
        iterations=torch.zeros(n, dtype=torch.int64, device=device),
        converged=torch.zeros(n, dtype=torch.bool, device=device),
    )
