"""What a published table is said to show, tested on measured cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from featbench.evaluation.published import Claim, Contrast, PublishedTable
from featbench.statistics.significance import corrected_resampled_test, holm

LEVEL = 0.05
"""A claim's contrasts are confirmed at this level, after Holm's correction over the claim."""


def judge_claims(
    claims: Sequence[Claim], table: PublishedTable, measured: pd.DataFrame, test_over_train: float
) -> pd.DataFrame:
    """Test each contrast of each claim on the draws that its cells share."""
    scores = {
        (row["row"], row["column"]): row["scores"] for row in measured.to_dict("records") if row["status"] == "ok"
    }
    published = {(row.name, column): value for row in table.rows for column, value in row.values.items()}
    judged: list[dict[str, Any]] = []
    for claim in claims:
        tested = [_contrast(contrast, scores, published, test_over_train) for contrast in claim.contrasts]
        known = [line for line in tested if line["p"] is not None]
        for line, p in zip(known, holm([line["p"] for line in known]), strict=True):
            line["p"], line["verdict"] = p, "confirmed" if p < LEVEL else "not confirmed"
        judged += [{"claim": claim.text, **line} for line in tested]
    return pd.DataFrame(judged)


def claim_verdict(verdicts: Sequence[str]) -> str:
    """Return what the verdicts on its contrasts say of a claim."""
    tested = [verdict for verdict in verdicts if not verdict.startswith("not tested")]
    if not tested:
        return "not tested"
    if any(verdict != "confirmed" for verdict in tested):
        return "not confirmed"
    return (
        "confirmed"
        if len(tested) == len(verdicts)
        else f"confirmed as far as tested ({len(tested)} of {len(verdicts)})"
    )


def _contrast(
    contrast: Contrast,
    scores: Mapping[tuple[str, str], Sequence[float]],
    published: Mapping[tuple[str, str], float],
    test_over_train: float,
) -> dict[str, Any]:
    places = dict.fromkeys((row, column) for _, row, column in contrast.terms)
    line: dict[str, Any] = {
        "contrast": contrast.text,
        "published": sum(weight * published[row, column] for weight, row, column in contrast.terms),
        **{"mean": None, "std": None, "n": 0, "p": None},
    }
    missing = [f"{row} {column}" for row, column in places if (row, column) not in scores]
    if missing:
        return {**line, "verdict": f"not tested: {', '.join(missing)} not measured"}
    weighted = [[weight * score for score in scores[row, column]] for weight, row, column in contrast.terms]
    values = [sum(draw) for draw in zip(*weighted, strict=True)]
    line |= {"mean": fmean(values), "n": len(values)}
    if len(values) < 2:
        return {**line, "verdict": "not tested: needs at least 2 draws"}
    p = corrected_resampled_test([value - contrast.above for value in values], test_over_train)
    return {**line, "std": stdev(values), "p": p, "verdict": ""}
