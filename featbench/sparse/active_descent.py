"""Coordinate descent on a growing active set, compiled: for dictionaries of many atoms, of which a patch uses few.

With the residual y - Dz, the Gram matrix G = DᵀD and c = Dᵀy, everything is computed from the residual correlations
ρ = Dᵀ(y - Dz) = c - Gz. A code z is optimal where the Karush-Kuhn-Tucker conditions hold: ρ_j = λ sign z_j for each
z_j ≠ 0, and |ρ_j| ≤ λ for the others. An atom of zero coefficient and |ρ_j| > λ violates them.
"""

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
"""Atoms that enter the active set in one iteration, at most: the first of those that violate the KKT conditions at
least half as much as the atom that violates them most."""

SWEEPS = 200
"""Sweeps of coordinate descent over the active set, at most, before the other atoms are checked again."""


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

    Coordinate descent runs over the active set alone, whose part of the Gram matrix fits into the fastest cache. Then
    atoms that violate |d_j · (y - Dz)| ≤ λ enter it. One iteration is one such check of all atoms.

    Parameters
    ----------
    patches : torch.Tensor or numpy.ndarray
        Patches y in rows, [n, d], float32 or float64, on the CPU.
    dictionary : torch.Tensor or numpy.ndarray
        Atoms of D in columns, [d, m], of any norms, float32 or float64.
    lam : float
        λ > 0, in the unit of a product of a patch and an atom.
    tolerance : float, default 1e-3
        A patch is done when its duality gap is at most `tolerance` times its objective.
    iterations : int, default 200
        Checks of all atoms, at most; a patch that needs more is returned as not converged.
    nonnegative : bool, default False
        Minimise over z ≥ 0.

    Returns
    -------
    Solution
        Codes [n, m] as float32, with objective, duality gap, iterations and convergence of each patch.

    Raises
    ------
    UsageError
        Shapes, types or settings make no sense, the tensors are on a GPU, or the codes do not fit into the memory.
    LearningError
        Patches or atoms are not finite, or too large to be squared in single precision.

    Notes
    -----
    Objective and gap are right to some 1e-6 ‖y‖², because Dᵀy and DᵀD have single precision. Where λ is so small that
    the objective is no larger than that, use `feature_sign`.

    References
    ----------
    Friedman, Hastie, Tibshirani 2010, section 2.6 (active sets); Kim, Koh, Lustig, Boyd, Gorinevsky 2007 (duality gap).
    """
    inputs = read_inputs(patches, dictionary, lam, None, nonnegative)
    if inputs.patches.is_cuda:
        raise UsageError("active_descent codes on the CPU alone: take feature_sign on a GPU")
    if not tolerance >= 0 or iterations < 1:
        raise UsageError(f"tolerance ≥ 0 and iterations ≥ 1 are needed, not {tolerance} and {iterations}")
    atoms = inputs.lasso.dictionary.float()
    gram, correlations = (atoms.T @ atoms).numpy(), (inputs.patches.float() @ atoms).numpy()
    # In double: the residual's energy is a difference of these, and loses its digits where the fit is close.
    energies = inputs.patches.double().square().sum(dim=1).numpy()
    if not np.max([energies.max(), gram.max()]) < np.finfo(np.float32).max:
        raise LearningError("patches or atoms are too large to be squared in single precision: scale them down")
    n, m = inputs.shape
    codes = np.zeros((n, m), dtype=np.float32)
    objectives, gaps, counts = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
    # Everything that meets the arrays is float32: a Python float would make the compiled loops compute in double.
    settings = (np.float32(lam), float(tolerance), iterations, nonnegative)
    solve = _compile_solver()

    def solve_block(start: int) -> None:
        rows = slice(start, start + BLOCK)
        outputs = (codes[rows], objectives[rows], gaps[rows], counts[rows])
        solve(gram, correlations[rows], energies[rows], *settings, *outputs)

    # Threads rather than processes: the compiled code holds no GIL, and each block writes into rows of its own.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(solve_block, range(0, n, BLOCK)))
    results = (torch.from_numpy(array) for array in (codes, objectives, gaps, counts, gaps <= tolerance * objectives))
    return Solution(*results)


@cache
def _compile_solver() -> Callable[..., None]:
    """Compile what solves for a block of patches, once a process; numba is imported here, since that takes seconds.

    `fastmath` lets sums be vectorised, in an order of the compiler's. Nothing here relies on NaN or infinity: inputs
    are checked to be finite.
    """
    from numba import njit

    compiled = njit(nogil=True, fastmath=True)
    evaluate, choose_entering, restrict, descend, update = (
        compiled(part)
        for part in (_evaluate, _choose_entering, _restrict_gram, _descend_coordinates, _update_correlations)
    )

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
        counts: Any,
    ) -> None:
        m = len(gram)
        # Two arrays for all patches of the block: allocated once, they stay in the cache.
        residual_correlations = np.empty(m, dtype=np.float32)
        is_active = np.empty(m, dtype=np.bool_)
        for row in range(len(correlations)):
            # z = 0 to begin with: the residual is the patch.
            residual_correlations[:] = correlations[row]
            is_active[:] = False
            active, values = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
            # Coarse at first: while atoms still enter, exact codes of a set that is not final would be wasted.
            precision = np.float32(1e-2)
            for iteration in range(iterations + 1):
                objectives[row], gaps[row], largest = evaluate(
                    residual_correlations, correlations[row], energies[row], active, values, lam, nonnegative
                )
                counts[row] = iteration
                if gaps[row] <= tolerance * objectives[row] or iteration == iterations:
                    break
                # Atoms whose coefficients have become zero leave the active set, so that it stays small.
                is_active[active] = False
                active, values = active[values != 0], values[values != 0]
                is_active[active] = True
                entering = choose_entering(gram, residual_correlations, is_active, largest, lam, nonnegative)
                if len(entering) == 0:
                    # The set is right and its codes are too coarse: descend further on the same set.
                    precision *= np.float32(0.1)
                active = np.concatenate((active, entering))
                values = np.concatenate((values, np.zeros(len(entering), dtype=np.float32)))
                is_active[active] = True
                active_gram = restrict(gram, active)
                descend(active_gram, residual_correlations[active], values, lam, precision, nonnegative)
                update(residual_correlations, correlations[row], gram, active, values)
            # The caller's array is zero elsewhere.
            for i in range(len(active)):
                codes[row, active[i]] = values[i]

    solver: Callable[..., None] = compiled(solve)
    return solver


def _choose_entering(
    gram: Any, residual_correlations: Any, is_active: Any, largest: Any, lam: Any, nonnegative: Any
) -> Any:
    """Return the atoms that enter the active set, at most ENTERING: those with |ρ_j| > max(λ, ½ max_k |ρ_k|).

    Some at a time, because atoms that are alike violate the conditions together and one of them will do.
    """
    entering = np.empty(ENTERING, dtype=np.int64)
    count = 0
    bound = max(lam, np.float32(0.5) * largest)
    for atom in range(len(gram)):
        correlation = residual_correlations[atom] if nonnegative else abs(residual_correlations[atom])
        # An atom of zeros has no curvature: its coefficient is left at 0.
        if correlation > bound and not is_active[atom] and count < ENTERING and gram[atom, atom] > 0:
            entering[count] = atom
            count += 1
    return entering[:count]


def _restrict_gram(gram: Any, active: Any) -> Any:
    """Return the Gram matrix of the active atoms: a copy that is contiguous and stays in the cache while sweeping."""
    size = len(active)
    active_gram = np.empty((size, size), dtype=np.float32)
    for i in range(size):
        for j in range(size):
            active_gram[i, j] = gram[active[i], active[j]]
    return active_gram


def _descend_coordinates(
    active_gram: Any, active_correlations: Any, values: Any, lam: Any, precision: Any, nonnegative: Any
) -> None:
    """Minimise over one active coefficient after the other, in place: z_j ← h_λ(ρ_j + G_jj z_j) / G_jj.

    h_λ is the soft threshold; `active_correlations` are the ρ_j of the active atoms, kept up to date. Ends when no
    coefficient changes the gradient of its own coordinate by more than `precision` · λ in a sweep.
    """
    size = len(values)
    for _ in range(SWEEPS):
        largest = np.float32(0)
        for i in range(size):
            curvature = active_gram[i, i]
            target = active_correlations[i] + curvature * values[i]
            if target > lam:
                updated = (target - lam) / curvature
            elif target < -lam and not nonnegative:
                updated = (target + lam) / curvature
            else:
                updated = np.float32(0)
            change = updated - values[i]
            if change != 0:
                values[i] = updated
                # ρ = c - Gz moves by a column of G, which is a row: it is symmetric, and rows are contiguous.
                for j in range(size):
                    active_correlations[j] -= change * active_gram[i, j]
                largest = max(largest, abs(change) * curvature)
        if largest <= precision * lam:
            break


def _update_correlations(residual_correlations: Any, correlations: Any, gram: Any, active: Any, values: Any) -> None:
    """Set the residual correlations of all atoms to ρ = c - Gz, in place.

    From c each time, so that the rounding errors of earlier iterations do not add up.
    """
    residual_correlations[:] = correlations
    for i in range(len(active)):
        if values[i] != 0:
            value, atom = values[i], active[i]
            for j in range(len(residual_correlations)):
                residual_correlations[j] -= value * gram[atom, j]


def _evaluate(
    residual_correlations: Any, correlations: Any, energy: Any, active: Any, values: Any, lam: Any, nonnegative: Any
) -> tuple[Any, Any, Any]:
    """Return the objective, the duality gap, and the largest residual correlation of an atom.

    With r = y - Dz: ‖r‖² = ‖y‖² - zᵀc - zᵀρ and yᵀr = ‖y‖² - zᵀc. The dual problem is max θᵀy - ½‖θ‖² over
    ‖Dᵀθ‖∞ ≤ λ; θ = s r with s = min(1, λ / max_j |ρ_j|) is a feasible point of it, and gives a lower bound of the
    minimum.
    """
    largest = np.float32(0)
    for j in range(len(residual_correlations)):
        largest = max(largest, residual_correlations[j] if nonnegative else abs(residual_correlations[j]))
    # Python's 0.0 is double: these sums cancel, and float32 would leave nothing of a small gap.
    code_correlation, code_residual, l1_norm = 0.0, 0.0, 0.0  # zᵀc, zᵀρ, ‖z‖₁
    for i in range(len(active)):
        code_correlation += values[i] * correlations[active[i]]
        code_residual += values[i] * residual_correlations[active[i]]
        l1_norm += abs(values[i])
    residual_energy = max(energy - code_correlation - code_residual, 0.0)
    objective = 0.5 * residual_energy + lam * l1_norm
    scale = min(1.0, lam / largest) if largest > 0 else 1.0
    dual = scale * (energy - code_correlation) - 0.5 * scale * scale * residual_energy
    return objective, max(objective - dual, 0.0), largest
