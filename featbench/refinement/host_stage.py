"""A stage as it is trained on a CPU: filter bank, tanh with gain, R_abs, N and average pooling as one operation.

As modules under autograd, each of these steps reads and writes all maps of the filter bank, and most of them keep a
copy for the way back. One operation with a backward pass of its own keeps t = tanh(w ∗ x + b) alone: y = |g t| costs
less to compute again than to read from memory. N needs only the mean and the mean square of the maps at each pixel, and
average pooling only sums over cells, so that no normalised copy is ever made (docs/design.md has the algebra).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from featbench.operations.host import find_tanh_convolution, to_channels_last
from featbench.refinement.host_arrays import Array, LocalStatistics, Moments, TanhMaps, Window
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.specs import PoolingSpec

BACKWARD_VALUES = 2**20
"""Values of the maps whose gradient is computed and used up at once: 4 MB, which stay in a CPU's cache."""


@dataclass(frozen=True)
class PooledResponse:
    """y = |g tanh(w ∗ x + b)| (with `rectified`), normalised by `norm` if there is one, and averaged as `spec` says.

    Called with maps x [n, maps, h, w] float32 it returns what the modules one after another return, and autograd
    follows it. The maps of the filter bank are read twice, and twice on the way back.
    """

    bank: FilterBank
    tanh: TanhGain
    rectified: bool
    norm: LocalNormalisation | None
    spec: PoolingSpec

    @property
    def side(self) -> int:
        """Pixels along a side of a cell: windows and strides of pooling are made up of whole cells."""
        return gcd(self.spec.size, self.spec.stride)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the pooled maps."""
        arguments = x, self.bank.weight, self.bank.bias, self.tanh.gain
        cells, shift = _CellAverages.apply(self, *arguments)  # type: ignore[no-untyped-call]
        # Averages over 10×10 every 5 are averages over 2×2 of cells of 5×5, which are 25 times fewer than pixels.
        window, stride = self.spec.size // self.side, self.spec.stride // self.side
        pooled = cells if window == stride == 1 else functional.avg_pool2d(cells, window, stride)
        if self.norm is None or not self.norm.subtractive:
            return pooled
        # Pooling is linear: the average of (y - m)/s is that of y/s less that of m/s, which is one map for all K.
        return pooled - functional.avg_pool2d(shift, self.spec.size, self.spec.stride)


class _SavedTensors(NamedTuple):
    """What the way back needs: the maps that the filters see, the weights, the gain, and t [n, h, w, K]."""

    seen: Tensor
    weight: Tensor
    gain: Tensor
    tanh: Tensor


class _BankGradients(NamedTuple):
    """The gradients of a filter bank; that by the maps it sees is None if nobody asks for it."""

    by_seen: Tensor | None
    by_weight: Tensor
    by_bias: Tensor


class _Geometry(NamedTuple):
    """How a convolution slides over its input, in the order in which torch's operation wants it."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]


VALID = _Geometry(stride=[1, 1], padding=[0, 0], dilation=[1, 1], transposed=False, output_padding=[0, 0])
"""A valid correlation: filters never reach beyond the border."""


