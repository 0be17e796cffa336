"""Coordinate descent on a growing active set, compiled: for dictionaries of many atoms, of which a patch uses few."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch

from featbench.errors import LearningError, UsageError
from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.solution import Solution

TOLERANCE = 1e-3
"""Largest duality gap, as a part of the objective. In single precision, in which this works, 1e-5 can be reached."""

BLOCK = 256
"""Patches that a thread codes at a time."""

ENTERING = 16
"""Atoms that enter the active set at once, at most: the first of those that violate the conditions of optimality at
least half as much as the worst."""

SWEEPS = 200
"""Of coordinate descent over the active set, at most, before the other atoms are looked at again."""


def active_descent(
    patches: Array,
    dictionary: Array,
    lam: float,
    *,
    tolerance: float = TOLERANCE,
    iterations: int = 200,
    nonnegative: bool = False,
) -> Solution:
    """Minimise ½‖y - Dz‖² + λ‖z‖₁ patch by patch, in single precision, on the CPU.

    Coordinate descent runs over the active set alone, whose part of the Gram matrix fits into the fastest cache; then
    atoms that violate |d_j · (y - Dz)| ≤ λ, by half as much as the worst or more, enter it. An iteration is one such
    look at all atoms. A patch is done when its duality gap is at most tolerance · objective. Both are right to some
    1e-6 ‖y‖², for Dᵀy and DᵀD are of single precision: where λ is so small that the objective is no larger, take
    `feature_sign`.

    patches [n, d], dictionary [d, m]: float32 or float64, tensors or arrays. nonnegative: z ≥ 0. Codes come as float32.
    Source: the active sets of Friedman, Hastie, Tibshirani 2010, section 2.6; the duality gap of Kim et al. 2007.
    Raises UsageError or LearningError for input that cannot be coded, and UsageError for tensors on a GPU.
    """
    inputs = read_inputs(patches, dictionary, lam, None, nonnegative)
    if inputs.patches.is_cuda:
        raise UsageError("active_descent codes on the CPU alone: take feature_sign on a GPU")
    if not tolerance >= 0 or iterations < 1:
        raise UsageError(f"tolerance ≥ 0 and iterations ≥ 1 are needed, not {tolerance} and {iterations}")
    atoms = inputs.lasso.dictionary.float()
    gram, correlations = (atoms.T @ atoms).numpy(), (inputs.patches.float() @ atoms).numpy()
    energies = inputs.patches.double().square().sum(dim=1).numpy()
    if not np.max([energies.max(), gram.max()]) < np.finfo(np.float32).max:
        raise LearningError("patches or atoms are too large to be squared in single precision: scale them down")
    n, m = inputs.shape
    codes = np.zeros((n, m), dtype=np.float32)
    objective, gap, taken = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
    limits = (np.float32(lam), float(tolerance), iterations, nonnegative)
    solve = _compiled()

    def run(start: int) -> None:
        here = slice(start, start + BLOCK)
        solve(gram, correlations[here], energies[here], *limits, codes[here], objective[here], gap[here], taken[here])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(run, range(0, n, BLOCK)))
    found = (torch.from_numpy(array) for array in (codes, objective, gap, taken, gap <= tolerance * objective))
    return Solution(*found)


@cache
def _compiled() -> Callable[..., None]:
    """Compile the solver."""
    from numba import njit

    sweeping = njit(nogil=True, fastmath=True)(_sweep)
    measure = njit(nogil=True, fastmath=True)(_measure)

    def solve(
        gram: Any,
        correlations: Any,
        energies: Any,
        lam: Any,
        tolerance: Any,
        iterations: Any,
        nonnegative: Any,
        codes: Any,
        objectives: Any,
        gaps: Any,
        taken: Any,
    ) -> None:
        m = len(gram)
        rest = np.empty(m, dtype=np.float32)  # correlations of all atoms with what is left of the patch
        place = np.empty(m, dtype=np.int64)  # in the active set, or -1
        for row in range(len(correlations)):
            rest[:] = correlations[row]
            place[:] = -1
            active, values = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
            part, slope = np.empty((0, 0), dtype=np.float32), np.empty(0, dtype=np.float32)
            precision = np.float32(1e-2)
            for iteration in range(iterations + 1):
                objectives[row], gaps[row], worst = measure(
                    rest, correlations[row], energies[row], active, values, lam, nonnegative
                )
                taken[row] = iteration
                if gaps[row] <= tolerance * objectives[row] or iteration == iterations:
                    break
                # Atoms whose values have become zero leave, and those that are missed most enter.
                staying = active[values != 0]
                kept = values[values != 0]
                place[active] = -1
                entering = np.empty(ENTERING, dtype=np.int64)
                count = 0
                bound = max(lam, np.float32(0.5) * worst)
                place[staying] = 0
                for atom in range(m):
                    missed = rest[atom] if nonnegative else abs(rest[atom])
                    if missed > bound and place[atom] < 0 and count < ENTERING and gram[atom, atom] > 0:
                        entering[count] = atom
                        count += 1
                if count == 0:
                    precision *= np.float32(0.1)
                size = len(staying) + count
                active, values = np.empty(size, dtype=np.int64), np.zeros(size, dtype=np.float32)
                active[: len(staying)], active[len(staying) :] = staying, entering[:count]
                values[: len(staying)] = kept
                part, slope = np.empty((size, size), dtype=np.float32), np.empty(size, dtype=np.float32)
                for i in range(size):
                    place[active[i]] = i
                    slope[i] = rest[active[i]]
                    for j in range(size):
                        part[i, j] = gram[active[i], active[j]]
                sweeping(part, slope, values, lam, precision, nonnegative)
                rest[:] = correlations[row]
                for i in range(size):
                    if values[i] != 0:
                        value, atom = values[i], active[i]
                        for j in range(m):
                            rest[j] -= value * gram[atom, j]
            for i in range(len(active)):
                codes[row, active[i]] = values[i]

    compiled: Callable[..., None] = njit(nogil=True, fastmath=True)(solve)
    return compiled


def _sweep(part: Any, slope: Any, values: Any, lam: Any, precision: Any, nonnegative: Any) -> None:
    """Descend along one active coordinate after the other; `slope` are their correlations with what is left."""
    size = len(values)
    for _ in range(SWEEPS):
        largest = np.float32(0)
        for i in range(size):
            curvature = part[i, i]
            target = slope[i] + curvature * values[i]
            if target > lam:
                moved = (target - lam) / curvature
            elif target < -lam and not nonnegative:
                moved = (target + lam) / curvature
            else:
                moved = np.float32(0)
            change = moved - values[i]
            if change != 0:
                values[i] = moved
                for j in range(size):
                    slope[j] -= change * part[i, j]
                largest = max(largest, abs(change) * curvature)
        if largest <= precision * lam:
            break


def _measure(
    rest: Any, correlations: Any, energy: Any, active: Any, values: Any, lam: Any, nonnegative: Any
) -> tuple[Any, Any, Any]:
    """Return the objective, the duality gap, and the largest correlation with what is left of the patch."""
    worst = np.float32(0)
    for j in range(len(rest)):
        worst = max(worst, rest[j] if nonnegative else abs(rest[j]))
    explained, common, length = 0.0, 0.0, 0.0
    for i in range(len(active)):
        explained += values[i] * correlations[active[i]]
        common += values[i] * rest[active[i]]
        length += abs(values[i])
    left = max(energy - explained - common, 0.0)  # ‖y - Dz‖²
    objective = 0.5 * left + lam * length
    # What is left, scaled until no atom correlates with it by more than λ, is a point of the dual problem.
    scale = min(1.0, lam / worst) if worst > 0 else 1.0
    dual = scale * (energy - explained) - 0.5 * scale * scale * left
    return objective, max(objective - dual, 0.0), worst
