"""The notation of the papers: the text of one stage, `64F9-Rabs-N-PA10/5`, parsed to its spec."""

from __future__ import annotations

import re
from collections.abc import Callable

from featbench.errors import ArchitectureError
from featbench.stages.specs import (
    FilterBankSpec,
    NormalisationSpec,
    OperationSpec,
    PointwiseSpec,
    PoolingSpec,
    StageSpec,
)

EXPECTED = (
    "a filter bank (64F9, 64C9, 256F9:16), Rabs, N, N5, Nsub, Ndiv, tanh, relu, shrink, wta, "
    "or pooling (PA10/5, PM5, PL2:6/4, PX4:6/4, PFA4/2)"
)


def parse_stage(text: str, part: str, start: int, number: int) -> StageSpec:
    """Read stage `number` of the architecture `text`: its `part` that starts at position `start`.

    Raises `ArchitectureError`, which names the token, its position in the whole text, and what was expected.
    """
    if not part.strip():
        problem = "expected a stage with a filter bank (64F9): > and >+ stand between two stages"
        raise ArchitectureError(_describe_mistake(text, "", start + len(part), problem))
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
                raise ArchitectureError(_describe_mistake(text, token, column, str(error))) from None
    raise ArchitectureError(_describe_mistake(text, token, column, f"expected {EXPECTED}"))


def _describe_mistake(text: str, token: str, column: int, problem: str) -> str:
    return f"cannot read {token!r} at position {column + 1} of {text!r}: {problem}"


def _parse_positive(text: str, what: str) -> int:
    value = int(text)
    if value < 1:
        raise ArchitectureError(f"{what} must be at least 1")
    return value


def _build_filter_bank(match: re.Match[str]) -> FilterBankSpec:
    filters, letter, size, fan_in = match.groups()
    return FilterBankSpec(
        filters=_parse_positive(filters, "the number of filters"),
        size=_parse_positive(size, "the filter size"),
        fan_in=None if fan_in is None else _parse_positive(fan_in, "the number of maps a filter sees"),
        encoder=letter == "F",
    )


def _build_pointwise(match: re.Match[str]) -> PointwiseSpec:
    return PointwiseSpec(match.group(0))  # type: ignore[arg-type]  # the pattern admits the literals only


def _build_normalisation(match: re.Match[str]) -> NormalisationSpec:
    kind, zeros, size = match.groups()
    side = 9 if size is None else _parse_positive(size, "the window")
    if side % 2 == 0:
        raise ArchitectureError(f"the window of {kind} must be odd, so that it has a centre")
    return NormalisationSpec(kind, side, zeros is not None)  # type: ignore[arg-type]  # the pattern admits the literals only


def _build_pooling(match: re.Match[str]) -> PoolingSpec:
    over_maps, kind, parameter, size, stride = match.groups()
    side = _parse_positive(size, "the pooling window")
    if kind in "LX" and parameter is None:
        raise ArchitectureError(f"P{kind} needs its {'exponent' if kind == 'L' else 'sharpness'}, as in P{kind}2:6/4")
    if kind in "AM" and parameter is not None:
        raise ArchitectureError(f"P{kind} takes no parameter before the window")
    value = None if parameter is None else float(parameter)
    if value is not None and (value < 1 if kind == "L" else value <= 0):
        raise ArchitectureError("the exponent must be at least 1" if kind == "L" else "the sharpness must be positive")
    step = side if stride is None else _parse_positive(stride, "the pooling stride")
    return PoolingSpec(kind, side, step, value, over_maps is not None)  # type: ignore[arg-type]


# Digits are bounded, so that no number is so long that turning it into an int or a float takes forever or fails.
_TOKENS: tuple[tuple[str, Callable[[re.Match[str]], OperationSpec]], ...] = (
    (r"(\d{1,6})([FC])(\d{1,6})(?::(\d{1,6}))?", _build_filter_bank),
    (r"Rabs|tanh|relu|shrink|wta", _build_pointwise),
    (r"(Nsub|Ndiv|N)(z)?(\d{1,6})?", _build_normalisation),
    (r"P(F)?([AMLX])(?:(\d{1,6}(?:\.\d{1,12})?):)?(\d{1,6})(?:/(\d{1,6}))?", _build_pooling),
)
