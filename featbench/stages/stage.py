"""The operations of a stage as differentiable torch modules, and the stage that chains them.

Every operation maps [n, maps, height, width] to the same with other sizes; docs/architecture.md describes them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.stages.connection_table import make_full_table
from featbench.stages.encoders import Encoder, FilterBank, Shrinkage, build_tanh_encoder
from featbench.stages.filters import Filters
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.pooling import Pooling
from featbench.stages.specs import NormalisationSpec, OperationSpec, PointwiseSpec, PoolingSpec, StageSpec

SHRINKAGE = 0.5
"""Threshold of `shrink` in every map, before refinement."""


class Rectification(nn.Module):
    """R_abs: y = |x|."""

    reentrant: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        """Return the absolute value."""
        return x.abs()


class WinnerTakesAll(nn.Module):
    """`wta`: at each position the map of largest magnitude keeps its value, the others become zero.

    The first map wins a tie.
    """

    reentrant: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        """Keep the winners of x."""
        # A mask `size == maximum` would keep every map of a tie; an index keeps one.
        winner = x.abs().argmax(dim=1, keepdim=True)
        return torch.zeros_like(x).scatter(1, winner, x.gather(1, winner))


class Stage(nn.Sequential):
    """One stage: the operations of its spec from left to right, around the filters of its bank.

    maps: the number of maps that enter the stage. table [groups, fan_in]: the connection table of its bank (None: every
    filter sees every map). encoder: builds what `F` stands for.
    """

    reentrant: ClassVar[bool] = True

    def __init__(
        self,
        spec: StageSpec,
        maps: int,
        filters: Filters,
        table: NDArray[np.int64] | None = None,
        encoder: Encoder = build_tanh_encoder,
    ) -> None:
        # A learner's filters belong to the bank alone: what stands before and after it is built from the specs.
        before, after = spec.around_bank()
        table = make_full_table(filters.weight.shape[1]) if table is None else table
        bank = encoder(filters, table) if spec.bank.encoder else FilterBank(filters, table)
        super().__init__(*build_operations(before, maps), bank, *build_operations(after, spec.bank.filters))
        self.spec = spec


class MultiStage(nn.Sequential):
    """Stages of which several give features: their maps, flattened and joined in the order of the stages.

    kept: the numbers, from 1, of the stages before the last whose maps are features as well. Maps [n, ...] become rows
    [n, d]. Source: multi-stage features of Sermanet, Kavukcuoglu, Chintala, LeCun 2013.
    """

    reentrant: ClassVar[bool] = True

    def __init__(self, stages: Sequence[nn.Module], kept: Collection[int]) -> None:
        super().__init__(*stages)
        self.kept = frozenset(kept)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features [n, d] of maps x."""
        # Flattened one by one: the maps of several stages differ in size, and have no common grid.
        rows: list[Tensor] = []
        for number, stage in enumerate(self, start=1):
            x = stage(x)
            if number in self.kept:
                rows.append(x.flatten(1))
        return torch.cat([*rows, x.flatten(1)], dim=1)


def build_operations(specs: Sequence[OperationSpec], maps: int) -> nn.Sequential:
    """Build the modules of operations without filters, for `maps` input maps."""
    modules: list[nn.Module] = []
    for spec in specs:
        modules.append(_build_operation(spec, maps))
        # Pooling over maps leaves fewer of them, which a threshold per map has to know.
        if isinstance(spec, PoolingSpec):
            maps = spec.output_maps(maps)
    return nn.Sequential(*modules)


def _build_operation(spec: OperationSpec, maps: int) -> nn.Module:
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
            return Shrinkage(torch.full((maps,), SHRINKAGE))
    raise TypeError(f"{spec} needs filters")
