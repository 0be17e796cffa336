"""Steps of proximal gradient in Gram form, for a batch of codes at once; solvers and learners are built from them.

With G = DᵀD and c = Dᵀy the smooth part of the energy is ½ zᵀGz - cᵀz, and its gradient zG - c for codes in rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Proximal = Callable[[Tensor, float], Tensor]
"""A proximal operator: takes codes [n, m] and a step s to the minimiser over z of ½‖z - codes‖² + s penalty(z)."""


def compute_largest_eigenvalue(gram: Tensor) -> float:
    """Return the largest eigenvalue of a Gram matrix [m, m]: the Lipschitz constant of the smooth part's gradient."""
    # In double: a value that rounding makes too small would make steps of 1/L too long to be stable.
    return float(torch.linalg.eigvalsh(gram.double())[-1])


def make_soft_threshold(lam: float) -> Proximal:
    """Return the proximal operator of λ‖z‖₁."""
    return lambda codes, step: functional.softshrink(codes, step * lam)


def take_fista_steps(
    gram: Tensor, correlations: Tensor, start: Tensor, proximal: Proximal, iterations: int, lipschitz: float
) -> Tensor:
    """Take `iterations` steps of FISTA (Beck, Teboulle 2009) from `start` [n, m]; returns codes [n, m].

    z_k = prox(x_k - ∇f(x_k)/L), x_{k+1} = z_k + (t_k - 1)/t_{k+1} (z_k - z_{k-1}), t_{k+1} = (1 + √(1 + 4 t_k²))/2.
    gram [m, m]; correlations [n, m]; lipschitz: L, at least the largest eigenvalue of `gram`.
    """
    step = 1 / lipschitz
    # One product a step, and no temporary: z - step (zG - c) = z (I - step G) + step c.
    linear = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - step * gram
    constant = step * correlations
    codes = extrapolated = start
    momentum = 1.0
    for _ in range(iterations):
        moved = proximal(torch.addmm(constant, extrapolated, linear), step)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        # lerp(a, b, 1 + w) = b + w (b - a), in one pass.
        extrapolated = torch.lerp(codes, moved, 1 + (momentum - 1) / following)
        codes, momentum = moved, following
    return codes
