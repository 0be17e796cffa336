"""What a solver found, patch by patch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Codes of n patches over m atoms, and how good they are, on the patches' device.

    Attributes
    ----------
    codes : torch.Tensor
        Codes z, [n, m], of the patches' dtype (float64 where the dictionary's is); float32 from `active_descent`.
    objective : torch.Tensor
        ½‖y - Dz‖² + λ‖z‖₁ of each patch, [n], float64.
    gap : torch.Tensor
        The duality gap of each patch, [n], float64: the objective is at most this far above its minimum.
    iterations : torch.Tensor
        Iterations that each patch took until the solver saw that it was done, or gave up, [n], int64.
    converged : torch.Tensor
        Whether the gap is at most `tolerance` times the objective, [n], bool.

    Notes
    -----
    Objective and gap are those of the codes in float64, before they are rounded to the dtype of `codes`.
    """

    codes: Tensor
    objective: Tensor
    gap: Tensor
    iterations: Tensor
    converged: Tensor
