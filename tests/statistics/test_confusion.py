import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from featbench.statistics.confusion import count_confusions, wilson_interval


@pytest.mark.parametrize("classes", [2, 3, 10, 102])
@pytest.mark.parametrize("count", [1, 5, 400])
def test_confusions_are_those_of_scikit_learn(classes, count):
    generator = np.random.default_rng(classes * count)
    labels, predictions = generator.integers(0, classes, (2, count))
    expected = confusion_matrix(labels, predictions, labels=np.arange(classes))
    assert np.array_equal(count_confusions(labels, predictions, classes), expected)


def test_classes_that_no_image_has_keep_their_place():
    counts = count_confusions(np.array([2, 2]), np.array([2, 0], dtype=np.int32), 4)
    assert counts.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    "right, count", [(0, 1), (1, 1), (0, 30), (30, 30), (1, 2), (3, 7), (19, 20), (50, 100), (999, 1000), (1, 5000)]
)
def test_intervals_are_those_of_scipy(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.999, 1.0])
def test_an_interval_holds_its_share_and_stays_between_0_and_1(share):
    low, high = wilson_interval(share, 3)
    assert 0 <= low <= share <= high <= 1


def test_without_trials_there_is_no_interval():
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(0.5, 0)
