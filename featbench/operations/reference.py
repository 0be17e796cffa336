"""What each operation of extraction means, in plain torch: what fast paths are held to, and what autograd follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from featbench.operations.precision import HALF_DTYPES, Precision, check_precision, round_to_tf32
from featbench.stages.architecture import PoolingSpec
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.oriented_gradients import Histograms
from featbench.stages.pooling import Pooling


@dataclass(frozen=True)
class BankWeights:
    """A filter bank with its non-linearity: y_j = g_j tanh(b_j + Σ_i k_ij ∗ x_i), its absolute value if `rectified`.

    weight [filters, fan_in, size, size]; bias [filters]; table [groups, fan_in] or None: the maps that each of equal
    groups of filters sees, or all; gain [filters], or None for the bare convolution.
    """

    weight: Tensor
    bias: Tensor
    table: Tensor | None = None
    gain: Tensor | None = None
    rectified: bool = False

    @property
    def trainable(self) -> tuple[Tensor | None, ...]:
        """The tensors that may have gradients."""
        return self.weight, self.bias, self.gain


@dataclass(frozen=True)
class Responses:
    """Maps y [n, maps, height, width], with their mean and mean square over maps [n, 1, height, width] if known.

    own: nobody else holds y, so that what comes next may overwrite it.
    """

    y: Tensor
    mean: Tensor | None = None
    mean_square: Tensor | None = None
    own: bool = False


class Reference:
    """The operations in plain torch, on any device and in the type of what comes in.

    precision: see `Precision`; products are rounded as that says, so that its error can be seen on any device.
    """

    name = "plain torch"

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision = check_precision(precision)

    def filter_bank(self, x: Tensor, bank: BankWeights, *, moments: bool = False) -> Responses:
        """Filter x [n, maps, h, w] (valid correlation); with `moments`, give mean and mean square over maps as well."""
        groups = 1 if bank.table is None else len(bank.table)
        seen = x if bank.table is None else x[:, bank.table.flatten()]
        y = functional.conv2d(self._rounded(seen), self._rounded(bank.weight), bank.bias, groups=groups)
        if bank.gain is not None:
            y = torch.tanh(y) * bank.gain.view(-1, 1, 1)
        y = y.abs() if bank.rectified else y
        kept = y.to(HALF_DTYPES[self.precision]) if self.precision in HALF_DTYPES else y
        if not moments:
            return Responses(kept, own=True)
        return Responses(kept, y.mean(dim=1, keepdim=True), y.square().mean(dim=1, keepdim=True), own=True)

    def statistics(self, responses: Responses, norm: LocalNormalisation) -> tuple[Tensor | None, Tensor | None]:
        """Return what N subtracts and what it divides by, [n, 1, h, w] each, or None; see `LocalNormalisation`."""
        mean, square = responses.mean, responses.mean_square
        if mean is None or square is None:
            y = _to_float32(responses.y)
            mean, square = y.mean(dim=1, keepdim=True), y.square().mean(dim=1, keepdim=True)
        return norm.statistics(mean, square)

    def normalise_and_pool(
        self, responses: Responses, shift: Tensor | None, scale: Tensor | None, spec: PoolingSpec
    ) -> Tensor:
        """Pool (y - shift) / scale as `spec` says; shift, scale [n, 1, h, w], None for 0 and 1."""
        pooled: Tensor = Pooling(spec)(self.normalise(responses, shift, scale))
        return pooled

    def normalise(self, responses: Responses, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """Return (y - shift) / scale; shift, scale [n, 1, h, w], None for 0 and 1."""
        y = _to_float32(responses.y)
        y = y if shift is None else y - shift
        return y if scale is None else y / scale

    def descriptors(self, images: Tensor, kind: Histograms, size: int, step: int) -> Tensor:
        """Return dense histograms of gradients [n, rows, columns, kind.length] of images [n, h, w], not normalised.

        Patches of `size` pixels every `step` pixels, in the middle of the image; see `Histograms`.
        """
        return kind.pool(kind.compute_oriented_gradients(images.transpose(0, 1).contiguous()), size, step)

    def sparse_step(self, codes: Tensor, mixing: Tensor, drive: Tensor, threshold: Tensor) -> Tensor:
        """Return h_θ(b + z S) for codes z and drive b [r, groups, m], mixing S [groups, m, m], threshold θ [groups, m].

        h_θ(x) = sign(x) max(|x| - θ, 0): a step of LISTA, and with S = I - DᵀD/L, b = Dᵀy/L, θ = λ/L one of ISTA.
        """
        moved = drive + torch.einsum("rgm,gmk->rgk", codes, mixing)
        return moved.sign() * (moved.abs() - threshold).clamp_min(0)

    def momentum_step(
        self, moved: Tensor, codes: Tensor, extrapolated: Tensor, momentum: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return FISTA's next point and momentum, [n, m] and [n, 1], after proximal steps `moved` from `extrapolated`.

        With codes z_old: t' = (1 + sqrt(1 + 4t²))/2, x' = z + (t - 1)/t' (z - z_old); a row whose momentum points
        uphill, (x - z)ᵀ(z - z_old) > 0, begins anew with t = 1. Source: O'Donoghue, Candès 2015, gradient scheme.
        """
        change = moved - codes
        uphill = ((extrapolated - moved) * change).sum(dim=1, keepdim=True) > 0
        before = momentum.masked_fill(uphill, 1.0)
        following = (1 + (1 + 4 * before.square()).sqrt()) / 2
        return torch.addcmul(moved, change, (before - 1) / following), following

    def coordinate_steps(
        self, codes: Tensor, targets: Tensor, coupling: Tensor, lam: float, steps: int, *, nonnegative: bool = False
    ) -> None:
        """Take steps of greedy coordinate descent in place: codes z and targets B = Dᵀy - (DᵀD - diag) z, [n, m].

        Of each row the coefficient k that gains most, with the largest ‖d_k‖ |z̄_k - z_k|, z̄_k = h_λ(B_k)/‖d_k‖²,
        moves to z̄_k; the first wins a tie. coupling: DᵀD [m, m]; an atom of norm 0 keeps its coefficient.
        Source: Li, Osher 2009.
        """
        norms = coupling.diagonal().sqrt()
        squares = torch.where(norms > 0, norms.square(), torch.inf)
        between = coupling - torch.diag(coupling.diagonal())
        for _ in range(steps):
            shrunk = (targets - lam).clamp_min(0) if nonnegative else functional.softshrink(targets, lam)
            change = torch.where(norms > 0, shrunk / squares - codes, 0)
            chosen = (change.abs() * norms).argmax(dim=1, keepdim=True)
            moves = change.gather(1, chosen)
            codes.scatter_add_(1, chosen, moves)
            targets.addcmul_(between[chosen[:, 0]], moves, value=-1)

    def _rounded(self, x: Tensor) -> Tensor:
        if self.precision in HALF_DTYPES:
            return x.to(HALF_DTYPES[self.precision]).to(x.dtype)
        return round_to_tf32(x) if self.precision == "tf32" else x


def is_tracked_by_autograd(*tensors: Tensor | None) -> bool:
    """Whether autograd follows what is computed from these."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _to_float32(y: Tensor) -> Tensor:
    """Return maps kept in 16 bits as float32, others as they are."""
    return y.float() if y.dtype in HALF_DTYPES.values() else y
