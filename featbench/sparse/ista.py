"""ISTA: proximal gradient."""

from __future__ import annotations

from torch import Tensor

from featbench.sparse.descent import TOLERANCE, Descent, descend
from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution


class Ista(Descent):
    """z ← h_{λ/L}(z - Dᵀ(Dz - y)/L), with L the largest eigenvalue of DᵀD."""

    state = (*Descent.state, "correlations")

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

    patches [n, d], dictionary [d, m]: float32 or float64, tensors or arrays; start: codes [n, m] to begin with;
    nonnegative: z ≥ 0. A patch is done when its duality gap is at most tolerance · objective, which is looked at every
    25 iterations. Computed in float64. Source: Daubechies, Defrise, De Mol 2004; Gregor, LeCun 2010, eq. 3.
    Raises UsageError or LearningError for input that cannot be coded.
    """
    inputs = read_inputs(patches, dictionary, lam, start, nonnegative)
    return descend(Ista, inputs, tolerance=tolerance, iterations=iterations, every=25)
