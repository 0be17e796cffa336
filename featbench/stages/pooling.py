"""Pooling over space or over neighbouring maps: average, maximum, L_p and log-sum-exp."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.stages.specs import PoolingSpec


class Pooling(nn.Module):
    """Pool whole windows of `size` every `stride`; weights are uniform and sum to 1.

    P_A: mean x.  P_M: max x.  P_L: (mean |x|^p)^(1/p).  P_X: (1/β) log mean exp(β x).
    Average and maximum are those of Jarrett et al. 2009. L_p and log-sum-exp lie between them: they tend to the average
    for p = 1 and β → 0, to the maximum as p and β grow (Boureau et al. 2010).

    Input [n, maps, height, width]; over space the last two shrink, over maps the first.
    """

    reentrant: ClassVar[bool] = True

    def __init__(self, spec: PoolingSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """Pool x."""
        if not self.spec.over_maps:
            return self._pool(x, (self.spec.size, self.spec.size), (self.spec.stride, self.spec.stride))
        # Maps become rows of an image with the pixels as columns: pooling over maps is pooling over its rows.
        n, maps, height, width = x.shape
        columns = x.reshape(n, 1, maps, height * width)
        pooled = self._pool(columns, (self.spec.size, 1), (self.spec.stride, 1))
        return pooled.reshape(n, pooled.shape[2], height, width)

    def _pool(self, x: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
        if self.spec.kind == "A":
            return functional.avg_pool2d(x, window, stride)
        if self.spec.kind == "M":
            return functional.max_pool2d(x, window, stride)
        assert self.spec.parameter is not None  # the parser demands it for L and X
        # A view of all windows, overlapping ones too: [n, maps, rows, columns, height, width], no copy.
        windows = x.unfold(2, window[0], stride[0]).unfold(3, window[1], stride[1])
        if self.spec.kind == "L":
            return _power_mean(windows.abs(), self.spec.parameter)
        return _log_mean_exp(windows, self.spec.parameter)


def _power_mean(windows: Tensor, power: float) -> Tensor:
    """Return (mean x^p)^(1/p) of windows [..., height, width] that are nowhere negative."""
    tiny = torch.finfo(windows.dtype).tiny
    # (mean x^p)^(1/p) = peak (mean (x/peak)^p)^(1/p). Scaled by the window's peak, a high power neither overflows nor
    # vanishes. Detached, since the result does not depend on it: its gradient would cancel out.
    peak = windows.detach().amax(dim=(-2, -1), keepdim=True).clamp_min(tiny)
    mean = (windows / peak).pow(power).mean(dim=(-2, -1))
    # The root's gradient is infinite at 0. The floor keeps it finite, and the mask makes the result 0 again.
    return peak[..., 0, 0] * mean.clamp_min(tiny).pow(1 / power) * (mean > 0)


def _log_mean_exp(windows: Tensor, sharpness: float) -> Tensor:
    """Return (1/β) log mean exp(β x) of windows [..., height, width]."""
    # (1/β) log mean exp(β x) = peak + (1/β) log mean exp(β (x - peak)): no exponent is positive, nothing overflows.
    peak = windows.detach().amax(dim=(-2, -1), keepdim=True)
    # For a small β all exponentials are nearly 1, and the logarithm of their mean, nearly 0, is divided by β: expm1 and
    # log1p keep the digits in which they differ from 1.
    excess = torch.expm1(sharpness * (windows - peak)).mean(dim=(-2, -1))
    return peak[..., 0, 0] + torch.log1p(excess) / sharpness
