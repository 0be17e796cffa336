"""What is known of a row as CSV, at full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from featbench.details.collect import RowDetails
from featbench.report.names import make_csv_safe


def format_classes(details: RowDetails) -> str:
    """Return a line for each class: its images, tests and right predictions, its accuracy in percent."""
    headings = ("class", "images", "tests", "right", "accuracy", "std", "draws", "low", "high")
    rows = (
        [
            make_csv_safe(details.predictions.classes[one.label]),
            *(one.images, one.tests, one.right, one.accuracy, one.deviation, len(one.accuracies), one.low, one.high),
        ]
        for one in details.classes
    )
    return _format_csv(headings, rows)


def format_confusions(details: RowDetails) -> str:
    """Return how often each class was taken for each: a line for each true class, a column for each predicted one."""
    names = [make_csv_safe(name) for name in details.predictions.classes]
    rows = ([name, *counts] for name, counts in zip(names, details.counts.tolist(), strict=True))
    return _format_csv(["true class", *names], rows)


def format_predictions(details: RowDetails) -> str:
    """Return a line for each test image of each draw: the image, its class, what it was taken for, 1 if that is right.

    image: its number in the data set, from 0. file: its path below the data set's folder; empty for images of no file.
    """
    row = details.predictions
    classes = [make_csv_safe(name) for name in row.classes]
    labels, positions = row.labels.tolist(), row.positions.tolist()
    files = None if details.names is None else [make_csv_safe(name) for name in details.names]
    rows = (
        [
            *(draw.draw, positions[index], "" if files is None else files[positions[index]]),
            *(classes[labels[index]], classes[label], int(labels[index] == label)),
        ]
        for draw in row.draws
        for index, label in zip(draw.test.tolist(), draw.predicted.tolist(), strict=True)
    )
    return _format_csv(("draw", "image", "file", "true class", "predicted class", "right"), rows)


def _format_csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV with the same line ends on every system; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return buffer.getvalue()
