"""Dense descriptors of patches on a grid, upright, of one scale: SIFT, and its sibling HOG."""

from __future__ import annotations

from torch import Tensor

from featbench.oriented import Histograms

SIFT = Histograms(cells=4, orientations=8, signed=True)
"""Lowe 2004; dense as in Lazebnik, Schmid, Ponce 2006. It does not turn with the patch's main orientation."""

HOG = Histograms(cells=2, orientations=9, signed=False, first=0.5)
"""Dalal, Triggs 2005."""


def dense_sift(images: Tensor, size: int = 16, step: int = 8, floor: float = 0.0) -> Tensor:
    """Return the descriptors [n, rows, columns, 128] of the patches of `size` pixels every `step` pixels.

    images [n, height, width]. 4×4 cells of 8 orientations, counter-clockwise from the right. floor: a descriptor whose
    norm is below it keeps that norm, in units of the floor (Lazebnik's code has such a floor); 0: all but blank patches
    get unit norm. Raises `ValueError` if the patches do not fit the images.
    """
    return SIFT.describe(images, size, step, floor)


def dense_hog(images: Tensor, cell: int = 8) -> Tensor:
    """Return the descriptors [n, rows, columns, 36] of the blocks of 2×2 cells that begin every cell.

    images [n, height, width]. 9 orientations without sign, the first at 10° counter-clockwise from the right; L2-Hys.
    Raises `ValueError` if no block fits the images.
    """
    return HOG.describe(images, 2 * cell, cell)
