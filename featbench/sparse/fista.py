"""FISTA: proximal gradient with momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from featbench.devices.selection import select_operations
from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.iterative_solver import TOLERANCE, IterativeSolver, solve_in_blocks
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution

GROWTH = 1.5
"""Factor by which the line search raises L while the step 1/L is too long."""


class Fista(IterativeSolver):
    """z_k = h_{λ/L}(x_k - ∇f(x_k)/L); x_{k+1} = z_k + (t_k - 1)/t_{k+1} (z_k - z_{k-1}), each patch with its own t."""

    state = (*IterativeSolver.state, "correlations", "extrapolated", "momentum")

    step_scale = 1.0
    """Length of the steps, as a multiple of 1/L."""

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        super().__init__(lasso, patches, start)
        self.correlations = patches @ lasso.dictionary
        # One tensor for both will do: steps replace them, and change neither in place.
        self.extrapolated = self.codes
        self.momentum = torch.ones_like(patches[:, :1])

    def advance(self, point: Point, steps: int) -> None:
        """Take accelerated steps."""
        self.accelerate(steps)

    def accelerate(self, steps: int) -> None:
        """Take steps; a patch whose momentum points uphill restarts (O'Donoghue, Candès 2015, gradient scheme)."""
        operations = select_operations(self.codes.device)
        for _ in range(steps):
            moved = self.proximal_step(self.extrapolated)
            self.extrapolated, self.momentum = operations.momentum_step(
                moved, self.codes, self.extrapolated, self.momentum
            )
            self.codes = moved

    def proximal_step(self, codes: Tensor) -> Tensor:
        """Return h_{λ/L}(x - ∇f(x)/L) for codes x [n, m], with L the largest eigenvalue of DᵀD."""
        step = self.step_scale / self.lasso.lipschitz
        gradient = self.lasso.gradient(codes, self.correlations)
        return self.lasso.shrink(torch.add(codes, gradient, alpha=-step), step * self.lasso.lam)


class BacktrackingFista(Fista):
    """FISTA whose L is found by line search, patch by patch: it starts at the largest squared norm of an atom."""

    state = (*Fista.state, "lipschitz")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        super().__init__(lasso, patches, start)
        # A lower bound of the largest eigenvalue of DᵀD, whose diagonal holds the squared norms: L is found from below.
        self.lipschitz = torch.ones_like(self.momentum) * lasso.squared_norms.max()

    def proximal_step(self, codes: Tensor) -> Tensor:
        """Raise L until ½‖D(z - x)‖² ≤ L/2 ‖z - x‖², so that the quadratic model lies above the energy at z."""
        gradient = self.lasso.gradient(codes, self.correlations)
        while True:
            moved = self.lasso.shrink(codes - gradient / self.lipschitz, self.lasso.lam / self.lipschitz)
            change = moved - codes
            curvature = (change @ self.lasso.dictionary.T).square().sum(dim=1, keepdim=True)
            # The margin allows for rounding: without it a patch whose codes no longer change could raise L for ever.
            short = curvature <= (1 + 1e-9) * self.lipschitz * change.square().sum(dim=1, keepdim=True)
            if bool(short.all()):
                return moved
            # L never falls again: the momentum of FISTA is proven for steps that do not grow.
            self.lipschitz = torch.where(short, self.lipschitz, GROWTH * self.lipschitz)


def fista(
    patches: Array,
    dictionary: Array,
    lam: float,
    *,
    tolerance: float = TOLERANCE,
    iterations: int = 20_000,
    start: Array | None = None,
    nonnegative: bool = False,
    backtracking: bool = False,
) -> Solution:
    """Minimise ½‖y - Dz‖² + λ‖z‖₁ by the fast iterative shrinkage and thresholding algorithm, with restarts.

    Parameters
    ----------
    patches : torch.Tensor or numpy.ndarray
        Patches y in rows, [n, d], float32 or float64, on a CPU or a GPU.
    dictionary : torch.Tensor or numpy.ndarray
        Atoms of D in columns, [d, m], of any norms, float32 or float64, on the patches' device.
    lam : float
        λ > 0, in the unit of a product of a patch and an atom.
    tolerance : float, default 1e-6
        A patch is done when its duality gap is at most `tolerance` times its objective, which is checked every 10
        iterations.
    iterations : int, default 20000
        Iterations at most; a patch that needs more is returned as not converged.
    start : torch.Tensor or numpy.ndarray, optional
        Codes to begin with, [n, m]; zeros if left out. It is not changed.
    nonnegative : bool, default False
        Minimise over z ≥ 0.
    backtracking : bool, default False
        Compute no eigenvalue: each patch finds its L by line search, from the largest squared norm of an atom upwards
        by factors of 1.5.

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
    Beck, Teboulle 2009; O'Donoghue, Candès 2015 (restarts).
    """
    inputs = read_inputs(patches, dictionary, lam, start, nonnegative)
    method = BacktrackingFista if backtracking else Fista
    return solve_in_blocks(method, inputs, tolerance=tolerance, iterations=iterations, check_every=10)
