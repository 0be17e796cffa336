"""The complete rows of a comparison with what each got right, image by image and draw by draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.comparison import Comparison, Workbench
from featbench.data.prepare import PreparedImages
from featbench.evaluation.task import TASKS
from featbench.execution.rows import format_regime
from featbench.execution.runner import Run
from featbench.experiment.cell import Cell


@dataclass(frozen=True)
class Contender:
    """A complete row of a comparison.

    name: learner, regime and classifier, as the table prints them. cell: what its draws share. score: mean of the draws
    in the unit of the metric. extract_milliseconds: of one image. correct: [draws, images] 1 or 0, times the weight
    that the metric gives the image, NaN where the image did not test; None for metrics that are no mean over images.
    guessed: the same for who guesses, on average: the weight of the image over the number of classes.
    """

    name: str
    cell: Cell
    score: float
    extract_milliseconds: float
    correct: NDArray[np.float64] | None
    guessed: NDArray[np.float64] | None


WEIGHTED = {"accuracy": False, "error": False, "mean-per-class-accuracy": True}
"""The metrics that are a mean over test images; whether classes count alike, however many images they have."""


def find_contenders(workbench: Workbench, comparison: Comparison) -> list[Contender]:
    """Return the complete rows, in the order of the cells."""
    groups: dict[Cell, list[Run]] = {}
    for run in comparison.runs:
        groups.setdefault(replace(run.cell, draw=0), []).append(run)
    complete = {cell: runs for cell, runs in groups.items() if all(run.result.status == "ok" for run in runs)}
    if not complete:
        return []
    first = next(iter(complete))
    images = workbench.steps.find_images(first.dataset, first.preprocessing)
    return [_make_contender(workbench, cell, runs, images) for cell, runs in complete.items()]


def _make_contender(workbench: Workbench, cell: Cell, runs: Sequence[Run], images: PreparedImages) -> Contender:
    splits = [workbench.steps.split(run.cell, images) for run in runs]
    extracted = len(images.labels) if cell.test != "fixed" else len(splits[0].train) + len(splits[0].test)
    seconds = sum(run.result.seconds.extract for run in runs) / len(runs)
    scores = [run.result.score.value for run in runs if run.result.score is not None]
    correct = guessed = None
    if cell.metric in WEIGHTED:
        correct, guessed = np.full((2, len(runs), len(images.labels)), np.nan)
        targets = TASKS[cell.task].find_targets(images)
        for draw, (run, split) in enumerate(zip(runs, splits, strict=True)):
            right = _read_predictions(workbench, run) == targets[split.test]
            weights = _weigh(targets[split.test], WEIGHTED[cell.metric])
            correct[draw, split.test], guessed[draw, split.test] = right * weights, weights / len(images.classes)
    name = f"{cell.learner} {format_regime(cell, workbench.registry)} {cell.classifier}"
    return Contender(name, cell, sum(scores) / len(scores), 1000 * seconds / extracted, correct, guessed)


def _read_predictions(workbench: Workbench, run: Run) -> NDArray[Any]:
    if run.result.predictions is not None:
        return run.result.predictions
    found = workbench.store.read_array("predictions", run.result.key)
    assert found is not None  # a result whose predictions are missing is not read
    return found[0]


def _weigh(targets: NDArray[np.int64], classes_alike: bool) -> NDArray[np.float64]:
    """Return the weight of each test image, of mean 1."""
    if not classes_alike:
        return np.ones(len(targets))
    counts = np.bincount(targets)
    weights: NDArray[np.float64] = len(targets) / (np.count_nonzero(counts) * counts[targets])
    return weights
