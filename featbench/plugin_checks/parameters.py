"""What the parameters of learners and classifiers must be: values that users can write and that keys can hold."""

from __future__ import annotations

import dataclasses
import math
import typing
from types import NoneType, UnionType
from typing import Any, Literal, Union

from featbench.errors import PluginError
from featbench.parameters import Parametrised

KINDS = (bool, int, float, str)

WANTED = "parameters are bool, int, float or str, each annotated and with a default"


def check_parameters(owner: type[Parametrised]) -> None:
    """Refuse a learner or a classifier with a parameter that no user could write, or whose results have no key."""
    who = owner.__name__
    _require_dataclass(owner)
    if not dataclasses.is_dataclass(owner):
        return
    # One that refuses its own defaults would break every comparison that names it, and the list of learners.
    values = owner.create({}).parameters()
    hints = _read_hints(owner)
    for name, value in values.items():
        parameter = f"{who}: parameter {name}"
        if value is not None and type(value) not in KINDS:
            raise PluginError(f"{parameter} is {_name_type(type(value))}: {WANTED}")
        if isinstance(value, float) and not math.isfinite(value):
            raise PluginError(f"{parameter} has the default {value}: take a finite one, or None")
        hint = hints.get(name)
        if hint is not None and not _can_write(hint, unknown=value is not None):
            raise PluginError(f"{parameter} is annotated as {_format_hint(hint)}: {WANTED}")


def _require_dataclass(owner: type[Parametrised]) -> None:
    """Raise a `PluginError` for fields of a class that is no dataclass: nobody could set them."""
    contract = {name for base in owner.__mro__ if _is_featbench(base) for name in vars(base).get("__annotations__", {})}
    for cls in owner.__mro__:
        if _is_featbench(cls) or "__dataclass_fields__" in vars(cls):
            continue
        annotated = vars(cls).get("__annotations__", {})
        fields = [name for name, hint in annotated.items() if name not in contract and "ClassVar" not in str(hint)]
        if fields:
            raise PluginError(
                f"{cls.__name__} has fields ({', '.join(fields)}) and is no dataclass, so that they are no parameters: "
                "put @dataclass(frozen=True) above it, or annotate them with ClassVar"
            )


def _is_featbench(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("featbench", "builtins", "abc")


def _read_hints(owner: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner)
    except Exception:  # names that are imported for type checkers alone: the defaults tell the types then
        return {}


def _can_write(hint: Any, *, unknown: bool) -> bool:
    """Whether values of an annotation can be written as text; unknown: whether one that says nothing may pass."""
    origin = typing.get_origin(hint)
    if origin in (Union, UnionType):
        kinds = [one for one in typing.get_args(hint) if one is not NoneType]
        return bool(kinds) and all(_can_write(one, unknown=unknown) for one in kinds)
    if origin is Literal:
        return all(one is None or type(one) in KINDS for one in typing.get_args(hint))
    if hint in (Any, object):
        return unknown  # the default has a type, which values must have too
    return hint in KINDS


def _name_type(kind: type) -> str:
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _format_hint(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
