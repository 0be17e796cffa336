"""Pictures of filters."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE = 36
"""Least side of a filter in the picture, in pixels; a weight is drawn as a square of a whole number of them."""

GAP = 2
"""Pixels between two tiles, and around all of them."""

BACKGROUND = 255


def draw_filters(weight: NDArray[Any], grid: tuple[int, int] | None = None, *, colour: bool = False) -> Image.Image:
    """Draw filters [filters, maps, size, size]: mid-grey is 0, each filter scaled by its own largest magnitude.

    Filters on one map fill a grid of (rows, columns), row by row, by default a square; so do filters on red, green and
    blue (`colour`, 3 maps), in these colours. Other filters on several maps take a row each, one grey tile a map.
    """
    filters, maps, size, _ = weight.shape
    if colour and maps != 3:
        raise ValueError(f"filters in colour see 3 maps, not {maps}")
    # One scale a filter, over all its maps: their tiles can be compared, and a colour keeps its hue.
    peak = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    # A blank filter has no scale; divided by 1 it stays mid-grey.
    shades = np.rint(127.5 + 127.5 * weight / np.where(peak > 0, peak, 1)).astype(np.uint8)
    # Tiles [tiles, size, size, channels].
    tiles = shades.transpose(0, 2, 3, 1) if colour else shades.reshape(-1, size, size, 1)
    one_each = len(tiles) == filters
    columns = (math.ceil(math.sqrt(filters)) if grid is None else grid[1]) if one_each else maps
    zoom = max(1, math.ceil(TILE / size)) if one_each else max(1, TILE // (2 * size))
    canvas = _lay_out(tiles.repeat(zoom, axis=1).repeat(zoom, axis=2), columns)
    return Image.fromarray(canvas if colour else canvas[:, :, 0])


def _lay_out(tiles: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay tiles [tiles, side, side, channels] on a canvas, row by row."""
    count, side, _, channels = tiles.shape
    step = side + GAP
    rows = math.ceil(count / columns)
    canvas = np.full((GAP + rows * step, GAP + columns * step, channels), BACKGROUND, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = GAP + row * step, GAP + column * step
        canvas[top : top + side, left : left + side] = tile
    return canvas


def filters_png(weight: NDArray[Any], grid: tuple[int, int] | None = None, *, colour: bool = False) -> bytes:
    """Return the drawing of filters as a PNG file; raises as `draw_filters` does."""
    buffer = io.BytesIO()
    draw_filters(weight, grid, colour=colour).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
