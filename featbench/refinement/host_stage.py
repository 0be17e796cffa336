"""A stage as it is trained on a CPU: filter bank, tanh with gain, R_abs, N and average pooling as one operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from featbench.operations.host import maps_last, tanh_convolution
from featbench.stages.architecture import PoolingSpec
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.normalization import LocalNormalisation

AT_ONCE = 2**20
"""Values of maps whose gradient is made and used at once, so that it stays in the cache."""


@dataclass(frozen=True)
class PooledResponse:
    """y = |g tanh(w ∗ x + b)| (with `rectified`), normalised by `norm` if there is one, and averaged as `spec` says.

    Called with maps x [n, maps, h, w] float32 it returns what the modules one after another return, and autograd
    follows it. The maps are gone over twice, and twice on the way back; only tanh is kept.
    """

    bank: FilterBank
    tanh: TanhGain
    rectified: bool
    norm: LocalNormalisation | None
    spec: PoolingSpec

    @property
    def side(self) -> int:
        """Pixels of a cell: windows and strides are made up of cells."""
        return gcd(self.spec.size, self.spec.stride)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the pooled maps."""
        arguments = x, self.bank.weight, self.bank.bias, self.tanh.gain
        cells, shift = _Response.apply(self, *arguments)  # type: ignore[no-untyped-call]
        window, stride = self.spec.size // self.side, self.spec.stride // self.side
        pooled = cells if window == stride == 1 else functional.avg_pool2d(cells, window, stride)
        if self.norm is None or not self.norm.subtractive:
            return pooled
        return pooled - functional.avg_pool2d(shift, self.spec.size, self.spec.stride)


class _Response(torch.autograd.Function):
    """Cells of y/s [n, maps, h', w'], and m/s [n, 1, h, w], for N's mean m and divisor s."""

    @staticmethod
    def forward(
        ctx: Any, response: PooledResponse, x: Tensor, weight: Tensor, bias: Tensor, gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        from featbench.refinement import host_passes

        bank = response.bank
        every = bank.sees_all(x.shape[1])
        seen = maps_last(x if every else x[:, bank.table.flatten()])
        t = tanh_convolution()(seen, maps_last(weight), bias, groups=bank.groups).permute(0, 2, 3, 1).contiguous()
        arguments = t.numpy(), gain.numpy(), response.rectified
        statistics = _Statistics(response.norm, t, lambda *out: host_passes.moments(*arguments, *out))
        side = response.side
        cells = t.new_empty(len(t), t.shape[1] // side, t.shape[2] // side, t.shape[3])
        host_passes.cells(*arguments, statistics.reciprocal.numpy(), side, cells.numpy())
        ctx.save_for_backward(seen, weight, gain, t)
        ctx.response, ctx.statistics, ctx.every, ctx.maps = response, statistics, every, x.shape[1]
        return cells.permute(0, 3, 1, 2), statistics.shift.unsqueeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from featbench.refinement import host_passes

        seen, weight, gain, t = ctx.saved_tensors
        response, statistics = ctx.response, ctx.statistics
        by_cells = grads[0].permute(0, 2, 3, 1).contiguous()
        arguments = gain.numpy(), response.rectified
        by_mean, by_square = statistics.backward(
            lambda out: host_passes.pull(t.numpy(), *arguments, by_cells.numpy(), response.side, out), grads[1][:, 0]
        )
        by_gain = np.zeros(len(gain))
        by_weight, by_bias, by_seen = torch.zeros_like(weight), torch.zeros_like(gain), []
        step = max(1, AT_ONCE // t[0].numel())
        for start in range(0, len(t), step):
            part = slice(start, start + step)
            by_sum = torch.empty_like(t[part])
            ours = by_cells[part].numpy(), response.side, by_mean[part].numpy(), by_square[part].numpy()
            host_passes.push(
                t[part].numpy(), *arguments, statistics.reciprocal[part].numpy(), *ours, by_sum.numpy(), by_gain
            )
            found = _back_through_bank(by_sum.permute(0, 3, 1, 2), seen[part], weight, response.bank.groups, ctx)
            by_seen.append(found[0])
            by_weight += found[1]
            by_bias += found[2]
        by_x = None
        if ctx.needs_input_grad[1]:
            by_x = torch.cat(by_seen)
            if not ctx.every:
                spread = by_x.new_zeros(len(by_x), ctx.maps, *by_x.shape[2:])
                by_x = spread.index_add_(1, response.bank.table.flatten(), by_x)
        return None, by_x, by_weight, by_bias, torch.from_numpy(by_gain).to(gain.dtype)


def _back_through_bank(
    grad: Tensor, seen: Tensor, weight: Tensor, groups: int, ctx: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by maps, weight and bias of a valid correlation."""
    wanted = [ctx.needs_input_grad[1], True, True]
    places = [1, 1], [0, 0], [1, 1], False, [0, 0]
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, seen, maps_last(weight), [len(weight)], *places, groups, wanted
    )
    return found


class _Statistics:
    """What N subtracts and divides by at each pixel of maps t [n, h, w, K], and the way back to their moments."""

    def __init__(self, norm: LocalNormalisation | None, t: Tensor, moments: Callable[..., None]) -> None:
        from featbench.refinement import host_statistics

        self.norm = norm
        places = t.shape[:3]
        self.reciprocal, self.shift = t.new_ones(places), t.new_zeros(places)
        if norm is None:
            return
        self.moments = t.new_empty(places).numpy(), t.new_empty(places).numpy()
        moments(*self.moments)
        taps = np.array(norm.taps, dtype=np.float32)
        halves = norm.subtractive, norm.divisive
        self.window = taps, norm.weight(t.new_empty(1, 1, *places[1:]))[0, 0].numpy(), halves
        m, u, d = (np.empty(places, dtype=np.float32) for _ in range(3))
        self.found = m, u, d, self.reciprocal.numpy()
        host_statistics.forward(*self.moments, *self.window, *self.found)
        self.shift = torch.from_numpy(m) * self.reciprocal

    def backward(self, pull: Callable[..., None], by_shift: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients [n, h, w] by mean and mean square; `pull` fills that by the reciprocal."""
        from featbench.refinement import host_statistics

        by_mean, by_square = torch.zeros_like(self.reciprocal), torch.zeros_like(self.reciprocal)
        if self.norm is not None:
            by_reciprocal = np.empty_like(self.moments[0])
            pull(by_reciprocal)
            given = by_reciprocal, by_shift.contiguous().numpy()
            host_statistics.backward(
                *self.moments, *self.window, *self.found, *given, by_mean.numpy(), by_square.numpy()
            )
        return by_mean, by_square
