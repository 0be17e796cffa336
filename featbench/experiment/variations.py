"""What a cell varies in: each field in which rows can differ, and how rows, entries, pages and names show it.

Whoever adds a field to `Cell` declares it here, among `VARIATIONS` or `SHARED`, and nowhere else. From there follow the
columns of a comparison's rows (`row_columns`, `describe_row`), the file names of leaderboard entries, the columns of a
leaderboard's results.csv and the lines of its page, and what of a request a published table leaves open
(`requested_variations`). Keys cannot be derived, as each artifact depends on other fields in its own way; but the key
of a result must change with every field of `deciding_fields`, and a test of the keys holds that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from featbench.evaluation.protocol import Protocol
from featbench.experiment.cell import Cell
from featbench.refinement.settings import Refinement


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Variation:
    """A field of a cell in which the rows of a table can differ.

    name: the field, and the column of rows.
    column: takes the value to what the column holds.
    usual: values that go without saying; entries that were published before the field existed have the first.
    tell: takes a cell and its protocol to the value as a text, "" where it goes without saying; by default the value
    itself, unless it is a usual one.
    file: what the name of an entry's file says, {} for that text; "" if it says nothing of the field.
    page: what a leaderboard's page says behind the features, {} for the value of the entry; "" if nothing.
    csv: the column of a leaderboard's results.csv, and the field of an entry, that hold it; "" if that file lacks it.
    request: the field of a request that asks for another value than the protocol's, and the command line's option;
    "" if none does, or a published table decides it.
    """

    name: str
    column: Callable[[Any], Any] = _as_it_is
    usual: tuple[Any, ...] = ()
    tell: Callable[[Cell, Protocol], str] | None = None
    file: str = "{}"
    page: str = ""
    csv: str = ""
    request: str = ""

    def describe_in_name(self, cell: Cell, protocol: Protocol) -> str:
        """Return what the file name of an entry says of the field, or ""."""
        if self.tell is not None:
            text = self.tell(cell, protocol)
        else:
            value = getattr(cell, self.name)
            text = "" if value in self.usual else str(self.column(value))
        return self.file.format(text) if text else ""

    def describe_on_page(self, entry: dict[str, Any]) -> str:
        """Return what a leaderboard's page says of the field behind the features, or ""."""
        value = entry.get(self.csv or self.name) or None
        return "" if value is None or value in self.usual else self.page.format(value)


def without_folders(name: str) -> str:
    """Return the name of a data set, or of a folder, without the folders that it lies in."""
    base, colon, path = name.rpartition(":")
    return f"{base}{colon}{Path(path).name}"


def refined_with(cell: Cell, protocol: Protocol) -> str:
    """Return the settings of refinement in which a cell differs from its protocol."""
    return "" if cell.refinement is None else cell.refinement.format_changes(Refinement.read(protocol.refinement))


def _all_without_number(value: int | None) -> int | str:
    return "all" if value is None else value


def _other_dataset(cell: Cell, protocol: Protocol) -> str:
    return "" if cell.dataset == protocol.dataset else without_folders(cell.dataset)


def _other_architecture(cell: Cell, protocol: Protocol) -> str:
    return "" if cell.architecture == protocol.architecture else cell.architecture


def _other_images(cell: Cell, protocol: Protocol) -> str:
    return without_folders(cell.unlabelled) if cell.unlabelled else ""


VARIATIONS = (
    Variation("protocol", file="", csv="protocol"),
    Variation("learner", column=str, csv="learner"),
    Variation("regime", column=lambda regime: regime.name, csv="regime"),
    Variation("classifier", csv="classifier"),
    Variation("train_per_class", column=_all_without_number, file="{} per class", csv="train_per_class"),
    Variation("seed", file="seed {}", csv="seed", request="seed"),
    Variation("dataset", tell=_other_dataset, csv="dataset", request="dataset"),
    Variation("architecture", tell=_other_architecture, csv="architecture"),
    Variation(
        "unlabelled",
        usual=(None,),
        tell=_other_images,
        file="on {}",
        page=" on {}",
        csv="unlabelled",
        request="unlabelled",
    ),
    Variation(
        "test_per_class",
        column=_all_without_number,
        usual=(None,),
        file="at most {} tested",
        page=", at most {} tested per class",
        request="test_per_class",
    ),
    Variation("device", usual=("cpu",), csv="device", request="device"),
    Variation("precision", usual=("float32",), page=", {}", csv="precision", request="precision"),
    Variation(
        "refinement",
        column=lambda settings: "" if settings is None else str(settings),
        usual=(None,),
        tell=refined_with,
        file="refined with {}",
        page=", refined with {}",
        csv="refined_with",
        request="refine",
    ),
    Variation("metric", file="", csv="metric"),
)
"""The fields in which rows differ, in the order in which the file names of entries say them: published entries fix that
of the present ones, and a new field comes last."""

SHARED = ("draw", "preprocessing", "validation_fraction", "test", "task", "skip")
"""The fields in which rows do not differ: they are averaged over draws, the protocol fixes the others, and `skip`
explains. Another draw, and whatever a protocol fixes, still has results of its own."""


def row_columns() -> tuple[str, ...]:
    """Return the columns that the draws of one row have in common: what varies, and the regime's label beside it."""
    varied = {variation.name for variation in VARIATIONS}
    names = [one.name for one in fields(Cell) if one.name in varied]
    names.insert(names.index("regime") + 1, "label")
    return tuple(names)


def describe_row(cell: Cell) -> dict[str, Any]:
    """Return what the columns of a cell's row hold, but for its label."""
    return {variation.name: variation.column(getattr(cell, variation.name)) for variation in VARIATIONS}


def requested_variations() -> tuple[str, ...]:
    """Return the fields of a request that vary what a protocol, or a published table, declares."""
    return (*(variation.request for variation in VARIATIONS if variation.request), "draws")


def deciding_fields() -> frozenset[str]:
    """Return the fields of a cell that decide its result: all but the protocol's name and the reason to skip."""
    return frozenset(one.name for one in fields(Cell)) - {"protocol", "skip"}
