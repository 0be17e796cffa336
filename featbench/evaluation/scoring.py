"""The scorer: the only place that sees test labels."""

from __future__ import annotations

import numpy as np

from featbench.errors import PluginError
from featbench.evaluation.protocol import Metric
from featbench.types import IntArray, Score


def compute_score(metric: Metric, predictions: IntArray, labels: IntArray, classes: int) -> Score:
    """Return the percentage of right answers, over all test images or as the mean over their classes."""
    if np.shape(predictions) != labels.shape:
        raise PluginError(f"the classifier gave predictions of shape {np.shape(predictions)} for {len(labels)} images")
    right = np.asarray(predictions) == labels
    if metric == "accuracy":
        return Score(metric, 100 * float(right.mean()))
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[right], minlength=classes)
    return Score(metric, 100 * float((hits[counts > 0] / counts[counts > 0]).mean()))
