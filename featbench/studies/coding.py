"""Optimal sparse codes, and the λ at which a given fraction of them is non-zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from featbench.errors import LearningError, UsageError
from featbench.sparse import Solution, coordinate_descent, feature_sign, fista
from featbench.sparse.steps import compute_largest_eigenvalue, make_soft_threshold, take_fista_steps

BLOCK = 4096
"""Patches coded at once."""

DECADES, HALVINGS = 2, 14
"""Powers of ten below the largest correlation that the search for λ covers, and how often it halves that interval."""

NEAR_STEPS = 300
"""Steps of FISTA to codes near a prediction. The α-term makes the energy strongly convex, so that these suffice."""

Progress = Callable[[int, int], None]


def find_optimal_codes(rows: Tensor, atoms: Tensor, lam: float, progress: Progress | None = None) -> Tensor:
    """Return the minimisers z [n, m] of ½‖y - D z‖² + λ‖z‖₁ for rows y [n, d] and atoms D [d, m].

    `progress` is called with the number of patches coded so far, and of all. Raises `LearningError` if the solver stops
    before the optimum of any patch.
    """
    found = []
    # In blocks, since a solver's temporaries are several times as large as the codes.
    for start in range(0, len(rows), BLOCK):
        solution = feature_sign(rows[start : start + BLOCK], atoms, lam)
        short = int((~solution.converged).sum())
        if short:
            raise LearningError(
                f"the optimal codes of {short} patches were not reached at λ = {lam:.3g}: a larger λ is easier"
            )
        found.append(solution.codes)
        if progress is not None:
            progress(min(start + BLOCK, len(rows)), len(rows))
    return torch.cat(found)


def compute_density(codes: Tensor) -> float:
    """Return the fraction of codes that is not zero, from 0 to 1."""
    return float((codes != 0).double().mean())


def find_lam(rows: Tensor, atoms: Tensor, wanted: float) -> float:
    """Return the λ at which a fraction `wanted` of the optimal codes of rows [n, d] is non-zero, by bisection.

    Raises `UsageError` if no λ does: patches that are blank, or more codes than optimal codes can use.
    """
    # z = 0 is optimal exactly where λ ≥ max |Dᵀy| (the subgradient condition of the lasso): an upper bound of λ. Below
    # it the fraction falls as λ grows, so bisection works; in log λ, since λ may lie anywhere within two decades.
    largest = float((rows @ atoms).abs().max())
    if not largest > 0:
        raise UsageError(
            "these patches are blank, or have nothing in common with the dictionary: no λ is right for them"
        )
    high = math.log10(largest)
    low = high - DECADES
    if wanted > atoms.shape[0] / atoms.shape[1] or compute_density(find_optimal_codes(rows, atoms, 10**low)) < wanted:
        raise UsageError(
            f"no λ leaves {wanted:g} of the codes non-zero: optimal codes of {atoms.shape[0]} pixels use at most so "
            f"many of {atoms.shape[1]} atoms"
        )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if compute_density(find_optimal_codes(rows, atoms, 10**middle)) > wanted:
            low = middle
        else:
            high = middle
    return float(10 ** ((low + high) / 2))


def keep_largest(codes: Tensor, part: float) -> Tensor:
    """Keep a fraction `part` of codes [n, m], those of largest magnitude over all patches, and set the others to 0."""
    count = round(part * codes.numel())
    if count == 0:
        return torch.zeros_like(codes)
    magnitude = codes.abs()
    # The smallest magnitude that stays, by selection: sorting millions of codes would take longer.
    threshold = magnitude.flatten().kthvalue(codes.numel() - count + 1).values
    return torch.where(magnitude >= threshold, codes, 0)


def find_codes_near(rows: Tensor, atoms: Tensor, lam: float, prediction: Tensor, alpha: float) -> Tensor:
    """Return the minimisers z [n, m] of ½‖y - D z‖² + λ‖z‖₁ + α/2 ‖z - prediction‖², as PSD infers them.

    The prediction's term is quadratic, so this is a lasso with the Gram matrix DᵀD + αI and the correlations
    Dᵀy + α prediction: the solver for plain codes applies.
    """
    gram = atoms.T @ atoms + alpha * torch.eye(atoms.shape[1])
    correlations = rows @ atoms + alpha * prediction
    lipschitz = compute_largest_eigenvalue(gram)
    return take_fista_steps(gram, correlations, prediction, make_soft_threshold(lam), NEAR_STEPS, lipschitz)


Solver = Callable[[Tensor, Tensor, float], Tensor]


def list_solvers() -> dict[str, Solver]:
    """Return the solvers of optimal codes by name, each to its own tolerance: (rows, atoms, λ) to codes [n, m]."""
    found = {"feature-sign": feature_sign, "coordinate-descent": coordinate_descent, "fista": fista}
    return {name: _make_solver(solver) for name, solver in found.items()}


def _make_solver(solver: Callable[[Tensor, Tensor, float], Solution]) -> Solver:
    return lambda rows, atoms, lam: solver(rows, atoms, lam).codes
