"""The lasso ½‖y - Dz‖² + λ‖z‖₁ over one dictionary: gradient, shrinkage, objective and duality gap of many codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from featbench.sparse.steps import compute_largest_eigenvalue

TINY = 1e-300
"""Least divisor: a zero that is divided by it stays zero, where 0/0 would be NaN."""


@dataclass(frozen=True)
class Point:
    """Codes as a solver sees them: gradient [n, m] of ½‖y - Dz‖², objective [n], duality gap [n]."""

    gradient: Tensor
    objective: Tensor
    gap: Tensor

    def at(self, rows: Tensor) -> Point:
        """Return gradient, objective and gap of some of the codes."""
        return Point(self.gradient[rows], self.objective[rows], self.gap[rows])


@dataclass(frozen=True)
class Lasso:
    """The problem of coding patches: dictionary D [d, m] of any norms, λ > 0; nonnegative: z must be ≥ 0."""

    dictionary: Tensor
    lam: float
    nonnegative: bool = False

    @cached_property
    def gram(self) -> Tensor:
        """DᵀD, [m, m]."""
        return self.dictionary.T @ self.dictionary

    @cached_property
    def squared_norms(self) -> Tensor:
        """‖d_j‖² of the atoms, [m]."""
        return self.dictionary.square().sum(dim=0)

    @cached_property
    def lipschitz(self) -> float:
        """L, the Lipschitz constant of the gradient: the largest eigenvalue of DᵀD, which is that of DDᵀ."""
        d, m = self.dictionary.shape
        # Of the smaller of the two. Above 0 for a dictionary of zeros, since steps have the length 1/L.
        return max(compute_largest_eigenvalue(self.gram if m <= d else self.dictionary @ self.dictionary.T), 1e-30)

    def to_single(self) -> Lasso:
        """Return the problem in float32."""
        return replace(self, dictionary=self.dictionary.float())

    def gradient(self, codes: Tensor, correlations: Tensor) -> Tensor:
        """Return DᵀD z - Dᵀy for codes z [n, m] and correlations Dᵀy [n, m]."""
        d, m = self.dictionary.shape
        # n m² multiplications by the Gram matrix, 2 n d m by the dictionary and its transpose: the cheaper is taken.
        if m <= 2 * d:
            return torch.addmm(correlations, codes, self.gram, beta=-1)
        return torch.addmm(correlations, codes @ self.dictionary.T, self.dictionary, beta=-1)

    def shrink(self, values: Tensor, threshold: float | Tensor) -> Tensor:
        """Return the proximal operator of threshold · ‖z‖₁ (and of z ≥ 0) at `values`."""
        if self.nonnegative:
            return (values - threshold).clamp_min_(0)
        if isinstance(threshold, float):
            return torch.nn.functional.softshrink(values, threshold)
        # softshrink takes no tensor of thresholds: x - clip(x, -t, t) is the same function.
        return values - torch.maximum(torch.minimum(values, threshold), -threshold)

    def violation(self, gradient: Tensor) -> Tensor:
        """Return what must not exceed λ where z_j = 0 (the KKT conditions): |∇f|, or -∇f where z ≥ 0, at least 0."""
        return (-gradient).clamp_min_(0) if self.nonnegative else gradient.abs()

    def evaluate(self, patches: Tensor, codes: Tensor) -> Point:
        """Return gradient, objective and duality gap of codes [n, m] of patches [n, d].

        With r = y - Dz, every θ = s r with ‖Dᵀθ‖∞ ≤ λ is feasible in the dual max θᵀy - ½‖θ‖². Its value is a lower
        bound of the minimum, and largest at s = rᵀy / ‖r‖², or at the largest s that is feasible (Kim et al. 2007).
        All of it is computed from r, since in Gram form ‖r‖² would lose its digits where the fit is close.
        """
        residual = torch.addmm(patches, codes, self.dictionary.T, alpha=-1)
        gradient = -(residual @ self.dictionary)
        energy, alignment = residual.square().sum(dim=1), (residual * patches).sum(dim=1)
        largest = self.violation(gradient).amax(dim=1)  # ‖Dᵀr‖∞, since the gradient is -Dᵀr
        scale = torch.minimum(alignment / energy.clamp_min(TINY), self.lam / largest.clamp_min(TINY)).clamp_min_(0)
        objective = 0.5 * energy + self.lam * codes.abs().sum(dim=1)
        dual = scale * alignment - 0.5 * scale.square() * energy
        gap = (objective - dual).clamp_min_(0)
        if self.nonnegative:
            # Negative codes may have a lower objective than the minimum over z ≥ 0: no gap may call them done.
            gap.masked_fill_((codes < 0).any(dim=1), torch.inf)
        return Point(gradient, objective, gap)
