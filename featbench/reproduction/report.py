"""A published table and what was measured, as text, Markdown, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import pandas as pd
from tabulate import tabulate

from featbench.report.table import DEVIATION, json_rows, notes, score_text
from featbench.reproduction.claims import LEVEL, claim_verdict
from featbench.reproduction.measure import Reproduction


def render(reproduction: Reproduction, form: str) -> str:
    """Return the reproduction in one of the formats of `featbench compare`, ending with a newline.

    CSV and JSON hold the cells; `render_claims` gives what else is to be said.
    """
    rows = reproduction.rows
    if form == "json":
        return json.dumps(json_rows(rows), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "csv":
        return rows.to_csv(index=False)
    style = "simple" if form == "table" else "github"
    table = reproduction.table
    parts = [
        f"{table.name}: {table.summary}\n{table.source}",
        tabulate(
            [_line(row) for row in rows.to_dict("records")],
            headers=["row", "column", "published %", "measured %", "difference", "", "n", "fit s", "extract s"],
            tablefmt=style,
            colalign=("left", "left", "right", "right", "right", "left", "right", "right", "right"),
            disable_numparse=True,
        ),
        f"{DEVIATION}\nwithin, below, above: the tolerance of {_tolerances(table.tolerance)} points. "
        "fit s, extract s: seconds, mean per draw, as first measured.",
        *notes(rows, ("row", "column")),
        render_claims(reproduction, style),
        "\n".join(table.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_claims(reproduction: Reproduction, style: str = "simple") -> str:
    """Return the claims, each with its contrasts and what became of them."""
    if reproduction.claims.empty:
        return ""
    parts = []
    for text, contrasts in reproduction.claims.groupby("claim", sort=False):
        listed = tabulate(
            [_contrast(row) for row in contrasts.to_dict("records")],
            headers=["contrast", "published", "measured", "n", "p", ""],
            tablefmt=style,
            colalign=("left", "right", "right", "right", "right", "left"),
            disable_numparse=True,
        )
        parts.append(f"{text} {claim_verdict(list(contrasts['verdict'])).capitalize()}.\n\n{listed}")
    explained = (
        "Differences in points. p: one-sided corrected resampled t-test (Nadeau and Bengio 2003) on the same draws, "
        f"Holm's correction over the claim; confirmed at {LEVEL:g}."
    )
    return "\n\n".join([*parts, explained])


def _line(row: dict[Hashable, Any]) -> list[str]:
    published = "" if pd.isna(row["published"]) else score_text("ok", row["published"], row["published_std"])
    times = [f"{row[column]:.1f}" if row["n"] else "" for column in ("fit_seconds", "extract_seconds")]
    return [
        str(row["row"]).replace("raw-pixels", "raw pixels"),
        row["column"],
        published,
        score_text(row["status"], row["mean"], row["std"]),
        "" if pd.isna(row["difference"]) else f"{row['difference']:+.1f}",
        row["verdict"],
        str(row["n"]),
        *times,
    ]


def _contrast(row: dict[Hashable, Any]) -> list[str]:
    measured = "" if pd.isna(row["mean"]) else score_text("ok", row["mean"], row["std"])
    p = "" if pd.isna(row["p"]) else f"{row['p']:.2g}"
    return [row["contrast"], f"{row['published']:.1f}", measured, str(row["n"]), p, row["verdict"]]


def _tolerances(tolerance: Any) -> str:
    values = list(dict.fromkeys(tolerance.values()))
    return ", ".join(f"{value:g} ({', '.join(c for c in tolerance if tolerance[c] == value)})" for value in values)
