"""All that is looked at of a row, collected before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featbench.comparison import Workbench
from featbench.data.dataset import load_images, prefix_errors
from featbench.details.classes import ClassAccuracy, measure_classes, sum_confusions
from featbench.details.mistakes import Mistake, find_mistakes
from featbench.details.predictions import RowPredictions, read_predictions
from featbench.details.thumbnails import Thumbnail, make_thumbnails
from featbench.execution.stored_comparison import StoredComparison, StoredRow
from featbench.types import IntArray

SHOWN = 96
"""Wrong images on a contact sheet at most."""


@dataclass(frozen=True)
class RowDetails:
    """A row looked at closely.

    predictions: of all its draws. classes: how well each is recognised, in their order. counts: which was taken for
    which, [classes, classes]. mistakes: the images that were wrong, the worst first. thumbnails: of the first of them.
    names: of all images of the data set, None where they have none.
    """

    comparison: StoredComparison
    row: StoredRow
    predictions: RowPredictions
    classes: Sequence[ClassAccuracy]
    counts: IntArray
    mistakes: Sequence[Mistake]
    thumbnails: Sequence[Thumbnail]
    names: Sequence[str] | None

    @property
    def shown(self) -> Sequence[Mistake]:
        """The mistakes that have a thumbnail."""
        return self.mistakes[: len(self.thumbnails)]

    def name_image(self, index: int) -> str:
        """Return the file of an image that could be used, or its number in the data set."""
        position = int(self.predictions.positions[index])
        return f"image {position}" if self.names is None else self.names[position]


def collect_details(workbench: Workbench, comparison: StoredComparison, row: StoredRow) -> RowDetails:
    """Collect what is known of a complete row; of the data set, the wrong images that are shown are read.

    Raises as `read_predictions` does.
    """
    predictions = read_predictions(workbench, comparison, row)
    dataset, mistakes = predictions.cell.dataset, find_mistakes(predictions)
    images = load_images(dataset, workbench.registry.dataset(dataset), workbench.data_dir)
    positions = [int(predictions.positions[one.index]) for one in mistakes[:SHOWN]]
    with prefix_errors(f"data set {dataset}"):
        thumbnails = make_thumbnails(images, positions)
    counts = sum_confusions(predictions)
    return RowDetails(
        comparison, row, predictions, measure_classes(predictions), counts, mistakes, thumbnails, images.names
    )
