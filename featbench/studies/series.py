"""Series: a comparison for each value of one quantity, as learning curves and curves by size need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featbench.comparison import Workbench
    from featbench.experiment.request import Request

Row = dict[str, Any]
"""A row of a comparison, and the value it belongs to."""

BASELINES = ("raw-pixels", "chance")


def compare_each(workbench: Workbench, requests: Mapping[Any, Request], column: str, unit: str) -> list[Row]:
    """Run a comparison for each value and return all rows, the value in `column`; what the store holds is read.

    Every request is planned first, so that what does not fit is said before anything is computed. unit: what stands
    after a value where progress is shown, as "filters".
    """
    for request in requests.values():
        workbench.plan(request)
    rows: list[Row] = []
    for number, (value, request) in enumerate(requests.items()):
        workbench.listener.step(f"{value} {unit}", number, len(requests))
        compared: list[dict[Any, Any]] = workbench.compare(request, track=False).rows.to_dict("records")
        rows += [{column: value, **row} for row in compared]
    return rows


def fingerprints(workbench: Workbench, rows: Sequence[Row]) -> dict[str, str]:
    """Return the fingerprints of the images that rows were measured on, by name."""
    from featbench.studies.natural import fingerprint

    found = {}
    for row in rows:
        name = str(row["dataset"])
        found[name] = workbench.registry.dataset(name).fingerprint(workbench.data_dir)
        if isinstance(row["unlabelled"], str):
            found |= fingerprint(workbench, row["unlabelled"])
    return found


def number(value: Any) -> float | None:
    """Return a number of a row, None where it is missing."""
    return None if value is None or value != value else float(value)
