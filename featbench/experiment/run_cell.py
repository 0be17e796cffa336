"""Run one cell, from images to a score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from typing import Any

from featbench.classification.training import Classified
from featbench.data.maps import Maps
from featbench.data.prepare import PreparedImages
from featbench.evaluation.scoring import compute_score
from featbench.experiment.cell import Cell
from featbench.experiment.steps import Steps
from featbench.features.rows import Features
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
    trained = [_train(replace(cell, learner=learner), steps, split, images, maps, rate) for learner in learners]
    best = max(trained, key=lambda one: float(one.classified.report.get("validation_accuracy", 0)))
    predictions = best.classified.predict(best.features.test)
    score = compute_score(cell.metric, predictions, images.labels[split.test], len(images.classes))
    report = {
        **best.classified.report,
        **({"refinement": best.refinement} if best.refinement else {}),
        **({"learner": str(best.cell.learner)} if len(trained) > 1 else {}),
        **({"images_left_out": len(images.left_out)} if images.left_out else {}),
    }
    return Outcome(score, predictions, _total(one.seconds for one in trained), report)


@dataclass(frozen=True)
class _Trained:
    """A cell up to its classifier."""

    cell: Cell
    features: Features
    classified: Classified
    refinement: dict[str, Any] | None
    seconds: Seconds


def _train(cell: Cell, steps: Steps, split: Split, images: PreparedImages, maps: Maps, rate: bool) -> _Trained:
    network, learning = steps.learn(cell, split, maps)
    refinement, refining = None, 0.0
    if cell.regime.refined:
        network, refinement, refining = steps.refine(cell, split, network, maps, images)
    features, extracting = steps.features(cell, split, network, maps)
    classified, classifying = steps.classify(cell, split, features, images, rate)
    return _Trained(cell, features, classified, refinement, Seconds(learning, refining, extracting, classifying))


def _total(seconds: Iterable[Seconds]) -> Seconds:
    return Seconds(*(sum(parts) for parts in zip(*(astuple(one) for one in seconds), strict=True)))
