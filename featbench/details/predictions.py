"""What a row predicted of every image that tested it, read back from the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featbench.comparison import Workbench
from featbench.data.prepare import PreparedImages
from featbench.errors import DataError, StoreError, UsageError
from featbench.evaluation.scoring import compute_score
from featbench.execution.runner import Run
from featbench.execution.stored_comparison import StoredComparison, StoredRow
from featbench.experiment.cell import Cell
from featbench.types import IntArray


@dataclass(frozen=True)
class DrawPredictions:
    """What one draw of a row predicted.

    draw: its number. score: in the unit of the metric. test: [m] sorted indices of the images that tested. predicted:
    [m] the class that each was taken for, an index.
    """

    draw: int
    score: float
    test: IntArray
    predicted: IntArray


@dataclass(frozen=True)
class RowPredictions:
    """What all draws of a complete row predicted.

    cell: what the draws share. labels: [n] the class of every image of the data set that could be used. positions: [n]
    where each of them stands among the data set's own images. classes: their names.
    """

    cell: Cell
    labels: IntArray
    positions: IntArray
    classes: tuple[str, ...]
    draws: tuple[DrawPredictions, ...]


def require_complete(row: StoredRow) -> None:
    """Raise a `UsageError` that names the row if one of its draws has no score."""
    if row.columns["status"] != "ok":
        reason = row.columns["message"] or "run the comparison again"
        raise UsageError(f"{row.name} is {row.columns['status']}, so there is nothing to look at: {reason}")


def read_predictions(workbench: Workbench, comparison: StoredComparison, row: StoredRow) -> RowPredictions:
    """Return what a row predicted. No score is computed again: the split of every draw is drawn as it was then.

    Raises `UsageError` if the row is not complete, `DataError` if the data set has changed since, and `StoreError` if
    predictions are missing, or the code that drew the splits has changed.
    """
    require_complete(row)
    cell = row.runs[0].cell
    if workbench.keys.dataset(cell.dataset) != comparison.datasets.get(cell.dataset):
        raise DataError(
            f"data set {cell.dataset} is no longer what {row.name} was tested on: its images, or the code that reads "
            "them, have changed since; run the comparison again"
        )
    images = workbench.steps.find_images(cell.dataset, cell.preprocessing)
    draws = tuple(_read_draw(workbench, run, row.name, images) for run in row.runs)
    return RowPredictions(cell, images.labels, images.positions, images.classes, draws)


def _read_draw(workbench: Workbench, run: Run, name: str, images: PreparedImages) -> DrawPredictions:
    found = workbench.store.read_array("predictions", run.result.key)
    if found is None:
        raise StoreError(f"the predictions of {name}, draw {run.cell.draw}, are missing: run the comparison again")
    predicted, test = np.asarray(found[0], dtype=np.int64), workbench.steps.split(run.cell, images).test
    assert run.result.score is not None  # as the row is complete
    draw = DrawPredictions(run.cell.draw, run.result.score.value, test, predicted)
    # The key holds all code that draws a split. numpy may draw otherwise in another version: the score would tell.
    unchanged = workbench.keys.for_cell(run.cell).result.hash == run.result.key
    if not unchanged or not _gives_score(draw, run.cell, images, workbench):
        raise StoreError(
            f"which images {name} was tested on in draw {draw.draw} is no longer known: featbench or a plugin has "
            "changed since; run the comparison again"
        )
    return draw


def _gives_score(draw: DrawPredictions, cell: Cell, images: PreparedImages, workbench: Workbench) -> bool:
    """Whether the predictions give the score of their draw; of a metric that ranks classes, only their number tells."""
    if draw.test.shape != draw.predicted.shape:
        return False
    metric = workbench.registry.metric(cell.metric)
    if metric.needs == "scores":
        return True
    classes = len(images.classes)
    return compute_score(metric, draw.predicted, images.labels[draw.test], classes).value == draw.score
