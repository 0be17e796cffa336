import numpy as np
import pytest

from featbench.errors import PluginError
from featbench.evaluation.metrics import Metric
from featbench.evaluation.scoring import compute_score

PREDICTIONS, LABELS = np.array([0, 1, 1]), np.array([0, 1, 2])


def test_a_score_has_the_name_and_the_unit_of_its_metric():
    metric = Metric("hits", lambda predictions, labels, classes: float((predictions == labels).sum()), unit="images")
    score = compute_score(metric, PREDICTIONS, LABELS, 3)
    assert (score.metric, score.value, score.unit) == ("hits", 2.0, "images")


def test_a_metric_is_given_predictions_labels_and_the_number_of_classes():
    seen = []

    def watch(*arguments):
        seen.extend(arguments)
        return 1.0

    compute_score(Metric("watch", watch), PREDICTIONS, LABELS, 5)
    assert np.array_equal(seen[0], PREDICTIONS)
    assert seen[0] is not PREDICTIONS  # what a metric does to them is not kept
    assert seen[1] is LABELS
    assert seen[2:] == [5]


def test_a_metric_that_needs_scores_is_given_them_as_well():
    scores = np.eye(3)
    metric = Metric("highest", lambda predictions, labels, classes, scores: float(scores.max()), needs="scores")
    assert compute_score(metric, PREDICTIONS, LABELS, 3, scores).value == 1.0


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), 0.5])
def test_floats_of_numpy_become_those_of_python(value):
    score = compute_score(Metric("half", lambda *_: value), PREDICTIONS, LABELS, 3)
    assert type(score.value) is float
    assert score.value == 0.5


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), 1, True, None, "91.3", np.array(0.5), [0.5]]
)
def test_anything_but_a_finite_float_is_refused_with_the_name_of_the_metric(value):
    with pytest.raises(PluginError, match=r"metric odd gave .*, where a finite float is expected"):
        compute_score(Metric("odd", lambda *_: value), PREDICTIONS, LABELS, 3)
