"""A published table and what was measured, as text, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd
from tabulate import tabulate

from featbench.report.table import (
    PERCENT,
    add_unit,
    choose_escape,
    count_decimals,
    explain_deviation,
    format_csv,
    format_score,
    make_json_rows,
    write_notes,
)
from featbench.reproduction.claims import LEVEL, combine_verdicts
from featbench.reproduction.measure import Reproduction
from featbench.system.json_text import format_json


def render(reproduction: Reproduction, form: str) -> str:
    """Return the reproduction in one of the formats of `featbench compare`, ending with a newline.

    CSV and JSON hold the cells alone: claims are prose, which `render_claims` returns.
    """
    rows, unit = reproduction.rows, reproduction.metric.unit
    if form == "json":
        return format_json(make_json_rows(rows))
    if form == "csv":
        return format_csv(rows)
    style = "simple" if form == "table" else "github"
    table = reproduction.table
    tolerance = add_unit(_format_tolerances(table.tolerance), _name_difference(unit))
    parts = [
        f"{table.name}: {table.summary}\n{table.source}",
        tabulate(
            [list(map(choose_escape(style), _make_line(row, unit))) for row in rows.to_dict("records")],
            headers=[
                *("row", "column", add_unit("published", unit), add_unit("measured", unit)),
                *("difference", "", "n", "fit s", "extract s"),
            ],
            tablefmt=style,
            colalign=("left", "left", "right", "right", "right", "left", "right", "right", "right"),
            disable_numparse=True,
        ),
        f"{explain_deviation([unit])}\n"
        f"within, below, above: the tolerance of {tolerance}. "
        "fit s, extract s: seconds, mean per draw, as first measured.",
        *write_notes(rows, ("row", "column"), choose_escape(style)),
        render_claims(reproduction, style),
        "\n".join(table.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_claims(reproduction: Reproduction, style: str = "simple") -> str:
    """Return the claims, each with its verdict and its contrasts."""
    if reproduction.claims.empty:
        return ""
    parts, metric = [], reproduction.metric
    for text, contrasts in reproduction.claims.groupby("claim", sort=False):
        listed = tabulate(
            [list(map(choose_escape(style), _make_contrast(row, metric.unit))) for row in contrasts.to_dict("records")],
            headers=["contrast", "published", "measured", "n", "p", ""],
            tablefmt=style,
            colalign=("left", "right", "right", "right", "right", "left"),
            disable_numparse=True,
        )
        parts.append(f"{text} {combine_verdicts(list(contrasts['verdict'])).capitalize()}.\n\n{listed}")
    explained = [
        f"Differences in {_name_difference(metric.unit)}." if metric.unit else "",
        "" if metric.larger_is_better else f"Smaller is better in {metric.name}: a sum is expected to be negative.",
        "p: one-sided corrected resampled t-test (Nadeau and Bengio 2003) on the same draws, Holm's correction over "
        f"the claim; confirmed at {LEVEL:g}.",
    ]
    return "\n\n".join([*parts, " ".join(filter(None, explained))])


def _make_line(row: dict[Hashable, Any], unit: str) -> list[str]:
    published = "" if pd.isna(row["published"]) else format_score("ok", row["published"], row["published_std"], unit)
    times = [f"{row[column]:.1f}" if row["n"] else "" for column in ("fit_seconds", "extract_seconds")]
    # To as many decimals as the numbers that it is the difference of, whatever its own size.
    decimals = count_decimals(unit, row["published"], row["mean"])
    return [
        str(row["row"]).replace("raw-pixels", "raw pixels"),
        row["column"],
        published,
        format_score(row["status"], row["mean"], row["std"], unit),
        "" if pd.isna(row["difference"]) else f"{row['difference']:+.{decimals}f}",
        row["verdict"],
        str(row["n"]),
        *times,
    ]


def _make_contrast(row: dict[Hashable, Any], unit: str) -> list[str]:
    measured = "" if pd.isna(row["mean"]) else format_score("ok", row["mean"], row["std"], unit)
    p = "" if pd.isna(row["p"]) else f"{row['p']:.2g}"
    published = f"{row['published']:.{count_decimals(unit, row['published'])}f}"
    return [row["contrast"], published, measured, str(row["n"]), p, row["verdict"]]


def _name_difference(unit: str) -> str:
    """Return the unit of differences of values in a unit: percentages differ by points."""
    return "points" if unit == PERCENT else unit


def _format_tolerances(tolerance: Any) -> str:
    values = list(dict.fromkeys(tolerance.values()))
    return ", ".join(f"{value:g} ({', '.join(c for c in tolerance if tolerance[c] == value)})" for value in values)
