"""What a cell varies in: each field in which rows can differ, and how rows, entries, pages and names show it.

Whoever adds a field to `Cell` declares it here, among `VARIATIONS` or `SHARED`, and nowhere else. From there follow
the columns of a comparison's rows, the file names of leaderboard entries, the columns of a leaderboard's results.csv,
the lines of its page, and what of a request a published table leaves open.

Keys are not derived, as each artifact depends on other fields in its own way. But the key of a result must change with
every field of `list_deciding_fields`, which a test of the keys holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from featbench.evaluation.protocol import Protocol
from featbench.experiment.cell import Cell
from featbench.refinement.settings import Refinement


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Variation:
    """A field of a cell in which the rows of a table can differ.

    name: the field, and its column in the rows of a comparison.
    heading: the name of that column where it differs from the field's, "" where it does not.
    column: turns the value into what the column holds.
    usual: values that go without saying. Entries that were published before the field existed have the first of them.
    tell: turns a cell and its protocol into the value as text, "" where it goes without saying. By default: what the
    column holds, unless the value is a usual one.
    file: what it adds to the file name of an entry, {} standing for that text; "" if nothing.
    page: what it adds to the features on a leaderboard's page, {} standing for the entry's value; "" if nothing.
    csv: its column in a leaderboard's results.csv, and its field in entries; "" if it has no column there.
    request: the field of a request, and the option of the command line, that ask for another value than the protocol's;
    "" if there is none, or if a published table decides it.
    """

    name: str
    column: Callable[[Any], Any] = _as_it_is
    usual: tuple[Any, ...] = ()
    tell: Callable[[Cell, Protocol], str] | None = None
    file: str = "{}"
    page: str = ""
    csv: str = ""
    request: str = ""
    heading: str = ""

    def describe_in_name(self, cell: Cell, protocol: Protocol) -> str:
        """Return what the field adds to the file name of an entry, or ""."""
        if self.tell is not None:
            text = self.tell(cell, protocol)
        else:
            value = getattr(cell, self.name)
            text = "" if value in self.usual else str(self.column(value))
        return self.file.format(text) if text else ""

    def describe_on_page(self, entry: dict[str, Any]) -> str:
        """Return what the field adds to the features on a leaderboard's page, or ""."""
        value = entry.get(self.csv or self.name) or None
        return "" if value is None or value in self.usual else self.page.format(value)


def describe_refinement(cell: Cell, protocol: Protocol) -> str:
    """Return the settings of refinement in which a cell differs from its protocol."""
    return "" if cell.refinement is None else cell.refinement.format_changes(Refinement.read(protocol.refinement))


def _all_without_number(value: int | None) -> int | str:
    return "all" if value is None else value


def _other_dataset(cell: Cell, protocol: Protocol) -> str:
    return "" if cell.dataset == protocol.dataset else cell.dataset


def _other_architecture(cell: Cell, protocol: Protocol) -> str:
    return "" if cell.architecture == protocol.architecture else cell.architecture


def _other_images(cell: Cell, protocol: Protocol) -> str:
    return cell.unlabelled or ""


def _other_channels(cell: Cell, protocol: Protocol) -> str:
    colour = cell.preprocessing.colour
    return "" if colour == protocol.preprocessing.colour else colour


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
        tell=describe_refinement,
        file="refined with {}",
        page=", refined with {}",
        csv="refined_with",
        request="refine",
    ),
    Variation("metric", file="", csv="metric"),
    Variation(
        "preprocessing",
        heading="channels",
        column=lambda preprocessing: preprocessing.colour,
        usual=("grey",),
        tell=_other_channels,
        page=", {}",
        csv="channels",
        request="channels",
    ),
)
"""The fields in which rows differ, in the order of the parts of entries' file names.

Published entries have these names, so the order stays, and a new field comes last.
"""

SHARED = ("draw", "validation_fraction", "test", "task", "skip")
"""The fields in which the rows of a table do not differ: rows average over draws, the protocol fixes the others."""


def list_row_columns() -> tuple[str, ...]:
    """Return the columns that the draws of one row have in common: what varies, with the label beside the regime."""
    headings = {variation.name: variation.heading or variation.name for variation in VARIATIONS}
    names = [headings[one.name] for one in fields(Cell) if one.name in headings]
    names.insert(names.index("regime") + 1, "label")
    return tuple(names)


def describe_row(cell: Cell) -> dict[str, Any]:
    """Return what the columns of a cell's row hold, by name; the label is not among them, as it needs the learner."""
    return {one.heading or one.name: one.column(getattr(cell, one.name)) for one in VARIATIONS}


def list_requested_variations() -> tuple[str, ...]:
    """Return the fields of a request that vary what a protocol, or a published table, declares."""
    return (*(variation.request for variation in VARIATIONS if variation.request), "draws")


def list_deciding_fields() -> frozenset[str]:
    """Return the fields of a cell that decide its result: all but the protocol's name and the reason to skip."""
    return frozenset(one.name for one in fields(Cell)) - {"protocol", "skip"}
