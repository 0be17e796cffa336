"""Greedy coordinate descent: one coefficient of each patch at a time, the one that gains most."""

from __future__ import annotations

import torch
from torch import Tensor

from featbench.devices.selection import select_operations
from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.iterative_solver import TOLERANCE, IterativeSolver, solve_in_blocks
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution


class CoordinateDescent(IterativeSolver):
    """B = Dᵀy - (DᵀD - diag) z is kept up to date; z̄_j = h_λ(B_j)/‖d_j‖² minimises over z_j alone.

    Each step takes k = argmax_j ‖d_j‖ |z̄_j - z_j|, sets z_k to z̄_k, and moves B by column k of the Gram matrix.
    """

    state = (*IterativeSolver.state, "targets")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        super().__init__(lasso, patches, start)
        # Steps change the codes in place, and the start belongs to the caller.
        self.codes = self.codes.clone()
        off_diagonal = lasso.gram - torch.diag(lasso.gram.diagonal())
        self.targets = torch.addmm(patches @ lasso.dictionary, self.codes, off_diagonal, alpha=-1)

    def advance(self, point: Point, steps: int) -> None:
        """Change one coefficient of each patch a step."""
        # All steps in one call: a step is so small that on a GPU launching it would cost more than computing it.
        select_operations(self.codes.device).coordinate_steps(
            self.codes, self.targets, self.lasso.gram, self.lasso.lam, steps, nonnegative=self.lasso.nonnegative
        )


def coordinate_descent(
    patches: Array,
    dictionary: Array,
    lam: float,
    *,
    tolerance: float = TOLERANCE,
    iterations: int = 100_000,
    start: Array | None = None,
    nonnegative: bool = False,
) -> Solution:
    """Minimise ½‖y - Dz‖² + λ‖z‖₁ by coordinate descent (CoD): each iteration moves one coefficient of each patch.

    The coefficient is the one that would change most, each change weighted by its atom's norm: with unit norms that is
    the rule of the paper, and without them the answer does not depend on how the atoms are scaled.

    Parameters
    ----------
    patches : torch.Tensor or numpy.ndarray
        Patches y in rows, [n, d], float32 or float64, on a CPU or a GPU.
    dictionary : torch.Tensor or numpy.ndarray
        Atoms of D in columns, [d, m], of any norms, float32 or float64, on the patches' device.
    lam : float
        λ > 0, in the unit of a product of a patch and an atom.
    tolerance : float, default 1e-6
        A patch is done when its duality gap is at most `tolerance` times its objective, which is checked every 25
        iterations.
    iterations : int, default 100000
        Iterations at most; a patch that needs more is returned as not converged.
    start : torch.Tensor or numpy.ndarray, optional
        Codes to begin with, [n, m]; zeros if left out. It is not changed.
    nonnegative : bool, default False
        Minimise over z ≥ 0.

    Returns
    -------
    Solution
        Codes [n, m], computed in float64, with objective, duality gap, iterations and convergence of each patch.

    Raises
    ------
    UsageError
        Shapes, types, devices or settings make no sense, or the codes do not fit into the memory.
    LearningError
        Patches, atoms or start are not finite, or too large to be squared.

    References
    ----------
    Li, Osher 2009; Gregor, LeCun 2010, algorithm 2.
    """
    inputs = read_inputs(patches, dictionary, lam, start, nonnegative)
    return solve_in_blocks(CoordinateDescent, inputs, tolerance=tolerance, iterations=iterations, check_every=25)
