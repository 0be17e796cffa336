import dataclasses
from functools import partial

import pytest

import featbench
from featbench.errors import PluginError


def count_right(predictions, labels, classes):
    return float((predictions == labels).sum())


class Counter:
    def __call__(self, predictions, labels, classes):
        return 1.0

    def count(self, predictions, labels, classes):
        return 1.0


def test_a_metric_says_what_a_plugin_author_left_out():
    metric = featbench.Metric("right", count_right)
    assert (metric.unit, metric.larger_is_better, metric.needs, metric.summary) == ("", True, "predictions", "")


def test_a_metric_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        featbench.Metric("right", count_right).unit = "%"


@pytest.mark.parametrize("function", [max, Counter(), Counter().count, partial(count_right, classes=3), Counter, None])
def test_a_function_whose_source_is_not_known_is_refused(function):
    with pytest.raises(PluginError, match="metric right: define its function with def in a file"):
        featbench.Metric("right", function)


@pytest.mark.parametrize("needs", ["score", "", None, "labels"])
def test_a_metric_needs_predictions_or_scores(needs):
    with pytest.raises(PluginError, match=r"metric right needs .*: it must be one of predictions, scores"):
        featbench.Metric("right", count_right, needs=needs)
