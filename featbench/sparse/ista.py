"""ISTA: proximal gradient."""

from __future__ import annotations

from torch import Tensor

from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.iterative_solver import TOLERANCE, IterativeSolver, solve_in_blocks
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution


class Ista(IterativeSolver):
    """z ← h_{λ/L}(z - Dᵀ(Dz - y)/L), with L the largest eigenvalue of DᵀD."""

    state = (*IterativeSolver.state, "correlations")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        super().__init__(lasso, patches, start)
        self.correlations = patches @ lasso.dictionary
        self.step = 1 / lasso.lipschitz

    def advance(self, point: Point, steps: int) -> None:
        """Take gradient steps, each followed by shrinkage."""
        for _ in range(steps):
            gradient = self.lasso.gradient(self.codes, self.correlations)
            self.codes = self.lasso.shrink(self.codes - self.step * gradient, self.step * self.lasso.lam)


def ista(
    patches: Array,
    dictionary: Array,
    lam: float,
    *,
    tolerance: float = TOLERANCE,
    iterations: int = 100_000,
    start: Array | None = None,
    nonnegative: bool = False,
) -> Solution:
    """Minimise ½‖y - Dz‖² + λ‖z‖₁ by the iterative shrinkage and thresholding algorithm.

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
    Daubechies, Defrise, De Mol 2004; Gregor, LeCun 2010, eq. 3.
    """
    inputs = read_inputs(patches, dictionary, lam, start, nonnegative)
    return solve_in_blocks(Ista, inputs, tolerance=tolerance, iterations=iterations, check_every=25)
