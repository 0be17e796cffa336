"""The picture of a confusion matrix, from 2 classes to a hundred."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featbench.report.figure import draw_png
from featbench.report.names import shorten
from featbench.system.printable import make_printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERED = 30
"""Up to so many classes, counts are written into the cells."""

NAMED = 150
"""Up to so many classes, their names stand beside the rows and below the columns."""

LARGEST = 16.0
"""Side of the matrix in inches where classes are more."""

LONGEST = 24
"""Letters of a class's name in the picture."""

SQUARE_ROOT = 0.5
"""Exponent of a share that becomes a colour: a confusion of 4 % can be seen beside 100 %."""


def draw_confusions_png(counts: NDArray[np.integer], names: Sequence[str]) -> bytes:
    """Return the PNG file of a confusion matrix [classes, classes], true classes by rows, predicted by columns.

    Right predictions are blue and wrong ones orange, the darker the larger their share of the row. Of many classes the
    picture has no names, but numbers from 0.
    """
    labels = [shorten(make_printable(name), LONGEST) for name in names] if len(names) <= NAMED else []
    cell = 0.42 if len(names) <= NUMBERED else min(0.15, LARGEST / len(names))
    margin = 0.8 + 0.075 * max(map(len, labels), default=0)
    side = max(len(names) * cell, 1.2) + margin
    with warnings.catch_warnings():
        # Of scripts that matplotlib's font lacks, the page that stands beside the picture has the names.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        return draw_png(lambda figure: _draw(figure, np.asarray(counts), labels), (side, side))


def _draw(figure: Figure, counts: NDArray[np.integer], labels: Sequence[str]) -> None:
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(_colour(shares), interpolation="nearest")
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    if not labels:
        return
    size = 9 if len(labels) <= NUMBERED else 6.5
    # Names are no formulas: a $ in one of them would begin one.
    places = range(len(labels))
    axis.set_xticks(places, labels, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(places, labels, fontsize=size, parse_math=False)
    # Lines between the cells, so that a column can be followed.
    between = np.arange(len(labels) - 1) + 0.5
    axis.set_xticks(between, minor=True)
    axis.set_yticks(between, minor=True)
    axis.grid(which="minor", color="0.85", linewidth=0.4)
    axis.tick_params(which="minor", length=0)
    if len(labels) <= NUMBERED:
        for row, column in np.argwhere(counts).tolist():
            shade = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axis.text(column, row, text, ha="center", va="center", color=shade, fontsize=9 - max(0, len(text) - 3))


def _colour(shares: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the colours [classes, classes, 4] of the shares of their rows."""
    from matplotlib import colormaps

    strength = shares**SQUARE_ROOT
    right, wrong = colormaps["Blues"](strength), colormaps["Oranges"](strength)
    colours: NDArray[np.floating] = np.where(np.eye(len(shares), dtype=bool)[:, :, np.newaxis], right, wrong)
    colours[shares == 0] = 1.0
    return colours
