"""What a study is: settings that a user may vary, and a function that turns them into findings."""

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
"""A value in a table; None is an empty field."""


def option(default: Any, text: str, *, least: float | None = None, above: float | None = None) -> Any:
    """Declare a setting of a study, as a field of a subclass of `StudySettings`.

    Parameters
    ----------
    default : str, int, float, tuple or None
        The default, which also gives the type. A tuple is written on the command line as a list with commas. None
        stands for a number that the study finds unless the user gives one.
    text : str
        What `--help` prints.
    least : float or None, default None
        The smallest number that is allowed.
    above : float or None, default None
        Numbers must be larger than this one.

    Returns
    -------
    dataclasses.Field
        The field, annotated as Any so that a class may declare `count: int = option(3, "…")`.
    """
    return field(default=default, metadata={"help": text, "least": least, "above": above})


@dataclass(frozen=True)
class StudySettings:
    """Base of a study's settings: a frozen dataclass whose fields are made by `option`, and checked when it is built.

    Raises `UsageError` for an empty list, and for a number that is not finite or out of its range.
    """

    seed: int = option(0, "seed of everything random")

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            given = getattr(self, setting.name)
            values = given if isinstance(given, tuple) else (given,)
            if not values:
                raise UsageError(f"{format_flag(setting.name)} is empty: give at least one value")
            for value in values:
                _require_number(setting, value)

    def list_changes(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, by name."""
        return {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) != f.default}


def format_flag(name: str) -> str:
    """Return the command-line option of a setting: `--test-points` for test_points."""
    return "--" + name.replace("_", "-")


def _require_number(setting: dataclasses.Field[Any], value: object) -> None:
    # A bool is an int to Python, but has no range.
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    least, above = setting.metadata["least"], setting.metadata["above"]
    if not math.isfinite(value):
        raise UsageError(f"{format_flag(setting.name)} is {value}: a number is needed")
    if least is not None and value < least:
        raise UsageError(f"{format_flag(setting.name)} is {value:g}: it must be at least {least:g}")
    if above is not None and value <= above:
        raise UsageError(f"{format_flag(setting.name)} is {value:g}: it must be above {above:g}")


@dataclass(frozen=True)
class Table:
    """A table of findings, whose rows all have the same columns.

    Raises `ValueError` for rows with other columns, and `FeatbenchError` for a number that is not finite.

    Parameters
    ----------
    title : str
        Its heading; empty for none.
    rows : sequence of mapping
        Each maps column names to values at full precision.
    formats : mapping of str to str, default {}
        Format of the numbers of a column in text and Markdown, such as ".2f"; ".3g" for columns it does not name.
    """

    title: str
    rows: Sequence[Mapping[str, Value]]
    formats: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if list(row) != self.columns:
                raise ValueError(f"table {self.title!r}: a row has the columns {list(row)}, not {self.columns}")
            # A NaN in a table would be printed as a number that was measured. JSON could not hold it either.
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

    def format_value(self, column: str, value: Value) -> str:
        """Return a value as it is printed, rounded to its column's format."""
        if value is None:
            return ""
        if isinstance(value, float):
            return format(value, self.formats.get(column, ".3g"))
        return str(value)


@dataclass(frozen=True)
class Findings:
    """What a study found: tables, notes, and a picture.

    Parameters
    ----------
    title : str
        Heading of the page.
    source : str
        Paper with the published numbers, and where they stand in it; empty if there are none.
    tables : sequence of Table
        Measured beside published numbers.
    notes : sequence of str
        What a reader has to know to understand the tables.
    draw : callable
        Draws the picture on the empty matplotlib figure that it receives.
    size : (float, float), default (8.0, 4.5)
        Width and height of the figure, in inches.
    data : mapping of str to str, default {}
        Fingerprints of the data that was read, by name.
    failed : bool, default False
        Whether a part could not be measured; the tables show which.
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
    """A study: its name, the class of its settings, and the function that measures.

    Every module of this folder that `STUDIES` names ends with one, as `STUDY`.
    """

    name: str
    settings: type[StudySettings]
    run: Callable[[Any, Workbench], Findings]


def find_study(name: str) -> Study:
    """Import a study by its name. Raises `UnknownNameError`, which suggests a similar name."""
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    study: Study = import_module(f"featbench.studies.{name}").STUDY
    return study