class _CellAverages(torch.autograd.Function):
    """Cells of y/s [n, K, h', w'], and the shift m/s [n, 1, h, w], for N's mean m and divisor s."""

    @staticmethod
    def forward(
        ctx: Any, response: PooledResponse, x: Tensor, weight: Tensor, bias: Tensor, gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Imported here: the compiler is loaded by those alone who train.
        from featbench.refinement import host_passes

        bank, side = response.bank, response.side
        dense = bank.is_dense(x.shape[1])
        seen = to_channels_last(x if dense else x[:, bank.table.flatten()])
        convolve = find_tanh_convolution()
        # With maps last in memory, the permuted view is contiguous as the loops need it, and nothing is copied.
        t = convolve(seen, to_channels_last(weight), bias, groups=bank.groups).permute(0, 2, 3, 1).contiguous()
        maps = TanhMaps(t.numpy(), gain.numpy(), response.rectified)
        normalisation = _Normalisation(response.norm, maps)
        cells = t.new_empty(len(t), t.shape[1] // side, t.shape[2] // side, t.shape[3])
        host_passes.average_cells(maps, normalisation.reciprocal, side, cells.numpy())
        ctx.save_for_backward(*_SavedTensors(seen, weight, gain, t))
        ctx.response, ctx.normalisation, ctx.dense, ctx.input_maps = response, normalisation, dense, x.shape[1]
        return cells.permute(0, 3, 1, 2), normalisation.compute_shift().unsqueeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from featbench.refinement import host_passes

        saved, response, normalisation = _SavedTensors(*ctx.saved_tensors), ctx.response, ctx.normalisation
        t, gain, side = saved.tanh, saved.gain, response.side
        _, wants_x, *_ = ctx.needs_input_grad
        by_cells, by_shift = grads[0].permute(0, 2, 3, 1).contiguous().numpy(), grads[1][:, 0].contiguous().numpy()
        maps = TanhMaps(t.numpy(), gain.numpy(), response.rectified)
        by_moments = normalisation.backpropagate(maps, by_cells, by_shift, side)
        by_gain = np.zeros(len(gain))  # float64, since it sums over all pixels of all images
        by_weight, by_bias = torch.zeros_like(saved.weight), torch.zeros_like(gain)
        by_seen: list[Tensor] = []
        # A few images at a time: the gradient by tanh's argument is as large as t, and is read by the convolution while
        # it is still in the cache.
        step = max(1, BACKWARD_VALUES // t[0].numel())
        for start in range(0, len(t), step):
            part = slice(start, start + step)
            by_argument = torch.empty_like(t[part])
            host_passes.backpropagate_to_tanh_argument(
                maps._replace(values=maps.values[part]),
                normalisation.reciprocal[part],
                by_cells[part],
                side,
                Moments(by_moments.mean[part], by_moments.mean_square[part]),
                by_argument.numpy(),
                by_gain,
            )
            found = _backpropagate_bank(by_argument, saved.seen[part], saved.weight, response.bank.groups, wants_x)
            if found.by_seen is not None:
                by_seen.append(found.by_seen)
            by_weight += found.by_weight
            by_bias += found.by_bias
        by_x = _gather_by_input(by_seen, response.bank, ctx.dense, ctx.input_maps) if wants_x else None
        return None, by_x, by_weight, by_bias, torch.from_numpy(by_gain).to(gain.dtype)


def _backpropagate_bank(
    by_output: Tensor, seen: Tensor, weight: Tensor, groups: int, wants_seen: bool
) -> _BankGradients:
    """Return the gradients of a valid correlation, given that by its output [n, h, w, K], maps last."""
    arguments = by_output.permute(0, 3, 1, 2), seen, to_channels_last(weight), [len(weight)]
    wanted = [wants_seen, True, True]
    return _BankGradients(*torch.ops.aten.convolution_backward(*arguments, *VALID, groups, wanted))


def _gather_by_input(by_seen: list[Tensor], bank: FilterBank, dense: bool, maps: int) -> Tensor:
    """Return the gradient by the input [n, maps, h, w], given that by the maps which the connection table picks."""
    joined = torch.cat(by_seen)
    if dense:
        return joined
    # Several groups may see the same map: what comes back through each of them is added up.
    return joined.new_zeros(len(joined), maps, *joined.shape[2:]).index_add_(1, bank.table.flatten(), joined)


class _Normalisation:
    """What N subtracts and divides by at each pixel of maps [n, h, w, K], and the way back to their moments.

    reciprocal: [n, h, w], of the divisor; 1 without `norm`.
    """

    def __init__(self, norm: LocalNormalisation | None, maps: TanhMaps) -> None:
        from featbench.refinement import host_passes, host_statistics

        self.norm = norm
        positions = maps.values.shape[:3]
        self.reciprocal = np.ones(positions, dtype=np.float32)
        if norm is None:
            return
        self.moments = Moments(_empty(positions), _empty(positions))
        host_passes.compute_moments(maps, self.moments)
        weight = norm.border_weight(torch.empty(1, 1, *positions[1:], dtype=torch.float32))[0, 0].numpy()
        self.window = Window(np.array(norm.taps, dtype=np.float32), weight, norm.subtractive, norm.divisive)
        self.found = LocalStatistics(_empty(positions), _empty(positions), _empty(positions), self.reciprocal)
        host_statistics.compute_statistics(self.moments, self.window, self.found)

    def compute_shift(self) -> Tensor:
        """Return m/s [n, h, w], which pooling subtracts; 0 where N does not subtract."""
        if self.norm is None:
            return torch.zeros(self.reciprocal.shape, dtype=torch.float32)
        return torch.from_numpy(self.found.mean * self.reciprocal)

    def backpropagate(self, maps: TanhMaps, by_cells: Array, by_shift: Array, side: int) -> Moments:
        """Return the gradients by the moments, given those by the cells [n, h', w', K] and by the shift [n, h, w]."""
        from featbench.refinement import host_passes, host_statistics

        by_moments = Moments(np.zeros_like(self.reciprocal), np.zeros_like(self.reciprocal))
        if self.norm is not None:
            by_reciprocal = np.empty_like(self.reciprocal)
            host_passes.backpropagate_to_reciprocal(maps, by_cells, side, by_reciprocal)
            host_statistics.backpropagate_statistics(
                self.moments, self.window, self.found, by_reciprocal, by_shift, by_moments
            )
        return by_moments


def _empty(shape: tuple[int, ...]) -> Array:
    return np.empty(shape, dtype=np.float32)
