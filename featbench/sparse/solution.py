"""What a solver found, patch by patch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Codes of n patches over m atoms, on the patches' device.

    codes [n, m], of the patches' dtype (float64 where the dictionary's is). objective [n], float64: ½‖y - Dz‖² + λ‖z‖₁.
    gap [n], float64: the duality gap; the objective is at most this far above its minimum. iterations [n], int64: how
    many the patch took until the solver saw that it was done, or gave up. converged [n], bool: the gap is at most
    `tolerance` times the objective. Objective and gap are those of the codes in float64, before they are rounded.
    """

    codes: Tensor
    objective: Tensor
    gap: Tensor
    iterations: Tensor
    converged: Tensor
