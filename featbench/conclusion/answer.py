"""The answer of a comparison in words, as it stands under its table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from featbench.comparison import Comparison, Workbench
from featbench.conclusion.contenders import WEIGHTED, Contender, find_contenders
from featbench.experiment.baselines import is_baseline
from featbench.experiment.own_images import FOLDER
from featbench.experiment.request import Request
from featbench.report.table import format_score
from featbench.statistics.paired import compute_paired_test
from featbench.statistics.significance import holm

CHANCE = "chance"
"""The learner whose features tell nothing of an image."""

LEVEL = 0.05
"""Differences with a smaller adjusted p-value are called real."""


def answer(workbench: Workbench, comparison: Comparison, request: Request, options: Sequence[str] = ()) -> str:
    """Return in words which row is best, which cannot be told from it, what it costs, and what to try next.

    options: what the commands that are proposed need besides the row, as `--home`. "" where fewer than two rows are
    complete.
    """
    # Baselines last: of equals, a learner is called the best.
    contenders = sorted(
        find_contenders(workbench, comparison), key=lambda one: is_baseline(one.cell, workbench.registry)
    )
    if len(contenders) < 2:
        return ""
    metric = workbench.registry.metric(contenders[0].cell.metric)
    sign = 1 if metric.larger_is_better else -1
    best = max(contenders, key=lambda one: sign * one.score)
    score = f"{format_score('ok', best.score, None, metric.unit)} {metric.unit}".rstrip()
    lines = [f"Best: {best.name}, {metric.name} {score}{_mark_baseline(best, workbench)}."]
    lines += _compare_with(best, contenders)
    lines.append(f"Cost: {_format_milliseconds(best.extract_milliseconds)} an image to extract its features.")
    return "\n".join([*lines, *_propose(workbench, best, request, options)]) + "\n"


def _mark_baseline(best: Contender, workbench: Workbench) -> str:
    return ", a baseline: no learner beats it" if is_baseline(best.cell, workbench.registry) else ""


def _compare_with(best: Contender, contenders: Sequence[Contender]) -> list[str]:
    """Return which rows cannot be told from the best one, and which are worse; and by which test."""
    if best.cell.metric not in WEIGHTED:
        return [f"Whether other rows differ from it is not tested: {best.cell.metric} is no mean over test images."]
    tested = compute_p_values(contenders)
    others = sorted((one for one in contenders if one is not best), key=lambda one: abs(one.score - best.score))
    p_values = [tested[frozenset((one.name, best.name))] for one in others]
    alike = [_format_distance(one, best) for one, p in zip(others, p_values, strict=True) if p >= LEVEL]
    worse = [_format_distance(one, best) for one, p in zip(others, p_values, strict=True) if p < LEVEL]
    draws = len(next(iter(contenders)).correct)  # type: ignore[arg-type]
    how = "the same test images and draws" if draws > 1 else "the same test images, of one draw"
    lines = []
    if best.cell.learner.name == CHANCE or not _beats_guessing(best, len(contenders)):
        lines.append("No row is shown to be better than guessing: more images, or more labels, may tell.")
    if alike:
        lines.append(f"Cannot be told from it: {', '.join(alike)}.")
    if worse:
        lines.append(f"Worse: {', '.join(worse)}.")
    return [*lines, f"(Paired test on {how}; p-values of all pairs of rows adjusted by Holm, {LEVEL:.0%} level.)"]


def _beats_guessing(best: Contender, rows: int) -> bool:
    """Return whether the best of so many rows is better than guessing: its p-value is adjusted for being the best."""
    # Against what guessing gives on average; against guesses, their luck would count as well.
    mean, p = compute_paired_test(_subtract(best.correct, best.guessed))
    return mean > 0 and p * rows < LEVEL


def _format_distance(one: Contender, best: Contender) -> str:
    return f"{one.name} ({one.score - best.score:+.1f})"


def compute_p_values(contenders: Sequence[Contender]) -> dict[frozenset[str], float]:
    """Return the p-value of each pair of rows, adjusted for testing all of them.

    All pairs, and not those with the best row alone: which row is best was seen on the same images.
    """
    pairs = list(combinations(contenders, 2))
    p_values = [compute_paired_test(_subtract(one.correct, other.correct))[1] for one, other in pairs]
    return {frozenset((one.name, other.name)): p for (one, other), p in zip(pairs, holm(p_values), strict=True)}


def _subtract(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert one is not None
    assert other is not None
    return one - other


def _format_milliseconds(milliseconds: float) -> str:
    return f"{milliseconds:.2g} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def _propose(workbench: Workbench, best: Contender, request: Request, options: Sequence[str]) -> list[str]:
    """Return what to try next, a line each."""
    cell, proposals = best.cell, []
    protocol = workbench.registry.protocol(cell.protocol)
    if protocol.thorough is not None and not request.thorough:
        proposals.append("--thorough compares more learners, and refines them with the labels")
    if cell.dataset.startswith(FOLDER):
        if workbench.loses_colour:
            proposals.append("--channels rgb, or opponent, keeps the colours")
        if (more := _find_more_labels(workbench, best)) is not None:
            proposals.append(f"--train-per-class {more} takes more labels")
    if cell.learner.name == CHANCE:
        return ["Next: " + "; ".join(proposals) + "."] if proposals else []
    row, places = shlex.quote(best.name), "".join(f" {shlex.quote(word)}" for word in options)
    commands = [
        f"featbench explain {row}{places}  # classes, confusions, and the images that are wrong",
        f"featbench export {row} --output model{places}  # then: featbench predict model PATHS",
    ]
    return ["Next: " + "; ".join(proposals) + "." if proposals else "Next:", *(f"  {line}" for line in commands)]


def _find_more_labels(workbench: Workbench, best: Contender) -> int | None:
    """Return twice as many labels a class, if there are so many images; None otherwise."""
    cell = best.cell
    smallest = min(workbench.steps.survey(cell.dataset, cell.preprocessing).census.images)
    wanted = 2 * (cell.train_per_class or smallest)
    return wanted if wanted <= smallest - wanted // 2 else None
