"""The table of a comparison, as text, Markdown, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

FORMATS = ("table", "markdown", "csv", "json")

REGIME_ORDER = ("U+", "R+", "U", "R", "fixed+", "fixed")
"""Rows read as in the papers: learned and refined first, designed last."""

BASELINES = ("raw-pixels", "chance")
"""Learners that stand below all others."""

DEVIATION = (
    "± is the standard deviation over the n draws of training images (ddof 1); means and deviations are in percent."
)

EXPLANATION = (
    f"{DEVIATION}\nfit s: seconds to learn the filters, refine them and train the classifier; "
    "extract s: to extract the features; mean per draw, as first measured."
)


def order_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of the papers' tables, baselines last."""

    def rank(row: dict[Hashable, Any]) -> tuple[int, int]:
        if row["learner"] in BASELINES:
            return 1, BASELINES.index(row["learner"])
        return 0, REGIME_ORDER.index(row["regime"])

    records = rows.to_dict("records")
    order = sorted(range(len(records)), key=lambda index: rank(records[index]))
    return rows.iloc[order].reset_index(drop=True)


def render(rows: pd.DataFrame, form: str) -> str:
    """Return the rows in one of `FORMATS`, ending with a newline."""
    rows = order_rows(rows)
    if form == "json":
        return json.dumps(json_rows(rows), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "csv":
        return rows.to_csv(index=False)
    return _readable(rows, "simple" if form == "table" else "github")


def _readable(rows: pd.DataFrame, style: str) -> str:
    first = rows.iloc[0]
    title = f"{first['protocol']} · {first['dataset']} · {first['train_per_class']} training images per class"
    architectures = [text for text in rows["architecture"].unique() if text]
    shown = rows[rows["status"] != "skipped"]
    table = tabulate(
        [_line(row) for row in shown.to_dict("records")],
        headers=["features", "regime", "classifier", f"{first['metric']} %", "n", "fit s", "extract s"],
        tablefmt=style,
        colalign=("left", "left", "left", "right", "right", "right", "right"),
        disable_numparse=True,
    )
    parts = [title + "".join(f"\n{text}" for text in architectures), table, EXPLANATION, *notes(rows)]
    return "\n\n".join(parts) + "\n"


def _line(row: dict[Hashable, Any]) -> list[str]:
    learner = {"raw-pixels": "raw pixels"}.get(row["learner"], row["learner"])
    times = [f"{row[column]:.2f}" if row["n"] else "" for column in ("fit_seconds", "extract_seconds")]
    return [
        learner,
        row["label"],
        row["classifier"],
        score_text(row["status"], row["mean"], row["std"]),
        str(row["n"]),
        *times,
    ]


def score_text(status: str, mean: float | None, std: float | None) -> str:
    """Return a row's score as tables show it: 91.2 ± 0.8, 91.2 for a single draw, or what became of it."""
    if status != "ok":
        return status
    return f"{mean:.1f}" if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"


def notes(rows: pd.DataFrame, named: Sequence[str] = ("learner", "regime", "classifier")) -> list[str]:
    """Return a paragraph for images left out, for rows that failed, and for those that were skipped, with reasons.

    `named`: the columns that name a row.
    """
    paragraphs = []
    left_out = int(rows["images_left_out"].max())
    if left_out:
        paragraphs.append(f"{left_out} images of {rows['dataset'].iloc[0]} could not be used and were left out")
    for status in ("failed", "skipped"):
        lines = [
            f"{status}: {' '.join(str(row[column]) for column in named)}: {row['message']}"
            for row in rows[rows["status"] == status].to_dict("records")
        ]
        if lines:
            paragraphs.append("\n".join(lines))
    return paragraphs


def json_rows(rows: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Return the rows as JSON knows them, null for what is missing."""
    records = rows.astype(object).to_dict("records")
    return [{name: _plain(value) for name, value in record.items()} for record in records]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return value
    return None if pd.isna(value) else value
