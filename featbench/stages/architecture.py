"""Architectures as the papers write them, to frozen specs and back.

`64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4` is two stages; within a stage the tokens apply from left to right.
With `>+` in place of `>` the maps of the stage before it are features as well.
The notation is described in docs/architecture.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from featbench.errors import ArchitectureError

Shape = tuple[int, int, int]
"""Maps, height and width of what flows between two operations."""

EXPECTED = (
    "a filter bank (64F9, 64C9, 256F9:16), Rabs, N, N5, Nsub, Ndiv, tanh, relu, shrink, wta, "
    "or pooling (PA10/5, PM5, PL2:6/4, PX4:6/4, PFA4/2)"
)


@dataclass(frozen=True)
class FilterBankSpec:
    """`64F9`, `64C9` or `256F9:16`: filters, their side in pixels, and how many maps each of them sees."""

    filters: int
    size: int
    fan_in: int | None = None
    encoder: bool = True

    def __str__(self) -> str:
        table = "" if self.fan_in is None else f":{self.fan_in}"
        return f"{self.filters}{'F' if self.encoder else 'C'}{self.size}{table}"

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape after a valid correlation; refuse maps that are too small or too few."""
        maps, height, width = shape
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
    """`N`, `Nsub` or `Ndiv` with a window of `size` pixels; with `zeros` (`Nz`) maps go on as zeros at the border."""

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
    """`PA10/5`, `PM5`, `PL2:6/4`, `PX4:6/4`; with `over_maps` the same over neighbouring maps (`PFA4/2`)."""

    kind: Literal["A", "M", "L", "X"]
    size: int
    stride: int
    parameter: float | None = None
    over_maps: bool = False

    def __str__(self) -> str:
        parameter = "" if self.parameter is None else f"{Decimal(repr(self.parameter)).normalize():f}:"
        window = f"{self.size}" if self.kind == "M" and self.stride == self.size else f"{self.size}/{self.stride}"
        return f"P{'F' if self.over_maps else ''}{self.kind}{parameter}{window}"

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape after pooling whole windows; refuse maps smaller than one window."""
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


@dataclass(frozen=True)
class Architecture:
    """One or more stages. kept: the numbers, from 1, of those before the last whose maps are features as well."""

    stages: tuple[StageSpec, ...]
    kept: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        unknown = self.kept - set(range(1, len(self.stages)))
        if unknown:
            raise ArchitectureError(
                f"of {len(self.stages)} stages those before the last may be kept, which is kept anyway: "
                f"not {', '.join(str(number) for number in sorted(unknown))}"
            )

    def __str__(self) -> str:
        text = str(self.stages[0])
        for number, stage in enumerate(self.stages[1:], start=1):
            text += f" {'>+' if number in self.kept else '>'} {stage}"
        return text

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read an architecture; an `ArchitectureError` names the token, its position and what was expected."""
        stages: list[StageSpec] = []
        kept: set[int] = set()
        position = 0
        parts = re.split(r"(>\+?)", text)
        for part, joint in zip(parts[::2], [*parts[1::2], ""], strict=True):
            stages.append(_parse_stage(text, part, position, len(stages) + 1))
            if joint == ">+":
                kept.add(len(stages))
            position += len(part) + len(joint)
        return cls(tuple(stages), frozenset(kept))

    def shapes(self, shape: Shape) -> list[Shape]:
        """Return the shape after each stage for input maps of `shape`, or say which operation does not fit."""
        after: list[Shape] = []
        for number, stage in enumerate(self.stages, start=1):
            for operation in stage.operations:
                try:
                    shape = operation.output_shape(shape)
                except ArchitectureError as error:
                    raise ArchitectureError(f"'{self}': {operation} in stage {number} {error}") from None
            after.append(shape)
        return after


def _require_side(size: int, shape: Shape) -> None:
    if min(shape[1:]) < size:
        raise ArchitectureError(
            f"needs maps of at least {size}×{size}, but {shape[1]}×{shape[2]} came in; "
            "use larger images, smaller filters or less pooling"
        )


