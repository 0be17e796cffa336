"""The built-in metrics, by which protocols score; `evaluation.metrics` says what a metric is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featbench.evaluation.metrics import Metric
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray

RANKS = 5
"""Classes among which `top-5-accuracy` looks for the right one."""


def compute_accuracy(predictions: IntArray, labels: IntArray, classes: int) -> float:
    """Return the percentage of test images whose class was predicted."""
    return 100 * float((predictions == labels).mean())


def compute_error(predictions: IntArray, labels: IntArray, classes: int) -> float:
    """Return the percentage of test images whose class was not predicted."""
    return 100 * float((predictions != labels).mean())


def compute_mean_recall(predictions: IntArray, labels: IntArray, classes: int) -> float:
    """Return the mean over classes of the percentage of their test images that were recognised.

    Classes without test images have no recall, and no part in the mean.
    """
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predictions == labels], minlength=classes)
    return 100 * float((hits[counts > 0] / counts[counts > 0]).mean())


def compute_top_5(predictions: IntArray, labels: IntArray, classes: int, scores: FloatArray) -> float:
    """Return the percentage of test images whose class is among the five of largest score.

    Of classes with equal scores the first stands first, as in classifiers' predictions.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    before = (scores > own) | ((scores == own) & earlier)
    return 100 * float((before.sum(axis=1) < RANKS).mean())


def compute_macro_f1(predictions: IntArray, labels: IntArray, classes: int) -> float:
    """Return the mean over classes of F₁, in percent: of the harmonic mean of precision and recall.

    F₁ = 2 hits / (images + predictions) of a class. A class that is neither among the labels nor predicted has none,
    and no part in the mean.
    """
    hits = np.bincount(labels[predictions == labels], minlength=classes)
    # An index outside the classes is a wrong prediction like any other, but of no class that could lose precision.
    predicted = predictions[(predictions >= 0) & (predictions < classes)]
    counts = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    present: NDArray[np.bool_] = counts > 0
    return 100 * float((2 * hits[present] / counts[present]).mean())


METRICS = (
    Metric("accuracy", compute_accuracy, "%", summary="right predictions among all test images"),
    Metric("error", compute_error, "%", larger_is_better=False, summary="wrong predictions among all test images"),
    Metric("mean-per-class-accuracy", compute_mean_recall, "%", summary="mean over classes of their accuracies"),
    Metric(
        "balanced", compute_mean_recall, "%", summary="balanced accuracy: mean-per-class-accuracy by its other name"
    ),
    Metric("macro-f1", compute_macro_f1, "%", summary="mean over classes of the harmonic mean of precision and recall"),
    Metric(
        "top-5-accuracy",
        compute_top_5,
        "%",
        summary="right class among the five of largest score",
        needs="scores",
    ),
)


@hookimpl
def featbench_metrics() -> list[Metric]:
    """Register the metrics."""
    return list(METRICS)
