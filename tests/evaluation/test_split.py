import inspect
import json

import numpy as np
import pytest

from featbench.errors import SplitError
from featbench.evaluation.split import Census, draw_split, hold_out
from featbench.types import Images

CLASSES = ("ant", "bee", "cat")


def images(counts=(12, 20, 30), own_test=None):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    test = None
    if own_test is not None:
        test = np.zeros(len(labels), dtype=bool)
        for label, count in enumerate(own_test):
            test[np.flatnonzero(labels == label)[:count]] = True
    return Images(np.zeros((len(labels), 1, 1)), labels.astype(np.int64), CLASSES[: len(counts)], test)


def draw(given, train_per_class=6, validation_fraction=1 / 6, test="rest", seed=0, number=0, test_per_class=None):
    return draw_split(
        given,
        train_per_class=train_per_class,
        validation_fraction=validation_fraction,
        test=test,
        seed=seed,
        draw=number,
        test_per_class=test_per_class,
    )


def counts(labels):
    return np.bincount(labels, minlength=3).tolist()


@pytest.mark.parametrize("number", range(5))
def test_training_and_rest_are_disjoint_and_everything(number):
    given = images()
    split = draw(given, number=number)
    assert sorted([*split.train, *split.test]) == list(range(62))
    assert counts(given.labels[split.train]) == [6, 6, 6]
    assert counts(given.labels[split.test]) == [6, 14, 24]


def test_indices_are_sorted_and_validation_marks_training_images():
    split = draw(images())
    assert np.array_equal(split.train, np.sort(split.train))
    assert np.array_equal(split.test, np.sort(split.test))
    assert split.validation.dtype == bool
    assert split.validation.shape == split.train.shape


@pytest.mark.parametrize(
    ("train_per_class", "fraction", "expected"),
    [(6, 1 / 6, 1), (10, 0.3, 3), (10, 0.5, 5), (2, 1 / 6, 1), (2, 0.9, 1), (5, 0.0, 1), (5, 1.0, 4), (11, 1 / 6, 2)],
)
def test_validation_is_a_part_of_each_class_and_never_none_nor_all_of_it(train_per_class, fraction, expected):
    given = images()
    split = draw(given, train_per_class, fraction)
    assert counts(given.labels[split.train[split.validation]]) == [expected] * 3
    assert counts(given.labels[split.train[~split.validation]]) == [train_per_class - expected] * 3


def test_own_test_images_are_tested_on_and_nothing_else():
    given = images(own_test=(3, 5, 7))
    split = draw(given, test="fixed")
    assert np.array_equal(split.test, np.flatnonzero(given.test))
    assert not given.test[split.train].any()
    assert counts(given.labels[split.train]) == [6, 6, 6]


@pytest.mark.parametrize(
    ("test_per_class", "expected"), [(1, [1, 1, 1]), (8, [6, 8, 8]), (14, [6, 14, 14]), (100, [6, 14, 24])]
)
def test_at_most_so_many_of_the_rest_are_tested_of_each_class(test_per_class, expected):
    given = images()
    whole, part = draw(given), draw(given, test_per_class=test_per_class)
    assert np.array_equal(whole.train, part.train)
    assert np.array_equal(whole.validation, part.validation)
    assert counts(given.labels[part.test]) == expected
    assert set(part.test) <= set(whole.test)
    assert np.array_equal(part.test, np.unique(part.test))


@pytest.mark.parametrize(("test_per_class", "expected"), [(1, [1, 1, 1]), (4, [3, 4, 4]), (9, [3, 5, 7])])
def test_at_most_so_many_of_the_sets_own_test_images_are_tested_of_each_class(test_per_class, expected):
    given = images(own_test=(3, 5, 7))
    part = draw(given, test="fixed", test_per_class=test_per_class)
    assert counts(given.labels[part.test]) == expected
    assert given.test[part.test].all()
    assert np.array_equal(part.train, draw(given, test="fixed").train)


@pytest.mark.parametrize("test", ["rest", "fixed"])
def test_seed_and_draw_decide_which_of_the_test_images_are_tested(test):
    given = images((40, 40, 40), own_test=(20, 20, 20))
    first, again = (draw(given, 2, test=test, seed=3, number=2, test_per_class=5) for _ in range(2))
    assert np.array_equal(first.test, again.test)
    for change in ({"seed": 4, "number": 2}, {"seed": 3, "number": 1}):
        assert not np.array_equal(first.test, draw(given, 2, test=test, test_per_class=5, **change).test)


