"""Run one cell, from images to a score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from typing import Any

from featbench.classification.training import TrainedClassifier
from featbench.data.maps import Maps
from featbench.data.prepare import PreparedImages
from featbench.evaluation.scoring import compute_score
from featbench.evaluation.task import TASKS
from featbench.experiment.cell import Cell
from featbench.experiment.steps import Steps
from featbench.experiment.suspicions import find_suspicions
from featbench.features.rows import Features
from featbench.parameters import Choice
from featbench.types import IntArray, Score, Seconds, Split


@dataclass(frozen=True)
class Outcome:
    """What running a cell gave."""

    score: Score
    predictions: IntArray
    seconds: Seconds
    report: dict[str, Any]


def run_cell(cell: Cell, steps: Steps) -> Outcome:
    """Run a cell. The classifier and refinement see training images alone; test labels reach the scorer only."""
    images, maps = steps.load(cell.dataset, cell.preprocessing)
    split = steps.split(cell, images)
    learners = cell.learner.alternatives()
    rate = len(learners) > 1
    candidates = [_train(replace(cell, learner=learner), steps, split, images, maps, rate) for learner in learners]
    # Validation images decide between the values that a learner leaves open; of equal ones the first is taken.
    best = max(candidates, key=lambda candidate: float(candidate.classified.report.get("validation_accuracy", 0)))
    task, metric, classes = TASKS[cell.task], steps.registry.metric(cell.metric), len(images.classes)
    predicted = best.classified.predict(best.features.test)
    predictions = task.check_predictions(predicted, len(split.test), classes, cell.classifier)
    # A second pass over the test images, for the few metrics that rank classes.
    scores = best.classified.scores(best.features.test, classes, metric.name) if metric.needs == "scores" else None
    score = compute_score(metric, predictions, task.find_targets(images)[split.test], classes, scores)
    report = {
        **best.classified.report,
        **({"refinement": best.refinement} if best.refinement else {}),
        **({"learner": str(best.learner)} if rate else {}),
        **({"images_left_out": len(images.left_out)} if images.left_out else {}),
        **({"suspicions": best.suspicions} if best.suspicions else {}),
    }
    # All candidates were paid for, not the best alone.
    seconds = _add(candidate.seconds for candidate in candidates)
    return Outcome(score, predictions.astype(task.stored_as), seconds, report)


@dataclass(frozen=True)
class _Candidate:
    """One choice of a cell's learner with all that was trained under it: its features, and a classifier on them."""

    learner: Choice
    features: Features
    classified: TrainedClassifier
    refinement: dict[str, Any] | None
    suspicions: list[str]
    seconds: Seconds


def _train(cell: Cell, steps: Steps, split: Split, images: PreparedImages, maps: Maps, rate: bool) -> _Candidate:
    network, learning = steps.learn(cell, split, maps)
    refinement, refining = None, 0.0
    if cell.regime.refined:
        network, refinement, refining = steps.refine(cell, split, network, maps, images)
    features, extracting = steps.extract(cell, split, network, maps)
    classified, classifying = steps.classify(cell, split, features, images, rate)
    seconds = Seconds(learning, refining, extracting, classifying)
    constant = steps.registry.learner(cell.learner.name).constant
    suspicions = [] if constant else find_suspicions(network, features.train)
    return _Candidate(cell.learner, features, classified, refinement, suspicions, seconds)


def _add(seconds: Iterable[Seconds]) -> Seconds:
    return Seconds(*(sum(parts) for parts in zip(*(astuple(one) for one in seconds), strict=True)))
