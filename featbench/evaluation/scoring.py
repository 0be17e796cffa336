"""The scorer: nothing else sees the test images' targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.errors import PluginError
from featbench.evaluation.metrics import Metric
from featbench.system.global_state import keep_global_state
from featbench.types import FloatArray, Score


def compute_score(
    metric: Metric,
    predictions: NDArray[Any],
    targets: NDArray[Any],
    classes: int,
    scores: FloatArray | None = None,
) -> Score:
    """Return what a metric gives for predictions of m test images.

    predictions, targets: [m, …], as the protocol's task has checked them. scores: [m, classes], for a metric that
    needs them. Raises `PluginError` if the metric gives anything but a finite float.
    """
    # A copy, since a metric that sorts its predictions must not sort those that are kept.
    arguments = (predictions.copy(), targets, classes, *(() if scores is None else (scores,)))
    with keep_global_state():
        value = metric.function(*arguments)
    # A NaN would vanish from means and sort anywhere, an int or a bool is most likely a count that was not divided.
    if not isinstance(value, float | np.floating) or not math.isfinite(value):
        raise PluginError(f"metric {metric.name} gave {value!r}, where a finite float is expected")
    return Score(metric.name, float(value), metric.unit)
