"""Pictures of filters."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE = 36
"""Least side of a filter in the picture, in pixels; a weight is drawn as a whole number of them."""

GAP = 2

BACKGROUND = 255


def draw_filters(weight: NDArray[Any], grid: tuple[int, int] | None = None) -> Image.Image:
    """Draw filters [filters, maps, size, size]: mid-grey is 0, each filter scaled by its own largest magnitude.

    Filters on one map fill a grid of (rows, columns), row by row, by default a square; filters on several maps take a
    row each, one tile a map.
    """
    filters, maps, size, _ = weight.shape
    columns = (math.ceil(math.sqrt(filters)) if grid is None else grid[1]) if maps == 1 else maps
    rows = math.ceil(filters * maps / columns)
    zoom = max(1, math.ceil(TILE / size)) if maps == 1 else max(1, TILE // (2 * size))
    side = size * zoom
    canvas = np.full((GAP + rows * (side + GAP), GAP + columns * (side + GAP)), BACKGROUND, dtype=np.uint8)
    peak = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    shades = np.rint(127.5 + 127.5 * weight / np.where(peak > 0, peak, 1)).astype(np.uint8)
    for index, tile in enumerate(shades.reshape(-1, size, size)):
        row, column = divmod(index, columns)
        top, left = GAP + row * (side + GAP), GAP + column * (side + GAP)
        canvas[top : top + side, left : left + side] = tile.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Image.fromarray(canvas)


def filters_png(weight: NDArray[Any], grid: tuple[int, int] | None = None) -> bytes:
    """Return the drawing of filters as a PNG file."""
    buffer = io.BytesIO()
    draw_filters(weight, grid).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
