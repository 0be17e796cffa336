"""Means over draws: a data frame in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def summarise(cells: pd.DataFrame, shared: Sequence[str]) -> pd.DataFrame:
    """Return one row for all draws of a learner × regime × classifier, in the order of the cells.

    shared: columns that the draws of a row have in common, and cells of different rows do not. Besides these needs the
    columns status, score, unit, fit_seconds, extract_seconds, images_left_out, message. Adds mean and std (ddof 1;
    missing for a single draw) in the unit of the scores, n (draws that are ok), draws, status, scores, and the mean
    seconds. There is no mean over a row that is incomplete.
    """
    # Missing values are a group of their own (dropna): rows without unlabelled images would vanish otherwise.
    groups = cells.groupby(list(shared), sort=False, dropna=False)
    return pd.DataFrame([_summarise_row(draws, shared) for _, draws in groups])


def _summarise_row(draws: pd.DataFrame, shared: Sequence[str]) -> dict[str, object]:
    ok = draws[draws["status"] == "ok"]
    # The mean of the draws that happened to work would not be comparable with that of other rows.
    complete = len(ok) == len(draws)
    messages = draws.loc[draws["status"] != "ok", "message"]
    return {
        **{column: draws[column].iloc[0] for column in shared},
        "mean": float(ok["score"].mean()) if complete else None,
        "std": float(ok["score"].std(ddof=1)) if complete and len(ok) > 1 else None,
        "unit": draws["unit"].iloc[0],
        "n": len(ok),
        "draws": len(draws),
        "status": _find_worst(draws["status"]),
        "fit_seconds": float(ok["fit_seconds"].mean()) if len(ok) else None,
        "extract_seconds": float(ok["extract_seconds"].mean()) if len(ok) else None,
        "scores": [float(score) for score in ok["score"]],
        "images_left_out": int(draws["images_left_out"].max()),
        "message": messages.iloc[0] if len(messages) else "",
    }


def _find_worst(statuses: pd.Series[str]) -> str:
    """Return the worst status of a row's draws."""
    present = set(statuses)
    return next(status for status in ("failed", "not run", "skipped", "ok") if status in present)
