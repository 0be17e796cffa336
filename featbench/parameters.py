"""Parameters that users write, as in `psd(lam=0.5)`: read from text, checked, and given to what they belong to.

A learner's parameter may be given several values, `psd(lam=0.2|0.5|1)`: validation images decide between them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from featbench.errors import UnknownNameError, UsageError


@dataclasses.dataclass(frozen=True)
class Choice:
    """A learner or a classifier by name, with the parameters that differ from its defaults."""

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, parameters: Mapping[str, Any]) -> Choice:
        """Build a choice; parameters are kept in alphabetical order."""
        return cls(name, tuple(sorted(parameters.items())))

    @classmethod
    def read(cls, text: str) -> Choice:
        """Read `psd` or `psd(lam=0.5,updates=2000)`; `lam=0.2|0.5` becomes a tuple."""
        match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", text)
        if match is None:
            raise UsageError(f"cannot read {text!r}: write NAME or NAME(parameter=value,…)")
        name, inside = match.groups()
        parameters: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in (inside or "").split(","))):
            key, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"cannot read {part!r} in {text!r}: write parameter=value")
            if key.strip() in parameters:
                raise UsageError(f"{text!r} gives {key.strip()} twice")
            values = tuple(_value(one.strip()) for one in value.split("|"))
            parameters[key.strip()] = values if len(values) > 1 else values[0]
        return cls.of(name, parameters)

    def alternatives(self) -> list[Choice]:
        """Return the choices of one value each that this one leaves open; itself if it leaves none."""
        values = [value if isinstance(value, tuple) else (value,) for _, value in self.parameters]
        names = [name for name, _ in self.parameters]
        return [Choice(self.name, tuple(zip(names, chosen, strict=True))) for chosen in itertools.product(*values)]

    def __str__(self) -> str:
        texts = {name: "|".join(map(str, v)) if isinstance(v, tuple) else v for name, v in self.parameters}
        inside = ",".join(f"{name}={text}" for name, text in texts.items())
        return f"{self.name}({inside})" if inside else self.name


class Parametrised:
    """What has parameters: those of a dataclass are its fields, with their defaults."""

    name: ClassVar[str]

    @classmethod
    def create(cls, parameters: Mapping[str, Any]) -> Self:
        """Build it with these parameters; unknown or mistyped ones are named."""
        known = {field.name: field for field in cls._fields()}
        for name, value in parameters.items():
            if name not in known:
                raise UnknownNameError(f"parameter of {cls.name}", name, known or ["none"])
            _require_type(cls.name, name, value, known[name].default)
        try:
            return cls(**parameters)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{cls.name}: {error}") from error

    @classmethod
    def choice(cls, parameters: Mapping[str, Any]) -> Choice:
        """Return the canonical choice of these parameters: lam=1 and lam=1.0 are one, and defaults are left out."""
        default = cls.create({}).parameters()
        found: dict[str, list[Any]] = {}
        for alternative in Choice.of(cls.name, parameters).alternatives():
            for key, value in cls.create(dict(alternative.parameters)).parameters().items():
                found.setdefault(key, []).append(float(value) if isinstance(default[key], float) else value)
        distinct = {key: tuple(dict.fromkeys(values)) for key, values in found.items()}
        typed = {key: values if len(values) > 1 else values[0] for key, values in distinct.items()}
        return Choice.of(cls.name, {key: value for key, value in typed.items() if value != default[key]})

    @classmethod
    def _fields(cls) -> tuple[dataclasses.Field[Any], ...]:
        return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()

    def parameters(self) -> dict[str, Any]:
        """Return every parameter with its value."""
        return {field.name: getattr(self, field.name) for field in self._fields()}


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _require_type(owner: str, name: str, value: object, default: object) -> None:
    if isinstance(default, bool) or default is dataclasses.MISSING or default is None:
        fits = default is dataclasses.MISSING or default is None or isinstance(value, bool)
    elif isinstance(default, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise UsageError(f"{owner}: parameter {name} takes a {type(default).__name__}, not {value!r}")