def test_every_test_image_is_tested_in_about_as_many_draws():
    given = images((20, 20, 20), own_test=(10, 10, 10))
    tested = np.zeros(60)
    for number in range(400):
        tested[draw(given, 5, test="fixed", number=number, test_per_class=4).test] += 1
    # Two fifths of 400 draws; 4.5 standard deviations.
    assert np.abs(tested[given.test] - 160).max() < 45
    assert not tested[~given.test].any()


def test_all_training_images_of_a_set_with_its_own_test_images():
    given = images(own_test=(3, 5, 7))
    split = draw(given, None, test="fixed")
    assert np.array_equal(split.train, np.flatnonzero(~given.test))
    assert counts(given.labels[split.train[split.validation]]) == [2, 2, 4]


def test_rest_ignores_the_sets_own_test_images():
    given = images(own_test=(3, 5, 7))
    split = draw(given, test="rest")
    assert sorted([*split.train, *split.test]) == list(range(62))


def test_seed_and_draw_decide_the_split():
    given = images()
    first, again = draw(given, seed=3, number=2), draw(given, seed=3, number=2)
    assert np.array_equal(first.train, again.train)
    assert np.array_equal(first.validation, again.validation)
    assert np.array_equal(first.test, again.test)
    others = [draw(given, seed=3, number=number) for number in (0, 1, 3)] + [draw(given, seed=4, number=2)]
    for other in others:
        assert not np.array_equal(first.train, other.train)


def test_split_is_the_same_for_every_learner_for_it_is_told_of_none():
    assert list(inspect.signature(draw_split).parameters) == [
        "images",
        "train_per_class",
        "validation_fraction",
        "test",
        "seed",
        "draw",
        "test_per_class",
        "task",
    ]
    given = images()
    first = draw(given)
    np.random.seed(1)
    np.random.random(5)
    brighter = Images(given.pixels + 1, given.labels, given.classes)
    assert np.array_equal(first.train, draw(brighter).train)


def test_fewer_training_images_are_part_of_more():
    given = images()
    few, many = draw(given, 4), draw(given, 9)
    assert set(few.train) < set(many.train)


def test_every_image_trains_in_about_as_many_draws():
    given = images((20, 20, 20))
    trained = np.zeros(60)
    validated = np.zeros(60)
    for number in range(400):
        split = draw(given, 5, 0.4, number=number)
        trained[split.train] += 1
        validated[split.train[split.validation]] += 1
    # A quarter of 400 draws, and two fifths of those; 4.5 standard deviations.
    assert np.abs(trained - 100).max() < 40
    assert np.abs(validated - 40).max() < 29


@pytest.mark.parametrize(
    ("counts", "own_test", "train_per_class", "test", "parts"),
    [
        (
            (12, 6, 30),
            None,
            6,
            "rest",
            ["class 'bee' has 6 images", "6 are asked for training and at least 1 for testing"],
        ),
        ((12, 20, 5), None, 6, "rest", ["class 'cat' has 5 images", "--train-per-class"]),
        ((12, 20, 30), (3, 5, 25), 6, "fixed", ["class 'cat' has 5 images", "6 are asked for training:"]),
        ((12, 6, 30), (0, 5, 0), None, "fixed", ["class 'bee' has 1 images", "2 are asked"]),
        ((12, 20, 30), None, 1, "rest", ["1 training images per class", "at least 2"]),
        ((12, 20, 30), None, 0, "rest", ["0 training images per class", "at least 2"]),
        ((12, 20, 30), None, None, "rest", ["leaves none to test on"]),
        ((12, 20, 30), None, 6, "fixed", ["own test images, but it has none"]),
        ((12, 20, 30), (0, 0, 0), 6, "fixed", ["own test images, but it has none"]),
    ],
)
def test_split_that_cannot_be_drawn_names_class_and_numbers(counts, own_test, train_per_class, test, parts):
    given = images(counts, own_test)
    with pytest.raises(SplitError) as caught:
        draw(given, train_per_class, test=test)
    for part in parts:
        assert part in str(caught.value)


