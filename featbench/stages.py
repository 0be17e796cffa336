"""The operations of a stage as differentiable torch modules, and the stage that chains them.

Every operation maps [n, maps, height, width] to the same with other sizes (DESIGN: docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.architecture import NormalisationSpec, OperationSpec, PointwiseSpec, PoolingSpec, StageSpec
from featbench.connections import full_table
from featbench.filters import Filters
from featbench.normalization import LocalNormalisation
from featbench.pooling import Pooling

SHRINKAGE = 0.5
"""Threshold that `shrink` starts from in every map."""


class FilterBank(nn.Module):
    """Valid correlation with a bank of filters, plus a bias: y_j = b_j + Σ_i k_ij ∗ x_i.

    `table` [groups, fan_in] names the maps that each of the equal groups of filters sees.
    """

    table: Tensor

    def __init__(self, filters: Filters, table: NDArray[np.int64]) -> None:
        super().__init__()
        self.weight = nn.Parameter(filters.weight.clone())
        self.bias = nn.Parameter(filters.bias.clone())
        self.groups = len(table)
        self.in_order = np.array_equal(table, full_table(table.shape[1]))
        self.register_buffer("table", torch.from_numpy(table.copy()))

    def forward(self, x: Tensor) -> Tensor:
        """Filter x [n, maps, h, w] into [n, filters, h - size + 1, w - size + 1]."""
        full = self.in_order and self.table.shape[1] == x.shape[1]
        seen = x if full else x[:, self.table.flatten()]
        return functional.conv2d(seen, self.weight, self.bias, groups=self.groups)


class TanhGain(nn.Module):
    """F_CSG's non-linearity: y_j = g_j tanh(x_j), one gain per map (Jarrett et al. 2009, eq. 1)."""

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(gain.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Apply tanh and the gain of each map."""
        return torch.tanh(x) * self.gain.view(1, -1, 1, 1)


class Rectification(nn.Module):
    """R_abs: y = |x|."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the absolute value."""
        return x.abs()


class Shrinkage(nn.Module):
    """Soft threshold, y_j = sign(x_j) max(|x_j| - θ_j, 0), one θ per map."""

    def __init__(self, maps: int, threshold: float = SHRINKAGE) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.full((maps,), threshold))

    def forward(self, x: Tensor) -> Tensor:
        """Shrink x towards zero."""
        return x.sign() * functional.relu(x.abs() - self.threshold.view(1, -1, 1, 1))


class WinnerTakesAll(nn.Module):
    """At each position the map of largest magnitude keeps its value, the others become zero; the first wins a tie."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the winners of x."""
        winner = x.abs().argmax(dim=1, keepdim=True)
        return torch.zeros_like(x).scatter(1, winner, x.gather(1, winner))


Encoder = Callable[[Filters, NDArray[np.int64]], nn.Module]
"""Builds what `F` stands for from a learner's filters and the connection table."""


def tanh_encoder(filters: Filters, table: NDArray[np.int64]) -> nn.Module:
    """F_CSG: filter bank, bias, tanh, gain per map. What `F` means unless the learner says otherwise."""
    return nn.Sequential(FilterBank(filters, table), TanhGain(filters.gain))


class Stage(nn.Sequential):
    """One stage: the operations of its spec from left to right, around the filters of its bank.

    `maps` is the number of maps that enter the stage, `table` the connection table of its bank (None: every filter
    sees every map), `encoder` what `F` stands for.
    """

    def __init__(
        self,
        spec: StageSpec,
        maps: int,
        filters: Filters,
        table: NDArray[np.int64] | None = None,
        encoder: Encoder = tanh_encoder,
    ) -> None:
        before, after = spec.around_bank()
        table = full_table(filters.weight.shape[1]) if table is None else table
        bank = encoder(filters, table) if spec.bank.encoder else FilterBank(filters, table)
        super().__init__(*operations(before, maps), bank, *operations(after, spec.bank.filters))
        self.spec = spec


def operations(specs: Sequence[OperationSpec], maps: int) -> nn.Sequential:
    """Build operations that need no filters, for `maps` incoming maps."""
    modules: list[nn.Module] = []
    for spec in specs:
        modules.append(_operation(spec, maps))
        if isinstance(spec, PoolingSpec):
            maps = spec.output_maps(maps)
    return nn.Sequential(*modules)


def _operation(spec: OperationSpec, maps: int) -> nn.Module:
    match spec:
        case NormalisationSpec(kind, size, zeros):
            return LocalNormalisation(size, subtractive=kind != "Ndiv", divisive=kind != "Nsub", zeros=zeros)
        case PoolingSpec():
            return Pooling(spec)
        case PointwiseSpec("Rabs"):
            return Rectification()
        case PointwiseSpec("tanh"):
            return nn.Tanh()
        case PointwiseSpec("relu"):
            return nn.ReLU()
        case PointwiseSpec("wta"):
            return WinnerTakesAll()
        case PointwiseSpec("shrink"):
            return Shrinkage(maps)
    raise TypeError(f"{spec} needs filters")
