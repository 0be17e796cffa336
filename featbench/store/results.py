"""Results as records of the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from featbench.types import Result, Score, Seconds, Status


def describe_result(result: Result, cell: Mapping[str, Any], predictions: str | None) -> dict[str, Any]:
    """Return the record of a result.

    cell: the description of its cell. predictions: the SHA-256 of the file of its predictions; None if it has none.
    """
    return {
        "cell": dict(cell),
        "key": result.key,
        "status": result.status,
        "score": None if result.score is None else asdict(result.score),
        "seconds": asdict(result.seconds),
        "report": dict(result.report),
        "message": result.message,
        "traceback": result.traceback,
        "provenance": result.provenance,
        "predictions": predictions,
    }


def restore_result(document: Mapping[str, Any]) -> Result:
    """Rebuild a result from its record, without its predictions.

    Raises `KeyError`, `TypeError` or `ValueError` for a record that another version wrote, or a hand.
    """
    result = Result(
        key=document["key"],
        status=document["status"],
        score=None if document["score"] is None else Score(**document["score"]),
        seconds=Seconds(**document["seconds"]),
        report=dict(document["report"]),
        message=document["message"],
        traceback=document["traceback"],
        provenance=document["provenance"],
    )
    if result.status not in get_args(Status) or (result.status == "ok") != (result.score is not None):
        raise ValueError(f"a result that is {result.status!r}")
    texts = [result.key, result.message, result.traceback, result.provenance]
    numbers = [*asdict(result.seconds).values()]
    if result.score is not None:
        texts += [result.score.metric, result.score.unit]
        numbers.append(result.score.value)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text of a result is none")
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise TypeError("a number of a result is none")
    return result
