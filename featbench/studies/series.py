"""Series of comparisons, one for each value of a quantity: the points of learning curves and of curves by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featbench.comparison import Workbench
    from featbench.experiment.request import Request

Row = dict[str, Any]
"""A row of a comparison, the value it belongs to, and in `baseline` whether its protocol adds it to every table."""


def compare_each(workbench: Workbench, requests: Mapping[Any, Request], column: str, unit: str) -> list[Row]:
    """Run a comparison for each value, and return the rows of all of them with the value in `column`, and `baseline`.

    Cells that are in the store are not computed again. `unit` stands after a value where progress is shown, such as
    "filters". Raises what planning any of the requests raises, before anything is computed.
    """
    # A request that fails an hour into the series would waste that hour: plan them all first.
    for request in requests.values():
        workbench.plan(request)
    rows: list[Row] = []
    for number, (value, request) in enumerate(requests.items()):
        workbench.listener.step(f"{value} {unit}", number, len(requests))
        comparison = workbench.compare(request, track=False)
        compared: list[dict[Any, Any]] = comparison.rows.to_dict("records")
        baselines = workbench.list_baselines(comparison.protocol)
        rows += [{column: value, "baseline": (row["learner"], row["regime"]) in baselines, **row} for row in compared]
    return rows


def read_fingerprints(workbench: Workbench, rows: Sequence[Row]) -> dict[str, str]:
    """Return the fingerprints of the images that rows were measured on, by data set or folder."""
    from featbench.studies.natural import read_fingerprint

    found = {}
    for row in rows:
        name = str(row["dataset"])
        found[name] = workbench.registry.dataset(name).fingerprint(workbench.data_dir)
        if isinstance(row["unlabelled"], str):
            found |= read_fingerprint(workbench, row["unlabelled"])
    return found


def read_number(value: Any) -> float | None:
    """Return a number of a row, or None if it is missing: None or NaN, as pandas may give either."""
    return None if value is None or value != value else float(value)
