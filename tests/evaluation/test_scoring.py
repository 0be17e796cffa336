import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from featbench.errors import PluginError
from featbench.evaluation.scoring import compute_score


def drawn(seed, n=500, classes=7):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    return np.where(generator.random(n) < 0.6, labels, generator.integers(0, classes, n)), labels


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_scikit_learn(seed):
    predictions, labels = drawn(seed)
    accuracy = compute_score("accuracy", predictions, labels, 7)
    balanced = compute_score("mean-per-class-accuracy", predictions, labels, 7)
    assert accuracy.value == pytest.approx(100 * accuracy_score(labels, predictions), abs=1e-10)
    assert balanced.value == pytest.approx(100 * balanced_accuracy_score(labels, predictions), abs=1e-10)
    assert (accuracy.metric, balanced.metric) == ("accuracy", "mean-per-class-accuracy")
    assert accuracy.value != balanced.value


def test_small_classes_count_as_much_as_large_ones_in_the_mean_per_class():
    labels, predictions = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 0])
    assert compute_score("accuracy", predictions, labels, 2).value == pytest.approx(60)
    assert compute_score("mean-per-class-accuracy", predictions, labels, 2).value == pytest.approx(37.5)


def test_class_without_test_images_has_no_part_in_the_mean():
    labels, predictions = np.array([0, 0, 3]), np.array([0, 1, 3])
    assert compute_score("mean-per-class-accuracy", predictions, labels, 5).value == pytest.approx(75)


@pytest.mark.parametrize("metric", ["accuracy", "mean-per-class-accuracy"])
def test_all_right_and_all_wrong(metric):
    labels = np.array([0, 1, 2, 2])
    assert compute_score(metric, labels, labels, 3).value == 100
    assert compute_score(metric, (labels + 1) % 3, labels, 3).value == 0


@pytest.mark.parametrize("predictions", [np.zeros(3), np.zeros((4, 2)), np.zeros(5), np.zeros(())])
def test_predictions_that_are_not_one_an_image_are_refused_with_their_shape(predictions):
    with pytest.raises(PluginError) as caught:
        compute_score("accuracy", predictions, np.zeros(4, dtype=np.int64), 3)
    assert str(predictions.shape) in str(caught.value)
    assert "4 images" in str(caught.value)
