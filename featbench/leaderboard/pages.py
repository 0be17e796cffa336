"""The pages of a leaderboard: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from featbench.experiment.variations import VARIATIONS
from featbench.report.markdown import escape_markdown
from featbench.report.names import make_csv_safe
from featbench.report.table import add_unit, explain_deviation, format_score

PUBLISHED = (
    *("protocol", "dataset", "train_per_class", "architecture", "learner", "features", "regime", "label", "classifier"),
    *("metric", "mean", "std", "n", "seed", "device", "precision", "unlabelled", "refined_with"),
)
"""The first columns of the CSV file: published files fix their order."""

COLUMNS = (*PUBLISHED, *(one.csv for one in VARIATIONS if one.csv and one.csv not in PUBLISHED))
"""All columns, but for the seconds, the scores and the commit, which come last."""

SECONDS = ("learn", "refine", "extract", "classify")
"""What seconds were spent on, as entries name it."""

_ALL = 10**9
"""Sorts "all training images" after every number of them."""


def render_page(protocol: str, entries: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown page of a leaderboard: a table for each number of training images, best rows first."""
    parts = [
        f"# Leaderboard: {escape_markdown(protocol)}",
        "Written by `featbench leaderboard render` from the files in [entries](entries); do not edit. "
        f"{explain_deviation(entry['unit'] for entry in entries)} Rows stand in the order of their means; neighbours "
        "need not differ significantly.",
    ]
    ordered = sorted(entries, key=_group)
    for (per_class, dataset, metric), group in groupby(ordered, key=_group):
        shown = sorted(group, key=rank)
        number = per_class if per_class < _ALL else "all"
        parts.append(f"## {escape_markdown(dataset)}, {number} training images per class")
        headers = [
            "features",
            "regime",
            "classifier",
            escape_markdown(add_unit(metric, shown[0]["unit"])),
            "n",
            "fit s",
            "extract s",
            "architecture",
            "commit",
        ]
        alignment = ("left", "left", "left", "right", "right", "right", "right", "left", "left")
        lines = [_make_line(entry) for entry in shown]
        parts.append(tabulate(lines, headers, tablefmt="github", disable_numparse=True, colalign=alignment))
    return "\n\n".join(parts) + "\n"


def render_csv(entries: Sequence[dict[str, Any]]) -> str:
    """Return the entries as CSV at full precision, in their order."""
    buffer = io.StringIO()
    # Always the same line ends: the same entries give the same bytes on every system.
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{name}_seconds" for name in SECONDS), "scores", "commit"])
    for entry in entries:
        seconds = [repr(entry["seconds"][name]) for name in SECONDS]
        scores = " ".join(repr(score) for score in entry["scores"])
        values = [
            make_csv_safe(value) if isinstance(value, str) else value for value in map(entry.__getitem__, COLUMNS)
        ]
        writer.writerow([*values, *seconds, scores, _format_commit(entry)])
    return buffer.getvalue()


def rank(entry: dict[str, Any]) -> float:
    """Return what the entries of one metric are sorted by: the smallest rank is the best."""
    mean: float = entry["mean"]
    return -mean if entry["larger_is_better"] else mean


def _group(entry: dict[str, Any]) -> tuple[int, str, str]:
    """Return what the entries of one table have in common."""
    return entry["train_per_class"] or _ALL, entry["dataset"], entry["metric"]


def _make_line(entry: dict[str, Any]) -> list[str]:
    seconds = entry["seconds"]
    features = entry["features"] + "".join(variation.describe_on_page(entry) for variation in VARIATIONS)
    return [
        *map(escape_markdown, (features.replace("raw-pixels", "raw pixels"), entry["label"], entry["classifier"])),
        format_score("ok", entry["mean"], entry["std"], entry["unit"]),
        str(entry["n"]),
        f"{seconds['learn'] + seconds['refine'] + seconds['classify']:.2f}",
        f"{seconds['extract']:.2f}",
        f"`{entry['architecture']}`" if entry["architecture"] else "",
        _format_commit(entry)[:10],
    ]


def _format_commit(entry: dict[str, Any]) -> str:
    """Return the commits whose code gave an entry's results, or featbench's version where it was installed."""
    found = [
        (document["commit"] or f"v{document['versions']['featbench']}") + ("+edited" if document["dirty"] else "")
        for document in entry["provenance"]
    ]
    return " ".join(dict.fromkeys(found))
