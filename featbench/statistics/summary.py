"""Statistics: a data frame in, numbers out."""

from __future__ import annotations

import pandas as pd

ROW = (
    "dataset",
    "protocol",
    "train_per_class",
    "test_per_class",
    "architecture",
    "learner",
    "regime",
    "label",
    "classifier",
    "metric",
    "unlabelled",
    "device",
    "precision",
    "refinement",
    "seed",
)
"""Columns that cells of one row share; what is left are draws."""


def summarise(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row for all draws of a learner × regime × classifier, in the order of the cells.

    Needs the columns `ROW`, draw, status, score, fit_seconds, extract_seconds, images_left_out, message. Adds mean and
    std (in the unit of score; ddof 1, missing for a single draw), n (draws that are ok), status, scores, and the mean
    seconds. There is no mean over a row that is incomplete.
    """
    return pd.DataFrame([_row(draws) for _, draws in cells.groupby(list(ROW), sort=False, dropna=False)])


def _row(draws: pd.DataFrame) -> dict[str, object]:
    ok = draws[draws["status"] == "ok"]
    complete = len(ok) == len(draws)
    messages = draws.loc[draws["status"] != "ok", "message"]
    return {
        **{column: draws[column].iloc[0] for column in ROW},
        "mean": float(ok["score"].mean()) if complete else None,
        "std": float(ok["score"].std(ddof=1)) if complete and len(ok) > 1 else None,
        "unit": "%",
        "n": len(ok),
        "draws": len(draws),
        "status": _status(draws["status"]),
        "fit_seconds": float(ok["fit_seconds"].mean()) if len(ok) else None,
        "extract_seconds": float(ok["extract_seconds"].mean()) if len(ok) else None,
        "scores": [float(score) for score in ok["score"]],
        "images_left_out": int(draws["images_left_out"].max()),
        "message": messages.iloc[0] if len(messages) else "",
    }


def _status(statuses: pd.Series[str]) -> str:
    """Return the worst status of a row's draws."""
    present = set(statuses)
    return next(status for status in ("failed", "not run", "skipped", "ok") if status in present)
