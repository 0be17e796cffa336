"""What codes cost: times of the ways to them, measured in one run, and how far from the optimum each ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from time import perf_counter

from torch import Tensor

from featbench.studies.study import Value

REPEATS = 5
"""Each time is the median of so many calls, after one that does not count."""

Way = Callable[[Tensor], Tensor]
"""Takes patches that are rows [n, d] to codes [n, m]."""


def cost_rows(ways: Mapping[str, Way], rows: Tensor, optimal: Tensor) -> Iterator[dict[str, Value]]:
    """Yield a row for each way: its cost, its ratio to the first one's, and its error against the optimal codes."""
    first = 0.0
    for name, way in ways.items():
        seconds, codes = median_seconds(lambda way=way: way(rows))  # type: ignore[misc]
        first = first or seconds
        yield {
            "way": name,
            "µs per patch": 1e6 * seconds / len(rows),
            "times the first": seconds / first,
            "‖z* - z‖²": float((optimal - codes).square().sum(dim=1).mean()),
            "relative": float((optimal - codes).square().sum() / optimal.square().sum()),
        }


def median_seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the median seconds of a few calls, and what the last of them gave."""
    codes = call()
    seconds = []
    for _ in range(REPEATS):
        began = perf_counter()
        codes = call()
        seconds.append(perf_counter() - began)
    return median(seconds), codes
