"""The built-in metrics beside those of scikit-learn, and by hand where classes are missing or scores are equal."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from featbench.protocols.metrics import METRICS
from featbench.registry import Registry

BY_NAME = {metric.name: metric for metric in METRICS}

CLASSES = 7

PAIRS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=60)
"""A label and a prediction of each image; classes may be missing among either."""


def compute(name, predictions, labels, classes=CLASSES, *scores):
    return BY_NAME[name].function(np.asarray(predictions), np.asarray(labels), classes, *scores)


def balanced_accuracy(labels, predictions):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that are predicted and never true
        return reference.balanced_accuracy_score(labels, predictions)


REFERENCES = {
    "accuracy": reference.accuracy_score,
    "error": lambda labels, predictions: 1 - reference.accuracy_score(labels, predictions),
    "mean-per-class-accuracy": balanced_accuracy,
    "balanced": balanced_accuracy,
    "macro-f1": lambda labels, predictions: reference.f1_score(labels, predictions, average="macro", zero_division=0),
}


def test_every_metric_is_compared_with_another_implementation():
    assert set(BY_NAME) == {*REFERENCES, "top-5-accuracy"} == set(Registry().names("metrics"))


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(PAIRS)
def test_metrics_are_those_of_scikit_learn_in_percent(name, pairs):
    labels, predictions = np.array(pairs).T
    expected = 100 * REFERENCES[name](labels, predictions)
    assert compute(name, predictions, labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_top_5_is_that_of_scikit_learn_where_no_scores_are_equal(seed):
    generator = np.random.default_rng(seed)
    labels, scores = generator.integers(0, 12, 200), generator.normal(size=(200, 12))
    expected = reference.top_k_accuracy_score(labels, scores, k=5, labels=np.arange(12))
    assert compute("top-5-accuracy", scores.argmax(axis=1), labels, 12, scores) == pytest.approx(100 * expected)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(-1, 2), min_size=8, max_size=8), min_size=1, max_size=10), st.data())
def test_of_equal_scores_the_first_classes_come_first(rows, data):
    labels = [data.draw(st.integers(0, 7)) for _ in rows]
    scores = np.array(rows, dtype=float)
    scores[scores < 0] = -np.inf  # a class that is never predicted
    first = [sorted(range(8), key=lambda label: (-row[label], label))[:5] for row in scores]
    expected = 100 * np.mean([label in five for label, five in zip(labels, first, strict=True)])
    assert compute("top-5-accuracy", scores.argmax(axis=1), labels, 8, scores) == pytest.approx(expected)


def test_all_are_among_five_of_five_classes():
    scores = np.zeros((3, 5))
    assert compute("top-5-accuracy", [0, 0, 0], [0, 2, 4], 5, scores) == 100
    assert compute("top-5-accuracy", [0, 0], [4, 5], 6, np.zeros((2, 6))) == 50


def test_small_classes_count_as_much_as_large_ones_in_the_mean_per_class():
    labels, predictions = [0, 0, 0, 0, 1], [0, 0, 0, 1, 0]
    assert compute("accuracy", predictions, labels, 2) == pytest.approx(60)
    assert compute("mean-per-class-accuracy", predictions, labels, 2) == pytest.approx(37.5)


def test_class_without_test_images_has_no_part_in_the_mean():
    assert compute("mean-per-class-accuracy", [0, 1, 3], [0, 0, 3], 5) == pytest.approx(75)


@pytest.mark.parametrize("name", REFERENCES)
def test_all_right_and_all_wrong(name):
    labels = np.array([0, 1, 2, 2])
    best, worst = (100, 0) if BY_NAME[name].larger_is_better else (0, 100)
    assert compute(name, labels, labels, 3) == best
    assert compute(name, (labels + 1) % 3, labels, 3) == worst


@pytest.mark.parametrize("name", REFERENCES)
def test_an_index_that_is_no_class_is_a_wrong_prediction(name):
    # Two of four images are recognised, each the only one of its class; the others' predictions are no class at all.
    assert compute(name, [0, 1, -1, 9], [0, 1, 2, 3], 4) == pytest.approx(50)


def test_errors_alone_are_better_if_smaller_and_all_are_in_percent():
    assert {name for name, metric in BY_NAME.items() if not metric.larger_is_better} == {"error"}
    assert {metric.unit for metric in METRICS} == {"%"}
    assert {name for name, metric in BY_NAME.items() if metric.needs == "scores"} == {"top-5-accuracy"}
    assert all(metric.summary for metric in METRICS)


def test_scores_of_earlier_versions_are_the_same_to_the_last_bit():
    """As these versions computed them."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 102, 3000)
    predictions = np.where(generator.random(3000) < 0.6, labels, generator.integers(0, 102, 3000))
    right = predictions == labels
    counts, hits = np.bincount(labels, minlength=102), np.bincount(labels[right], minlength=102)
    assert compute("accuracy", predictions, labels, 102) == 100 * float(right.mean())
    mean = 100 * float((hits[counts > 0] / counts[counts > 0]).mean())
    assert compute("mean-per-class-accuracy", predictions, labels, 102) == mean
