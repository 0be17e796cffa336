"""Published tables: what a paper measured, what is run to measure it again, and what the table is claimed to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table: its numbers, and what is run to measure them again.

    Parameters
    ----------
    name : str
        The row's name, as the paper prints it.
    learner : str
        The learner that stands for the row, as `--features` writes it.
    regime : str
        The regime that it runs under.
    stages : str
        What stands before the column's name, and a colon, in the names of the protocol's architectures: with "one",
        column PA runs the architecture `one:PA`. "" for learners that take no architecture.
    values : Mapping of str to float
        The published numbers by column, in the unit of the protocol's metric.
    deviations : Mapping of str to float, default {}
        Their standard deviations by column, where the paper gives any.
    classifier : str, default "logistic"
        The classifier on the features, as `--classifiers` writes it.
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
    """A weighted sum of a table's numbers that a claim expects to be better than a bound.

    Parameters
    ----------
    text : str
        What the sum is, as in "R: loss without N".
    terms : tuple of (float, str, str)
        Weight, row and column of each number.
    above : float, default 0.0
        The bound, in the unit of the metric. Where larger is better, the claim expects the sum to lie above it; where
        smaller is better, minus the sum.
    """

    text: str
    terms: tuple[tuple[float, str, str], ...]
    above: float = 0.0

    @classmethod
    def between(cls, better: str, worse: str, column: str) -> Contrast:
        """Make the contrast of two rows in one column.

        Parameters
        ----------
        better : str
            The row that is expected to be better.
        worse : str
            The row that it is compared with.
        column : str
            The column of both.

        Returns
        -------
        Contrast
            The number of the first row less that of the second.
        """
        return cls(f"{better} less {worse}", ((1, better, column), (-1, worse, column)))


@dataclass(frozen=True)
class Claim:
    """What a table is claimed to show: confirmed if every one of its contrasts is.

    Parameters
    ----------
    text : str
        The claim, as a sentence.
    contrasts : tuple of Contrast
        What has to hold. They are tested together, with Holm's correction.
    """

    text: str
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class PublishedTable:
    """A published table, and how it is measured again by `featbench reproduce`; it declares, and holds no logic.

    Parameters
    ----------
    name : str
        What `featbench reproduce` calls it: a word without spaces, commas, slashes or brackets.
    summary : str
        What it is, in one line for `featbench list tables`.
    protocol : str
        Name of the protocol that all its cells run under.
    columns : tuple of str
        Names of the columns, in their order.
    rows : tuple of PublishedRow
        The rows, in their order.
    tolerance : Mapping of str to float
        By how much a measured number may differ from the published one, for each column, in the unit of the metric.
    claims : tuple of Claim, default ()
        What the table is claimed to show.
    notes : tuple of str, default ()
        Where the source contradicts itself, or leaves something open; printed below the table.
    source : str, default ""
        The paper and the table in it.
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
