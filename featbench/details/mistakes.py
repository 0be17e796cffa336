"""The images that a row got wrong, those first that it got wrong most often."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from featbench.details.predictions import RowPredictions


@dataclass(frozen=True)
class Mistake:
    """An image that at least one draw got wrong.

    index: among the images that could be used. truth: its class. taken_for: the wrong class that it was most often
    taken for. wrong, tests: in how many draws it was wrong, of those that tested it.
    """

    index: int
    truth: int
    taken_for: int
    wrong: int
    tests: int


def describe_frequency(mistake: Mistake) -> str:
    """Return how often an image was wrong, in words."""
    return f"wrong in {mistake.wrong} of {mistake.tests} {'tests' if mistake.tests > 1 else 'test'}"


def find_mistakes(row: RowPredictions) -> list[Mistake]:
    """Return the images that were wrong in at least one draw.

    Those come first that were wrong in most draws; among these the most frequent confusions, so that images that are
    taken for the same stand together.
    """
    tests = np.zeros(len(row.labels), dtype=np.int64)
    taken_for: dict[int, Counter[int]] = {}
    for draw in row.draws:
        tests[draw.test] += 1
        wrong = draw.predicted != row.labels[draw.test]
        for index, label in zip(draw.test[wrong].tolist(), draw.predicted[wrong].tolist(), strict=True):
            taken_for.setdefault(index, Counter())[label] += 1
    mistakes = []
    for index, counts in taken_for.items():
        # Of classes that it was taken for equally often, the first.
        label = min(counts, key=lambda label: (-counts[label], label))
        mistakes.append(Mistake(index, int(row.labels[index]), label, counts.total(), int(tests[index])))
    pairs = Counter((one.truth, one.taken_for) for one in mistakes)

    def rank(one: Mistake) -> tuple[int, ...]:
        pair = (one.truth, one.taken_for)
        return (-one.wrong, one.tests, -pairs[pair], *pair, one.index)

    return sorted(mistakes, key=rank)
