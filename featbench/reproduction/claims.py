"""Claims: what a published table is claimed to show, tested on what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from featbench.evaluation.metrics import Metric
from featbench.evaluation.published import Claim, Contrast, PublishedTable
from featbench.statistics.significance import corrected_resampled_test, holm

LEVEL = 0.05
"""A claim's contrasts are confirmed at this level, after Holm's correction over the claim."""

Place = tuple[str, str]
"""Row and column of a number."""


def judge_claims(
    claims: Sequence[Claim], table: PublishedTable, measured: pd.DataFrame, test_over_train: float, metric: Metric
) -> pd.DataFrame:
    """Test each contrast of each claim of a table on the draws that its cells share.

    measured: the rows of a reproduction, scored by `metric`. test_over_train: number of test images over number of
    training images. Returns a row for each contrast: claim, contrast, published, mean, std, n, p (adjusted by Holm),
    verdict.
    """
    scores = {
        (row["row"], row["column"]): row["scores"] for row in measured.to_dict("records") if row["status"] == "ok"
    }
    published = {(row.name, column): value for row in table.rows for column, value in row.values.items()}
    judged: list[dict[str, Any]] = []
    for claim in claims:
        tested = [_test_contrast(contrast, metric, scores, published, test_over_train) for contrast in claim.contrasts]
        known = [line for line in tested if line["p"] is not None]
        # Each contrast has a verdict of its own, and of many some would be confirmed by accident.
        for line, p in zip(known, holm([line["p"] for line in known]), strict=True):
            line["p"], line["verdict"] = p, "confirmed" if p < LEVEL else "not confirmed"
        judged += [{"claim": claim.text, **line} for line in tested]
    return pd.DataFrame(judged)


def combine_verdicts(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim, given those on its contrasts."""
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


def _test_contrast(
    contrast: Contrast,
    metric: Metric,
    scores: Mapping[Place, Sequence[float]],
    published: Mapping[Place, float],
    test_over_train: float,
) -> dict[str, Any]:
    """Return the published and the measured sum of a contrast, and the p-value of its being better than its bound."""
    places = dict.fromkeys((row, column) for _, row, column in contrast.terms)
    line: dict[str, Any] = {
        "contrast": contrast.text,
        "published": sum(weight * published[row, column] for weight, row, column in contrast.terms),
        **{"mean": None, "std": None, "n": 0, "p": None},
    }
    missing = [f"{row} {column}" for row, column in places if (row, column) not in scores]
    if missing:
        return {**line, "verdict": f"not tested: {', '.join(missing)} not measured"}
    # Draw by draw: cells of one draw share their images, so that what is peculiar to these images cancels.
    weighted = [[weight * score for score in scores[row, column]] for weight, row, column in contrast.terms]
    values = [sum(draw) for draw in zip(*weighted, strict=True)]
    line |= {"mean": fmean(values), "n": len(values)}
    if len(values) < 2:
        return {**line, "verdict": "not tested: needs at least 2 draws"}
    better = values if metric.larger_is_better else [-value for value in values]
    size = max(abs(score) for place in places for score in scores[place])
    p = corrected_resampled_test([value - contrast.above for value in better], test_over_train, size)
    return {**line, "std": stdev(values), "p": p, "verdict": ""}
