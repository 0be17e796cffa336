"""The pages of a leaderboard: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from featbench.experiment.variations import VARIATIONS
from featbench.report.table import explain_deviation, score_text, with_unit

FIRST = (
    *("protocol", "dataset", "train_per_class", "architecture", "learner", "features", "regime", "label", "classifier"),
    *("metric", "mean", "std", "n", "seed", "device", "precision", "unlabelled", "refined_with"),
)
"""Columns of the CSV file in the order that published files have."""

COLUMNS = (*FIRST, *(variation.csv for variation in VARIATIONS if variation.csv and variation.csv not in FIRST))
"""All columns, besides the seconds and the commit: a new variation comes last."""

SECONDS = ("learn", "refine", "extract", "classify")


def render_page(protocol: str, entries: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown page of a leaderboard: a table for each number of training images, best rows first."""
    parts = [
        f"# Leaderboard: {protocol}",
        "Written by `featbench leaderboard render` from the files in [entries](entries); do not edit. "
        f"{explain_deviation(entry['unit'] for entry in entries)} Rows stand in the order of their means; neighbours "
        "need not differ significantly.",
    ]
    ordered = sorted(entries, key=_group)
    for (per_class, dataset, metric), group in groupby(ordered, key=_group):
        shown = sorted(group, key=rank)
        parts.append(f"## {dataset}, {per_class if per_class < _ALL else 'all'} training images per class")
        headers = [
            "features",
            "regime",
            "classifier",
            with_unit(metric, shown[0]["unit"]),
            "n",
            "fit s",
            "extract s",
            "architecture",
            "commit",
        ]
        alignment = ("left", "left", "left", "right", "right", "right", "right", "left", "left")
        parts.append(
            tabulate([_line(e) for e in shown], headers, tablefmt="github", disable_numparse=True, colalign=alignment)
        )
    return "\n\n".join(parts) + "\n"


def render_csv(entries: Sequence[dict[str, Any]]) -> str:
    """Return the entries as CSV, full precision, best first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{name}_seconds" for name in SECONDS), "scores", "commit"])
    for entry in entries:
        seconds = [repr(entry["seconds"][name]) for name in SECONDS]
        scores = " ".join(repr(score) for score in entry["scores"])
        writer.writerow([*(entry[name] for name in COLUMNS), *seconds, scores, _commit(entry)])
    return buffer.getvalue()


_ALL = 10**9
"""Sorts "all training images" after every number of them."""


def rank(entry: dict[str, Any]) -> float:
    """Return what entries of one metric are sorted by, the best first."""
    mean: float = entry["mean"]
    return -mean if entry["larger_is_better"] else mean


def _group(entry: dict[str, Any]) -> tuple[int, str, str]:
    return entry["train_per_class"] or _ALL, entry["dataset"], entry["metric"]


def _line(entry: dict[str, Any]) -> list[str]:
    seconds = entry["seconds"]
    features = entry["features"] + "".join(variation.describe_on_page(entry) for variation in VARIATIONS)
    return [
        features.replace("raw-pixels", "raw pixels"),
        entry["label"],
        entry["classifier"],
        score_text("ok", entry["mean"], entry["std"], entry["unit"]),
        str(entry["n"]),
        f"{seconds['learn'] + seconds['refine'] + seconds['classify']:.2f}",
        f"{seconds['extract']:.2f}",
        f"`{entry['architecture']}`" if entry["architecture"] else "",
        _commit(entry)[:10],
    ]


def _commit(entry: dict[str, Any]) -> str:
    """Return the commits that gave an entry's results, or featbench's version where it was installed."""
    found = [
        (document["commit"] or f"v{document['versions']['featbench']}") + ("+edited" if document["dirty"] else "")
        for document in entry["provenance"]
    ]
    return " ".join(dict.fromkeys(found))
