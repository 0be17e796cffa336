import numpy as np
import pytest

from featbench.errors import PluginError
from featbench.evaluation.split import draw_split
from featbench.evaluation.task import CLASSIFICATION, TASKS, Classification
from featbench.types import Images

IMAGES = Images(np.zeros((6, 1, 1)), np.array([2, 0, 1, 1, 0, 2]), ("ant", "bee", "cat"))


def test_classification_predicts_the_labels_and_draws_by_them():
    task = TASKS["classification"]
    assert task.find_targets(IMAGES).tolist() == task.find_strata(IMAGES).tolist() == [2, 0, 1, 1, 0, 2]
    assert task.stored_as is np.int32


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint16])
def test_class_indices_of_any_integer_type_are_class_indices(kind):
    found = CLASSIFICATION.check_predictions(np.array([2, 0], dtype=kind), 2, 3, "nearest")
    assert (found.dtype, found.tolist()) == (np.int64, [2, 0])
    assert CLASSIFICATION.check_predictions([2, 0], 2, 3, "nearest").tolist() == [2, 0]


@pytest.mark.parametrize("predictions", [np.zeros(3, int), np.zeros((4, 2), int), np.zeros(5, int), np.zeros((), int)])
def test_predictions_that_are_not_one_an_image_are_refused_with_their_shape(predictions):
    with pytest.raises(PluginError) as caught:
        CLASSIFICATION.check_predictions(predictions, 4, 3, "nearest")
    assert f"classifier nearest gave predictions of shape {predictions.shape} for 4 images" in str(caught.value)


@pytest.mark.parametrize(
    "predictions, kind",
    [([0.5, 1.0], "float64"), ([float("nan")] * 2, "float64"), (["a", "b"], "<U1"), ([True] * 2, "bool")],
)
def test_predictions_that_are_not_integers_are_refused_with_their_type(predictions, kind):
    with pytest.raises(PluginError, match=f"classifier nearest predicted values of type {kind}; class indices are int"):
        CLASSIFICATION.check_predictions(predictions, 2, 3, "nearest")


@pytest.mark.parametrize(
    ("predictions", "first", "count"),
    [
        ([0, 3], 3, 1),
        ([-1, 2], -1, 1),
        ([3, -1], 3, 2),
        ([2**40, 0], 2**40, 1),
        (np.array([255, 0], np.uint8), 255, 1),
        (np.array([-128, 0], np.int8), -128, 1),
        (np.array([2**63, 0], np.uint64), 2**63, 1),
        ([1, 10**6], 10**6, 1),
        ([-(2**63), -(2**63)], -(2**63), 2),
        (np.array([0, 4], np.uint32), 4, 1),
    ],
)
def test_predictions_outside_the_classes_are_refused_with_the_first_of_them(predictions, first, count):
    with pytest.raises(PluginError) as caught:
        CLASSIFICATION.check_predictions(predictions, 2, 3, "nearest")
    said = str(caught.value)
    assert f"classifier nearest predicted class {first} for an image, and {count} of 2 images lie outside the 3" in said


class ByHalves(Classification):
    """A task that draws from the two halves of the data set, whatever the classes."""

    def find_strata(self, images):
        return (np.arange(len(images.labels)) >= len(images.labels) // 2).astype(np.int64)


def test_a_draw_takes_equally_many_images_of_the_strata_of_its_task():
    labels = np.arange(40) % 2
    images = Images(np.zeros((40, 1, 1)), labels, ("even", "odd"))
    options = {"train_per_class": 6, "validation_fraction": 1 / 3, "test": "rest", "seed": 3, "draw": 1}
    split = draw_split(images, **options, test_per_class=5, task=ByHalves())
    for part, count in ((split.train, 6), (split.train[split.validation], 2), (split.test, 5)):
        assert np.bincount(part >= 20).tolist() == [count, count]
    assert np.array_equal(draw_split(images, **options).train, draw_split(images, **options, task=CLASSIFICATION).train)
