"""The order of the images that a row got wrong."""

from collections import Counter

import numpy as np
import pytest

from featbench.details.mistakes import TOGETHER, find_mistakes
from featbench.details.predictions import DrawPredictions, RowPredictions


def make_row(labels, *draws):
    """A row of draws, each a dictionary of image -> predicted class."""
    classes = tuple(f"class {k}" for k in range(4))
    made = [
        DrawPredictions(number, 0.0, np.array(sorted(draw)), np.array([draw[index] for index in sorted(draw)]))
        for number, draw in enumerate(draws)
    ]
    return RowPredictions(None, np.array(labels), np.arange(len(labels)), classes, tuple(made))


def test_images_are_counted_over_draws():
    row = make_row([0, 1, 2, 3], {0: 1, 1: 1, 2: 0}, {0: 2, 1: 0, 2: 2}, {0: 2, 3: 3})
    found = {one.index: (one.truth, one.taken_for, one.wrong, one.tests) for one in find_mistakes(row)}
    assert found == {0: (0, 2, 3, 3), 1: (1, 0, 1, 2), 2: (2, 0, 1, 2)}


def test_of_classes_that_it_was_taken_for_equally_often_the_first_is_named():
    (mistake,) = find_mistakes(make_row([0], {0: 3}, {0: 1}))
    assert (mistake.taken_for, mistake.wrong) == (1, 2)


def test_those_come_first_that_were_wrong_most_often():
    row = make_row([0, 0, 0], {0: 1, 1: 1, 2: 1}, {0: 0, 1: 1, 2: 0}, {2: 0})
    assert [one.index for one in find_mistakes(row)] == [1, 0, 2]


def test_frequent_confusions_come_first_a_few_at_a_time():
    labels = [0] * 20 + [1] * 3 + [2] * 11
    predicted = {index: {0: 1, 1: 0, 2: 3}[label] for index, label in enumerate(labels)}
    order = [one.truth for one in find_mistakes(make_row(labels, predicted))]
    assert order == [0] * TOGETHER + [2] * TOGETHER + [1] * 3 + [0] * TOGETHER + [2] * 3 + [0] * 4


@pytest.mark.parametrize("seed", range(5))
def test_every_wrong_image_is_there_once(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, 60)
    draws = [{int(index): int(generator.integers(0, 4)) for index in generator.permutation(60)[:25]} for _ in range(4)]
    found = find_mistakes(make_row(labels, *draws))
    wrong = Counter(index for draw in draws for index, label in draw.items() if label != labels[index])
    assert Counter({one.index: one.wrong for one in found}) == wrong
    assert len(found) == len(wrong)
    assert [one.wrong for one in found] == sorted(wrong.values(), reverse=True)


def test_nothing_wrong():
    assert find_mistakes(make_row([0, 1], {0: 0}, {1: 1})) == []
