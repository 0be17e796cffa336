"""Greedy coordinate descent: one coefficient of each patch at a time, the one that gains most."""

from __future__ import annotations

import torch
from torch import Tensor

from featbench.devices.selection import select_operations
from featbench.sparse.descent import TOLERANCE, Descent, descend
from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution


class CoordinateDescent(Descent):
    """B = Dᵀy - (DᵀD - diag) z is kept up to date; z̄_j = h_λ(B_j)/‖d_j‖² minimises over z_j alone.

    Each step takes k = argmax_j ‖d_j‖ |z̄_j - z_j|, sets z_k to z̄_k, and moves B by column k of the Gram matrix.
    """

    state = (*Descent.state, "targets")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        super().__init__(lasso, patches, start)
        self.codes = self.codes.clone()
        between = lasso.gram - torch.diag(lasso.gram.diagonal())
        self.targets = torch.addmm(patches @ lasso.dictionary, self.codes, between, alpha=-1)

    def advance(self, point: Point, steps: int) -> None:
        """Change one coefficient of each patch a step."""
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

    patches [n, d], dictionary [d, m]: float32 or float64, tensors or arrays; start: codes [n, m] to begin with;
    nonnegative: z ≥ 0. A patch is done when its duality gap is at most tolerance · objective, which is looked at every
    25 iterations. Computed in float64. Source: Li, Osher 2009; Gregor, LeCun 2010, algorithm 2.
    Raises UsageError or LearningError for input that cannot be coded.
    """
    inputs = read_inputs(patches, dictionary, lam, start, nonnegative)
    return descend(CoordinateDescent, inputs, tolerance=tolerance, iterations=iterations, every=25)
