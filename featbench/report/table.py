"""The table of a comparison, as text, Markdown, CSV or JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from featbench.report.markdown import escape_markdown
from featbench.report.names import make_csv_safe
from featbench.system.json_text import format_json
from featbench.system.printable import make_printable

FORMATS = ("table", "markdown", "csv", "json")

REGIME_ORDER = ("U+", "R+", "U", "R", "fixed+", "fixed")
"""Rows read as in the papers: learned and refined first, designed last."""

PERCENT = "%"
"""The unit of percentages; other units have no name but their sign."""

TIMES = (
    "fit s: seconds to learn the filters, refine them and train the classifier; "
    "extract s: to extract the features; mean per draw, as first measured."
)


def order_rows(rows: pd.DataFrame, baselines: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the rows in the order of the papers' tables, baselines last.

    baselines: learner and regime of the rows that stand below all others, the weakest first, which comes last.
    """

    def find_place(row: dict[Hashable, Any]) -> tuple[int, int]:
        pair = row["learner"], row["regime"]
        if pair in baselines:
            return 1, -baselines.index(pair)
        return 0, REGIME_ORDER.index(row["regime"])

    records = rows.to_dict("records")
    order = sorted(range(len(records)), key=lambda index: find_place(records[index]))
    return rows.iloc[order].reset_index(drop=True)


def render(rows: pd.DataFrame, form: str, baselines: Sequence[tuple[str, str]] = ()) -> str:
    """Return the rows in one of `FORMATS`, ending with a newline; `baselines` as `order_rows` has them."""
    rows = order_rows(rows, baselines)
    if form == "json":
        # Strict JSON: Python would write NaN, which no other program reads.
        return format_json(make_json_rows(rows))
    if form == "csv":
        return format_csv(rows)
    return _render_readable(rows, "simple" if form == "table" else "github")


def format_csv(rows: pd.DataFrame) -> str:
    """Return rows as CSV in which no name is a formula to a spreadsheet; numbers stay numbers."""
    return rows.map(lambda value: make_csv_safe(value) if isinstance(value, str) else value).to_csv(index=False)


def choose_escape(style: str) -> Callable[[str], str]:
    """Return what brings a name into a table of one of tabulate's styles."""
    return escape_markdown if style == "github" else make_printable


def _render_readable(rows: pd.DataFrame, style: str) -> str:
    # All rows are of one comparison, and so of one protocol, data set and metric.
    first, escape = rows.iloc[0], choose_escape(style)
    title = f"{first['protocol']} · {first['dataset']} · {first['train_per_class']} training images per class"
    architectures = [text for text in rows["architecture"].unique() if text]
    shown = rows[rows["status"] != "skipped"]
    table = tabulate(
        [_make_line(row, escape) for row in shown.to_dict("records")],
        headers=[
            "features",
            "regime",
            "classifier",
            escape(add_unit(first["metric"], first["unit"])),
            "n",
            "fit s",
            "extract s",
        ],
        tablefmt=style,
        colalign=("left", "left", "left", "right", "right", "right", "right"),
        disable_numparse=True,
    )
    explanation = f"{explain_deviation([first['unit']])}\n{TIMES}"
    parts = [
        escape(title) + "".join(f"\n{text}" for text in architectures),
        table,
        explanation,
        *write_notes(rows, escape=escape),
    ]
    return "\n\n".join(parts) + "\n"


def _make_line(row: dict[Hashable, Any], escape: Callable[[str], str]) -> list[str]:
    learner = {"raw-pixels": "raw pixels"}.get(row["learner"], row["learner"])
    times = [f"{row[column]:.2f}" if row["n"] else "" for column in ("fit_seconds", "extract_seconds")]
    return [
        *map(escape, (learner, row["label"], row["classifier"])),
        format_score(row["status"], row["mean"], row["std"], row["unit"]),
        str(row["n"]),
        *times,
    ]


def format_score(status: str, mean: float | None, std: float | None, unit: str) -> str:
    """Return a row's score as tables show it: 91.2 ± 0.8, 91.2 for a single draw, or its status unless that is ok."""
    if status != "ok":
        return status
    digits = count_decimals(unit, mean, std)
    return f"{mean:.{digits}f}" if pd.isna(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def count_decimals(unit: str, *values: float | None) -> int:
    """Return how many decimals to show of values in a unit: one of percentages, else four digits of the largest."""
    if unit == PERCENT:
        return 1
    largest = max((abs(value) for value in values if value is not None and not pd.isna(value)), default=0.0)
    return 3 if largest == 0 else min(max(3 - math.floor(math.log10(largest)), 0), 12)


def add_unit(text: str, unit: str) -> str:
    """Return the heading of a column of values in a unit: accuracy %, or the text alone where there is no unit."""
    return f"{text} {unit}".rstrip()


def explain_deviation(units: Iterable[str]) -> str:
    """Return what ± means and, where all values have one unit, which."""
    several = set(units)
    unit = several.pop() if len(several) == 1 else ""
    name = "percent" if unit == PERCENT else unit
    meaning = "± is the standard deviation over the n draws of training images (ddof 1)"
    return f"{meaning}; means and deviations are in {name}." if name else f"{meaning}."


def write_notes(
    rows: pd.DataFrame,
    named: Sequence[str] = ("learner", "regime", "classifier"),
    escape: Callable[[str], str] = make_printable,
) -> list[str]:
    """Return a paragraph for images left out, one for rows that failed and one for those that were skipped.

    named: the columns that name a row, before the reason. escape: brings names and messages into the text.
    """
    paragraphs = []
    left_out = int(rows["images_left_out"].max())
    if left_out:
        dataset = escape(rows["dataset"].iloc[0])
        paragraphs.append(f"{left_out} images of {dataset} could not be used and were left out")
    for status in ("failed", "skipped"):
        lines = [
            f"{status}: {escape(' '.join(str(row[column]) for column in named))}: {escape(row['message'])}"
            for row in rows[rows["status"] == status].to_dict("records")
        ]
        if lines:
            paragraphs.append("\n".join(lines))
    return paragraphs


def make_json_rows(rows: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Return the rows as plain values that JSON can hold, None for those that are missing."""
    # As objects: pandas would turn whole numbers into floats in a column where one is missing.
    records = rows.astype(object).to_dict("records")
    return [{name: _make_plain(value) for name, value in record.items()} for record in records]


def _make_plain(value: Any) -> Any:
    if isinstance(value, list):
        return value
    return None if pd.isna(value) else value
