"""Published tables: what a paper measured, what is run to measure it anew, and what the table is said to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table: what is run for it, and the published numbers in percent, by column.

    name: as the paper prints it. stages: what goes before the column's name, and a colon, in the names of the
    protocol's architectures; "" for learners that take none. deviations: where the paper gives one.
    """

    name: str
    learner: str
    regime: str
    stages: str
    values: Mapping[str, float]
    deviations: Mapping[str, float] = field(default_factory=dict)
    classifier: str = "logistic"


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of cells (weight, row, column) that a claim says to be larger than `above`, in points."""

    text: str
    terms: tuple[tuple[float, str, str], ...]
    above: float = 0.0

    @classmethod
    def between(cls, better: str, worse: str, column: str) -> Contrast:
        """Return how far a row is above another in a column."""
        return cls(f"{better} less {worse}", ((1, better, column), (-1, worse, column)))


@dataclass(frozen=True)
class Claim:
    """What a table is said to show: holds if all its contrasts do."""

    text: str
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class PublishedTable:
    """A published table and how it is measured anew; it holds no logic.

    tolerance: points by which a column may differ from the published number. notes: where the source contradicts
    itself, or leaves something open. source: paper and table.
    """

    name: str
    summary: str
    protocol: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    tolerance: Mapping[str, float]
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
