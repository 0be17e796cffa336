"""What each operation of extraction means, in plain torch.

Tests hold the fast implementations to it, on a CPU and on a GPU, and autograd follows it where gradients are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from featbench.operations.precision import HALF_DTYPES, Precision, check_precision, round_to_tf32
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.oriented_gradients import Histograms
from featbench.stages.pooling import Pooling
from featbench.stages.specs import PoolingSpec


@dataclass(frozen=True)
class BankWeights:
    """A filter bank with its non-linearity: y_j = g_j tanh(b_j + Σ_i k_ij ∗ x_i), or |y_j| if `rectified`.

    weight k [filters, fan_in, size, size]; bias b [filters]; gain g [filters], or None for the bare convolution without
    tanh. table [groups, fan_in] names the maps that each of the equal groups of filters sees; None: all see all.
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

    own: nobody else holds y, so that the next operation may overwrite it.
    """

    y: Tensor
    mean: Tensor | None = None
    mean_square: Tensor | None = None
    own: bool = False


class Reference:
    """The operations in plain torch, on any device and in the type of their inputs.

    precision: see `Precision`. Operands of products are rounded in software, so that the error of a precision can be
    measured on any device.
    """

    name = "plain torch"

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision = check_precision(precision)

    def filter_bank(self, x: Tensor, bank: BankWeights, *, moments: bool = False) -> Responses:
        """Filter maps by valid correlation, then tanh with gain and absolute value if the bank says so.

        y_k = |g_k tanh(Σ_c x_c ⋆ w_kc + b_k)|.

        Parameters
        ----------
        x : Tensor
            Maps [n, maps, h, w].
        bank : BankWeights
            Weights, biases, connection table and gains of the filters.
        moments : bool, default False
            Add the mean and the mean square of y over maps, which N needs.

        Returns
        -------
        Responses
            Maps [n, filters, h - size + 1, w - size + 1].
        """
        # Each group's maps side by side, repeated where several groups see them: what a grouped convolution expects.
        groups = 1 if bank.table is None else len(bank.table)
        seen = x if bank.table is None else x[:, bank.table.flatten()]
        y = functional.conv2d(self._round_operand(seen), self._round_operand(bank.weight), bank.bias, groups=groups)
        if bank.gain is not None:
            y = torch.tanh(y) * bank.gain.view(-1, 1, 1)
        y = y.abs() if bank.rectified else y
        kept = y.to(HALF_DTYPES[self.precision]) if self.precision in HALF_DTYPES else y
        # Moments are those of y before it is rounded to 16 bits: kernels sum it while it is still in registers.
        if not moments:
            return Responses(kept, own=True)
        return Responses(kept, y.mean(dim=1, keepdim=True), y.square().mean(dim=1, keepdim=True), own=True)

    def statistics(self, responses: Responses, norm: LocalNormalisation) -> tuple[Tensor | None, Tensor | None]:
        """Return what N subtracts and what it divides by; see `LocalNormalisation`.

        One map of each serves all maps of an image, since the window of N sums over all of them.

        Parameters
        ----------
        responses : Responses
            Maps y [n, maps, h, w], with their moments over maps if these are known.
        norm : LocalNormalisation
            The N of the stage.

        Returns
        -------
        tuple of (Tensor or None, Tensor or None)
            [n, 1, h, w] each; None where N does not subtract, or does not divide.
        """
        mean, square = responses.mean, responses.mean_square
        if mean is None or square is None:
            # N is the first operation, or follows a module that knows nothing of moments.
            y = _to_float32(responses.y)
            mean, square = y.mean(dim=1, keepdim=True), y.square().mean(dim=1, keepdim=True)
        return norm.statistics(mean, square)

    def normalise_and_pool(
        self, responses: Responses, shift: Tensor | None, scale: Tensor | None, spec: PoolingSpec
    ) -> Tensor:
        """Pool (y - shift) / scale.

        Parameters
        ----------
        responses : Responses
            Maps y [n, maps, h, w], with their moments over maps if these are known.
        shift, scale : Tensor or None
            [n, 1, h, w] each. None: 0 and 1.
        spec : PoolingSpec
            Kind, window and step of the pooling.

        Returns
        -------
        Tensor
            Pooled maps [n, maps, rows, columns].
        """
        pooled: Tensor = Pooling(spec)(self.normalise(responses, shift, scale))
        return pooled

    def normalise(self, responses: Responses, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """Return (y - shift) / scale.

        Parameters
        ----------
        responses : Responses
            Maps y [n, maps, h, w], with their moments over maps if these are known.
        shift, scale : Tensor or None
            [n, 1, h, w] each. None: 0 and 1.

        Returns
        -------
        Tensor
            Maps [n, maps, h, w].
        """
        y = _to_float32(responses.y)
        y = y if shift is None else y - shift
        return y if scale is None else y / scale

    def descriptors(self, images: Tensor, kind: Histograms, size: int, step: int) -> Tensor:
        """Return dense histograms of gradients, not normalised; see `Histograms`.

        Parameters
        ----------
        images : Tensor
            Grey images [n, h, w].
        kind : Histograms
            What a descriptor holds.
        size : int
            Side of a patch in pixels.
        step : int
            Pixels between patches, whose grid is centred in the image.

        Returns
        -------
        Tensor
            [n, rows, columns, kind.length].
        """
        # Rows before images, so that pooling over a patch's rows is a matrix product on a view, without copies.
        return kind.pool(kind.compute_oriented_gradients(images.transpose(0, 1).contiguous()), size, step)

    def sparse_step(self, codes: Tensor, mixing: Tensor, drive: Tensor, threshold: Tensor) -> Tensor:
        """Return h_θ(b + z S), with h_θ(x) = sign(x) max(|x| - θ, 0).

        A step of LISTA, and with S = I - DᵀD/L, b = Dᵀy/L, θ = λ/L one of ISTA.

        Parameters
        ----------
        codes : Tensor
            z [r, groups, m].
        mixing : Tensor
            S [groups, m, m].
        drive : Tensor
            b [r, groups, m].
        threshold : Tensor
            θ [groups, m].

        Returns
        -------
        Tensor
            [r, groups, m].
        """
        # r rows, g groups, m units: every group mixes its own units only.
        moved = drive + torch.einsum("rgm,gmk->rgk", codes, mixing)
        return moved.sign() * (moved.abs() - threshold).clamp_min(0)

    def momentum_step(
        self, moved: Tensor, codes: Tensor, extrapolated: Tensor, momentum: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return FISTA's next point and momentum.

        With z the moved point, z_old the codes before it and x the point it was moved from:
        t' = (1 + sqrt(1 + 4t²))/2, x' = z + (t - 1)/t' (z - z_old). A row whose momentum points uphill,
        (x - z)ᵀ(z - z_old) > 0, restarts with t = 1.

        Parameters
        ----------
        moved : Tensor
            z [n, m], after a proximal step from `extrapolated`.
        codes : Tensor
            z_old [n, m].
        extrapolated : Tensor
            x [n, m].
        momentum : Tensor
            t [n, 1].

        Returns
        -------
        tuple of (Tensor, Tensor)
            x' [n, m] and t' [n, 1].

        References
        ----------
        O'Donoghue, Candès 2015, gradient scheme.
        """
        change = moved - codes
        uphill = ((extrapolated - moved) * change).sum(dim=1, keepdim=True) > 0
        # t = 1 makes (t - 1)/t' zero: this step has no momentum, and it grows again from here.
        before = momentum.masked_fill(uphill, 1.0)
        following = (1 + (1 + 4 * before.square()).sqrt()) / 2
        return torch.addcmul(moved, change, (before - 1) / following), following

    def coordinate_steps(
        self, codes: Tensor, targets: Tensor, coupling: Tensor, lam: float, steps: int, *, nonnegative: bool = False
    ) -> None:
        """Take steps of greedy coordinate descent in place.

        In each row the coefficient k with the largest ‖d_k‖ |z̄_k - z_k| moves to its minimum z̄_k = h_λ(B_k)/‖d_k‖²;
        half the square of that bounds from below how far the objective falls. The first k wins a tie. An atom of norm 0
        keeps its coefficient.

        Parameters
        ----------
        codes : Tensor
            z [n, m], changed in place.
        targets : Tensor
            B = Dᵀy - (DᵀD - diag) z, [n, m], changed in place.
        coupling : Tensor
            DᵀD [m, m].
        lam : float
            λ.
        steps : int
            Coefficients that move in each row.
        nonnegative : bool, default False
            z ≥ 0.

        References
        ----------
        Li, Osher 2009.
        """
        norms = coupling.diagonal().sqrt()
        # An infinite square makes z̄ zero instead of 0/0; `change` masks such atoms anyway.
        squares = torch.where(norms > 0, norms.square(), torch.inf)
        between = coupling - torch.diag(coupling.diagonal())
        for _ in range(steps):
            shrunk = (targets - lam).clamp_min(0) if nonnegative else functional.softshrink(targets, lam)
            change = torch.where(norms > 0, shrunk / squares - codes, 0)
            chosen = (change.abs() * norms).argmax(dim=1, keepdim=True)
            moves = change.gather(1, chosen)
            # Moving z_k by δ changes every other target by -⟨d_j, d_k⟩ δ, and not its own: B_k leaves z_k out.
            codes.scatter_add_(1, chosen, moves)
            targets.addcmul_(between[chosen[:, 0]], moves, value=-1)

    def _round_operand(self, x: Tensor) -> Tensor:
        """Return x rounded to the bits that the hardware would multiply, in the type of x."""
        if self.precision in HALF_DTYPES:
            return x.to(HALF_DTYPES[self.precision]).to(x.dtype)
        return round_to_tf32(x) if self.precision == "tf32" else x


def is_tracked_by_autograd(*tensors: Tensor | None) -> bool:
    """Whether autograd records what is computed from these tensors: nothing may then be overwritten in place."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _to_float32(y: Tensor) -> Tensor:
    """Return maps kept in 16 bits as float32, others unchanged: float64 stays, for tests."""
    return y.float() if y.dtype in HALF_DTYPES.values() else y
