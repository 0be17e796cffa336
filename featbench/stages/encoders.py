"""What `F` stands for, as torch modules: a filter bank and the non-linearity that belongs to its learner."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.stages.connection_table import make_full_table
from featbench.stages.filters import Filters


class FilterBank(nn.Module):
    """Valid correlation with a bank of filters, plus a bias: y_j = b_j + Σ_i k_ij ∗ x_i.

    table [groups, fan_in]: the input maps that each of the equal groups of filters sees.
    """

    reentrant: ClassVar[bool] = True
    table: Tensor

    def __init__(self, filters: Filters, table: NDArray[np.int64]) -> None:
        super().__init__()
        self.weight = nn.Parameter(filters.weight.clone())
        self.bias = nn.Parameter(filters.bias.clone())
        self.groups = len(table)
        # Compared here, once: the buffer may lie on a GPU, and reading it there would wait for all that runs.
        self.in_order = np.array_equal(table, make_full_table(table.shape[1]))
        self.register_buffer("table", torch.from_numpy(table.copy()))

    def is_dense(self, maps: int) -> bool:
        """Whether every filter sees each of `maps` input maps in their order, so that no table is needed."""
        return self.in_order and self.table.shape[1] == maps

    def forward(self, x: Tensor) -> Tensor:
        """Filter x [n, maps, h, w] into [n, filters, h - size + 1, w - size + 1]."""
        # Maps are gathered group after group, and once for each group that sees them: a grouped convolution then reads
        # equal shares. It takes a quarter of the time of a dense one with zeros.
        seen = x if self.is_dense(x.shape[1]) else x[:, self.table.flatten()]
        return functional.conv2d(seen, self.weight, self.bias, groups=self.groups)


class TanhGain(nn.Module):
    """F_CSG's non-linearity: y_j = g_j tanh(x_j), one gain per map (Jarrett et al. 2009, eq. 1)."""

    reentrant: ClassVar[bool] = True

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(gain.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Apply tanh and the gain of each map to x [n, maps, ...]."""
        return torch.tanh(x) * view_per_map(self.gain, x)


class Shrinkage(nn.Module):
    """Soft threshold, y_j = sign(x_j) max(|x_j| - θ_j, 0), one θ per map (Gregor, LeCun 2010)."""

    reentrant: ClassVar[bool] = True

    def __init__(self, threshold: Tensor) -> None:
        super().__init__()
        self.threshold = nn.Parameter(threshold.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Shrink x [n, maps, ...] towards zero."""
        # With |x| - θ clamped at 0, and sign(0) = 0: zero stays zero even where training made θ negative.
        return x.sign() * functional.relu(x.abs() - view_per_map(self.threshold, x))


class SmoothShrinkage(nn.Module):
    """y = sign(x) (log(e^{βθ} + e^{β|x|} - 1)/β - θ), one β and one θ per map (Kavukcuoglu et al. 2010, eq. 5).

    A smooth soft threshold: it passes through 0, has a gradient everywhere, and tends to `Shrinkage` as β grows.
    """

    reentrant: ClassVar[bool] = True

    def __init__(self, threshold: Tensor, sharpness: Tensor) -> None:
        super().__init__()
        self.threshold = nn.Parameter(threshold.clone())
        self.sharpness = nn.Parameter(sharpness.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Shrink x [n, maps, ...] smoothly towards zero."""
        # Training may move θ or β below 0, where the logarithm's argument may be negative. Clamped, not taken absolute:
        # the gradient is then 0, and nothing pulls them further.
        threshold = view_per_map(self.threshold.clamp_min(0), x)
        sharpness = view_per_map(self.sharpness.clamp_min(1e-3), x)
        size = x.abs()
        # With a = βθ, b = β|x| and m the larger of both: log(e^a + e^b - 1) = m + log1p(e^{-|a-b|} - e^{-m}). No
        # exponent is positive, so that nothing overflows, and log1p keeps the digits of a small sum.
        larger = sharpness * torch.maximum(size, threshold)
        rest = torch.exp(-sharpness * (size - threshold).abs()) - torch.exp(-larger)
        return x.sign() * ((larger + torch.log1p(rest)) / sharpness - threshold)


def view_per_map(values: Tensor, x: Tensor) -> Tensor:
    """View values [maps] so that they broadcast over x [n, maps, ...]."""
    return values.view(-1, *(1,) * (x.ndim - 2))


NONLINEARITIES: dict[str, Callable[[Filters], nn.Module]] = {
    "tanh": lambda filters: TanhGain(filters.gain),
    "shrink": lambda filters: Shrinkage(filters.extras["threshold"]),
    "smooth-shrink": lambda filters: SmoothShrinkage(filters.extras["threshold"], filters.extras["sharpness"]),
}
"""Non-linearities of learned encoders; each finds its parameters, by their names, among the filters' tensors."""

Encoder = Callable[[Filters, NDArray[np.int64]], nn.Module]
"""Builds what `F` stands for from a learner's filters and the connection table [groups, fan_in]."""


def build_encoder(nonlinearity: str, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
    """Build a filter bank with bias and one of `NONLINEARITIES`."""
    return nn.Sequential(FilterBank(filters, table), NONLINEARITIES[nonlinearity](filters))


def build_tanh_encoder(filters: Filters, table: NDArray[np.int64]) -> nn.Module:
    """F_CSG: filter bank, bias, tanh, gain per map. What `F` means unless the learner says otherwise."""
    return build_encoder("tanh", filters, table)
