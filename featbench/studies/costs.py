"""What codes cost: the times of several ways to compute them, measured in one run, and their error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from time import perf_counter

from torch import Tensor

from featbench.studies.study import Value

REPEATS = 5
"""Number of calls behind each median, after a warm-up call that is not counted."""

Way = Callable[[Tensor], Tensor]
"""A function from patches [n, d] to codes [n, m]."""


def measure_costs(ways: Mapping[str, Way], rows: Tensor, optimal: Tensor) -> Iterator[dict[str, Value]]:
    """Yield a row for each way: its time, the ratio to the first one's time, and its error against the optimal codes.

    Patches are `rows` [n, d]; `optimal` are their optimal codes [n, m].
    """
    first = 0.0
    for name, way in ways.items():
        seconds, codes = measure_seconds(lambda way=way: way(rows))  # type: ignore[misc]
        first = first or seconds
        yield {
            "way": name,
            "µs per patch": 1e6 * seconds / len(rows),
            "times the first": seconds / first,
            "‖z* - z‖²": float((optimal - codes).square().sum(dim=1).mean()),
            "relative": float((optimal - codes).square().sum() / optimal.square().sum()),
        }


def measure_seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the median seconds of `REPEATS` calls, and what the last of them returned."""
    # The first call allocates memory and compiles; it would count as part of the cost.
    codes = call()
    seconds = []
    for _ in range(REPEATS):
        began = perf_counter()
        codes = call()
        seconds.append(perf_counter() - began)
    return median(seconds), codes