def test_just_enough_images_are_enough():
    given = images((7, 7, 7))
    assert counts(given.labels[draw(given, 6).test]) == [1, 1, 1]
    assert len(draw(images((6, 6, 6), (0, 0, 1)), 5, test="fixed").test) == 1


def test_census_counts_and_survives_json():
    census = Census.of(images(own_test=(3, 5, 7)))
    assert census == Census(CLASSES, (12, 20, 30), (3, 5, 7), True)
    assert Census.restore(json.loads(json.dumps(vars(census)))) == census
    assert Census.of(images()) == Census(CLASSES, (12, 20, 30), (0, 0, 0), False)


def test_census_counts_classes_without_images():
    given = Images(np.zeros((7, 1, 1)), np.array([0, 0, 0, 2, 2, 2, 2]), CLASSES)
    assert Census.of(given).images == (3, 0, 4)
    with pytest.raises(SplitError, match="class 'bee' has 0 images"):
        draw(given, 2)


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, [1, 1, 1]), (0.25, [1, 2, 3]), (0.5, [1, 4, 6]), (1.0, [1, 7, 11])]
)
def test_part_of_each_class_is_held_out(fraction, expected):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [2, 8, 12]))
    marked = hold_out(labels, fraction, seed=0)
    assert marked.dtype == bool
    assert counts(labels[marked]) == expected


def test_seed_decides_what_is_held_out():
    labels = np.repeat([0, 1, 2], 20)
    assert np.array_equal(hold_out(labels, 0.3, seed=1), hold_out(labels, 0.3, seed=1))
    assert not np.array_equal(hold_out(labels, 0.3, seed=1), hold_out(labels, 0.3, seed=2))


def test_class_with_a_single_image_cannot_be_held_out_from():
    with pytest.raises(SplitError, match="class 1 has a single training image"):
        hold_out(np.array([0, 0, 1, 2, 2]), 0.3, seed=0)


@pytest.mark.parametrize("train_per_class", [2, 4, 6, 9, 10])
def test_images_held_out_are_the_same_in_every_draw_and_nobody_learns_from_them(train_per_class):
    given = images()
    splits = [draw(given, train_per_class, test="held-out", number=number) for number in range(4)]
    for split in splits:
        assert np.array_equal(split.test, splits[0].test)
        assert np.array_equal(split.seen, splits[0].seen)
        assert sorted([*split.seen, *split.test]) == list(range(62))
        assert set(split.train) <= set(split.seen)
        assert counts(given.labels[split.train]) == [train_per_class] * 3
    # Half of each class is set apart, less where training takes more than half: draws must be able to differ.
    assert counts(given.labels[splits[0].test]) == [min(6, 11 - train_per_class), min(10, 19 - train_per_class), 15]
    assert len({tuple(split.train) for split in splits}) == 4


def test_another_seed_holds_other_images_out():
    assert not np.array_equal(draw(images(), test="held-out").test, draw(images(), test="held-out", seed=1).test)


def test_more_training_images_leave_the_images_held_out_as_they_are_and_contain_fewer():
    few, many = (draw(images((40, 40)), count, test="held-out") for count in (5, 15))
    assert np.array_equal(few.test, many.test)
    assert set(few.train) < set(many.train)


def test_test_per_class_keeps_some_of_the_images_held_out():
    given = images()
    every, some = draw(given, test="held-out"), draw(given, test="held-out", test_per_class=3)
    assert set(some.test) < set(every.test)
    assert counts(given.labels[some.test]) == [3, 3, 3]
    assert np.array_equal(some.seen, every.seen)


def test_holding_out_needs_an_image_to_test_and_one_to_draw_from():
    assert counts(images().labels[draw(images(), 10, test="held-out").test])[0] == 1
    with pytest.raises(SplitError, match="class 'ant' has 12 images, but 11 are asked for training and at least 2"):
        draw(images(), 11, test="held-out")
    with pytest.raises(SplitError, match="training on all images leaves none to test on"):
        draw(images(), None, test="held-out")


@pytest.mark.parametrize("test", ["rest", "fixed"])
def test_without_images_held_out_filters_are_learned_from_the_training_images(test):
    split = draw(images(own_test=(2, 2, 2)), test=test)
    assert np.array_equal(split.seen, split.train)
