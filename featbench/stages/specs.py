"""What an architecture consists of: each operation of a stage as a frozen spec that prints itself and knows its shapes.

Shapes are computed from the specs alone, so that what does not fit is refused before anything is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from featbench.errors import ArchitectureError

Shape = tuple[int, int, int]
"""Maps, height and width of what flows between two operations."""


@dataclass(frozen=True)
class FilterBankSpec:
    """`64F9`, `64C9` or `256F9:16`: number of filters, their side in pixels, and how many maps each of them sees.

    fan_in: None for all maps. encoder: `F`, with the learner's non-linearity; without it `C`, the bare convolution.
    """

    filters: int
    size: int
    fan_in: int | None = None
    encoder: bool = True

    def __str__(self) -> str:
        table = "" if self.fan_in is None else f":{self.fan_in}"
        return f"{self.filters}{'F' if self.encoder else 'C'}{self.size}{table}"

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape after a valid correlation; `ArchitectureError` for maps that are too small or too few."""
        maps, height, width = shape
        # Fewer is possible, more is not: a table draws fan_in of the maps.
        if self.fan_in is not None and self.fan_in > maps:
            raise ArchitectureError(f"each filter is to see {self.fan_in} maps, but only {maps} come in")
        _require_side(self.size, shape)
        return self.filters, height - self.size + 1, width - self.size + 1


@dataclass(frozen=True)
class PointwiseSpec:
    """`Rabs`, `tanh`, `relu`, `shrink` or `wta`: an operation that keeps the shape."""

    kind: Literal["Rabs", "tanh", "relu", "shrink", "wta"]

    def __str__(self) -> str:
        return self.kind

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape unchanged."""
        return shape


@dataclass(frozen=True)
class NormalisationSpec:
    """`N`, `Nsub` or `Ndiv` with a window of `size` pixels; with `zeros` (`Nz`) maps are zero beyond the border."""

    kind: Literal["N", "Nsub", "Ndiv"] = "N"
    size: int = 9
    zeros: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{'z' if self.zeros else ''}{'' if self.size == 9 else self.size}"

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape unchanged: borders are not cut."""
        return shape


@dataclass(frozen=True)
class PoolingSpec:
    """`PA10/5`, `PM5`, `PL2:6/4`, `PX4:6/4`; with `over_maps` the same over neighbouring maps (`PFA4/2`).

    parameter: the exponent of L, the sharpness of X.
    """

    kind: Literal["A", "M", "L", "X"]
    size: int
    stride: int
    parameter: float | None = None
    over_maps: bool = False

    def __str__(self) -> str:
        # Through the shortest decimal that reads back as the same float: 2.0 prints as 2, 1e-5 as 0.00001, which the
        # parser takes, and no digit is lost on the way.
        parameter = "" if self.parameter is None else f"{Decimal(repr(self.parameter)).normalize():f}:"
        window = f"{self.size}" if self.kind == "M" and self.stride == self.size else f"{self.size}/{self.stride}"
        return f"P{'F' if self.over_maps else ''}{self.kind}{parameter}{window}"

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape after pooling whole windows; `ArchitectureError` for maps smaller than one window."""
        maps, height, width = shape
        if self.over_maps:
            if maps < self.size:
                raise ArchitectureError(f"needs at least {self.size} maps, but only {maps} come in")
            return self.output_maps(maps), height, width
        _require_side(self.size, shape)
        return maps, self._count(height), self._count(width)

    def output_maps(self, maps: int) -> int:
        """Return how many maps come out."""
        return self._count(maps) if self.over_maps else maps

    def _count(self, side: int) -> int:
        # Whole windows only: pixels beyond the last one are not pooled.
        return (side - self.size) // self.stride + 1


OperationSpec = FilterBankSpec | PointwiseSpec | NormalisationSpec | PoolingSpec


@dataclass(frozen=True)
class StageSpec:
    """One stage: operations from left to right, exactly one of them a filter bank."""

    operations: tuple[OperationSpec, ...]

    def __str__(self) -> str:
        return "-".join(str(operation) for operation in self.operations)

    @property
    def bank(self) -> FilterBankSpec:
        """The filter bank of this stage."""
        return next(operation for operation in self.operations if isinstance(operation, FilterBankSpec))

    def around_bank(self) -> tuple[tuple[OperationSpec, ...], tuple[OperationSpec, ...]]:
        """Return the operations before and after the filter bank."""
        index = self.operations.index(self.bank)
        return self.operations[:index], self.operations[index + 1 :]

    def bank_input(self, shape: Shape) -> Shape:
        """Return the shape that enters the filter bank when `shape` enters the stage."""
        for operation in self.around_bank()[0]:
            shape = operation.output_shape(shape)
        return shape


def _require_side(size: int, shape: Shape) -> None:
    if min(shape[1:]) < size:
        raise ArchitectureError(
            f"needs maps of at least {size}×{size}, but {shape[1]}×{shape[2]} came in; "
            "use larger images, smaller filters or less pooling"
        )