def _parse_stage(text: str, part: str, start: int, number: int) -> StageSpec:
    if not part.strip():
        problem = "expected a stage with a filter bank (64F9): > and >+ stand between two stages"
        raise ArchitectureError(_at(text, "", start + len(part), problem))
    operations: list[OperationSpec] = []
    position = start
    for raw in part.split("-"):
        token = raw.strip()
        column = position + len(raw) - len(raw.lstrip())
        operations.append(_parse_token(text, token, column))
        position += len(raw) + 1
    banks = [str(operation) for operation in operations if isinstance(operation, FilterBankSpec)]
    if len(banks) != 1:
        found = "none" if not banks else " and ".join(banks)
        raise ArchitectureError(
            f"stage {number} of {text!r} needs exactly one filter bank, found {found}; stages are joined with ' > '"
        )
    return StageSpec(tuple(operations))


def _parse_token(text: str, token: str, column: int) -> OperationSpec:
    for pattern, build in _TOKENS:
        match = re.fullmatch(pattern, token)
        if match:
            try:
                return build(match)
            except ArchitectureError as error:
                raise ArchitectureError(_at(text, token, column, str(error))) from None
    raise ArchitectureError(_at(text, token, column, f"expected {EXPECTED}"))


def _at(text: str, token: str, column: int, problem: str) -> str:
    return f"cannot read {token!r} at position {column + 1} of {text!r}: {problem}"


def _positive(text: str, what: str) -> int:
    value = int(text)
    if value < 1:
        raise ArchitectureError(f"{what} must be at least 1")
    return value


def _filter_bank(match: re.Match[str]) -> FilterBankSpec:
    filters, letter, size, fan_in = match.groups()
    return FilterBankSpec(
        filters=_positive(filters, "the number of filters"),
        size=_positive(size, "the filter size"),
        fan_in=None if fan_in is None else _positive(fan_in, "the number of maps a filter sees"),
        encoder=letter == "F",
    )


def _pointwise(match: re.Match[str]) -> PointwiseSpec:
    return PointwiseSpec(match.group(0))  # type: ignore[arg-type]  # the pattern admits the literals only


def _normalisation(match: re.Match[str]) -> NormalisationSpec:
    kind, zeros, size = match.groups()
    side = 9 if size is None else _positive(size, "the window")
    if side % 2 == 0:
        raise ArchitectureError(f"the window of {kind} must be odd, so that it has a centre")
    return NormalisationSpec(kind, side, zeros is not None)  # type: ignore[arg-type]  # the pattern admits the literals only


def _pooling(match: re.Match[str]) -> PoolingSpec:
    over_maps, kind, parameter, size, stride = match.groups()
    side = _positive(size, "the pooling window")
    if kind in "LX" and parameter is None:
        raise ArchitectureError(f"P{kind} needs its {'exponent' if kind == 'L' else 'sharpness'}, as in P{kind}2:6/4")
    if kind in "AM" and parameter is not None:
        raise ArchitectureError(f"P{kind} takes no parameter before the window")
    value = None if parameter is None else float(parameter)
    if value is not None and (value < 1 if kind == "L" else value <= 0):
        raise ArchitectureError("the exponent must be at least 1" if kind == "L" else "the sharpness must be positive")
    step = side if stride is None else _positive(stride, "the pooling stride")
    return PoolingSpec(kind, side, step, value, over_maps is not None)  # type: ignore[arg-type]


_TOKENS: tuple[tuple[str, Callable[[re.Match[str]], OperationSpec]], ...] = (
    (r"(\d{1,6})([FC])(\d{1,6})(?::(\d{1,6}))?", _filter_bank),
    (r"Rabs|tanh|relu|shrink|wta", _pointwise),
    (r"(Nsub|Ndiv|N)(z)?(\d{1,6})?", _normalisation),
    (r"P(F)?([AMLX])(?:(\d{1,6}(?:\.\d{1,12})?):)?(\d{1,6})(?:/(\d{1,6}))?", _pooling),
)
