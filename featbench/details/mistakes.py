"""The images that a row got wrong, those first that it got wrong most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featbench.details.predictions import RowPredictions

TOGETHER = 8
"""Images of one confusion that stand together: of many classes, a single confusion would fill a contact sheet."""


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
    taken for the same stand together, but no more of them than `TOGETHER` before others have come.
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
    return _put_in_order(mistakes)


def _put_in_order(mistakes: Sequence[Mistake]) -> list[Mistake]:
    sizes = Counter((one.truth, one.taken_for) for one in mistakes)
    seen: Counter[tuple[int, ...]] = Counter()
    ranks: dict[int, tuple[int, ...]] = {}
    for one in sorted(mistakes, key=lambda one: (one.tests, one.index)):
        pair = (one.truth, one.taken_for)
        block = seen[one.wrong, *pair] // TOGETHER
        seen[one.wrong, *pair] += 1
        ranks[one.index] = (-one.wrong, block, -sizes[pair], *pair, one.tests, one.index)
    return sorted(mistakes, key=lambda one: ranks[one.index])
