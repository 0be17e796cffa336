"""What a study is: settings that a user may vary, and a function from them to findings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from featbench.errors import FeatbenchError, UnknownNameError, UsageError
from featbench.studies import STUDIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featbench.comparison import Workbench

Value = str | int | float | None
"""What stands in a table; None is an empty place."""


def option(default: Any, text: str, *, least: float | None = None, above: float | None = None) -> Any:
    """Declare a setting: its default, what --help says of it, and the numbers it may take.

    A tuple is given on the command line as a list with commas; a default of None stands for a number found by itself.
    """
    return field(default=default, metadata={"help": text, "least": least, "above": above})


@dataclass(frozen=True)
class Settings:
    """Settings of a study: frozen, every field made by `option`, checked when they are built."""

    seed: int = option(0, "seed of everything random")

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            given = getattr(self, setting.name)
            values = given if isinstance(given, tuple) else (given,)
            if not values:
                raise UsageError(f"{flag(setting.name)} names nothing")
            for value in values:
                _require_number(setting, value)

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults."""
        return {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) != f.default}


def flag(name: str) -> str:
    """Return the option of the command line that gives a setting."""
    return "--" + name.replace("_", "-")


def _require_number(setting: dataclasses.Field[Any], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    least, above = setting.metadata["least"], setting.metadata["above"]
    if not math.isfinite(value):
        raise UsageError(f"{flag(setting.name)} is {value}: a number is needed")
    if least is not None and value < least:
        raise UsageError(f"{flag(setting.name)} is {value:g}: it must be at least {least:g}")
    if above is not None and value <= above:
        raise UsageError(f"{flag(setting.name)} is {value:g}: it must be above {above:g}")


@dataclass(frozen=True)
class Table:
    """Rows of a study, all with the same columns.

    formats: how the numbers of a column are written where people read them, as ".2f"; ".3g" if it is not named.
    """

    title: str
    rows: Sequence[Mapping[str, Value]]
    formats: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if list(row) != self.columns:
                raise ValueError(f"table {self.title!r}: a row has the columns {list(row)}, not {self.columns}")
            for column, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    named = ", ".join(str(known) for known in row.values() if isinstance(known, str))
                    raise FeatbenchError(
                        f"{self.title}: {column} came out as {value} ({named}): the settings leave nothing to measure, "
                        "or the images hold values that are not finite"
                    )

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.rows[0]) if self.rows else []

    def text(self, column: str, value: Value) -> str:
        """Return a value as people read it."""
        if value is None:
            return ""
        if isinstance(value, float):
            return format(value, self.formats.get(column, ".3g"))
        return str(value)


@dataclass(frozen=True)
class Findings:
    """What a study found.

    draw: draws the picture on an empty figure of `size` (width, height) inches. data: fingerprints of what was read,
    by name. source: where the published numbers come from. failed: a part could not be measured, as the tables say.
    """

    title: str
    source: str
    tables: Sequence[Table]
    notes: Sequence[str]
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (8.0, 4.5)
    data: Mapping[str, str] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True)
class Study:
    """A study by its name: its settings, and the function that measures."""

    name: str
    settings: type[Settings]
    run: Callable[[Any, Workbench], Findings]


def find_study(name: str) -> Study:
    """Import a study; an `UnknownNameError` knows names that are nearly right."""
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    module = import_module(f"featbench.studies.{name}")
    return Study(name, module.Settings, module.run)
