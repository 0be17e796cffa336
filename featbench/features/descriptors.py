"""Dense descriptors of grey images, SIFT and HOG: patches on a grid, all upright and of one size."""

from __future__ import annotations

import torch
from torch import Tensor

from featbench.devices.selection import select_operations
from featbench.stages.oriented_gradients import Histograms, normalise

SIFT = Histograms(cells=4, orientations=8, signed=True)
"""Lowe 2004; dense as in Lazebnik, Schmid, Ponce 2006: it does not turn with the patch's main orientation."""

HOG = Histograms(cells=2, orientations=9, signed=False, first=0.5)
"""Dalal, Triggs 2005."""

BLOCK_VALUES = {"cpu": 2**19, "cuda": 2**28}
"""Values of oriented gradients that are computed at once: on a CPU 2 MB, one image or a few, which stay in its cache
until they are pooled; on a GPU 1 GB."""


def dense_sift(images: Tensor, size: int = 16, step: int = 8, floor: float = 0.0) -> Tensor:
    """Return the SIFT descriptors [n, rows, columns, 128] of patches of `size`×`size` pixels, `step` pixels apart.

    images [n, height, width], grey. 128 = 4×4 cells of 8 orientations, counter-clockwise from the right. floor: a
    descriptor whose norm is below it is divided by the floor instead of its norm, so that what is nearly blank stays
    small (Lazebnik's code has such a floor); 0: all but blank patches get unit norm. Raises `ValueError` if the patches
    do not fit the images.
    """
    return _describe(SIFT, images, size, step, floor)


def dense_hog(images: Tensor, cell: int = 8) -> Tensor:
    """Return the HOG descriptors [n, rows, columns, 36] of blocks of 2×2 cells of `cell`×`cell` pixels, one cell apart.

    images [n, height, width], grey. 36 = 2×2 cells of 9 orientations without sign, the first at 10° counter-clockwise
    from the right; normalised by L2-Hys. Raises `ValueError` if no block fits the images.
    """
    return _describe(HOG, images, HOG.cells * cell, cell)


@torch.no_grad()
def _describe(kind: Histograms, images: Tensor, size: int, step: int, floor: float = 0.0) -> Tensor:
    """Return the descriptors [n, rows, columns, length] of patches; the grid lies in the middle of the image."""
    # Without gradients: descriptors are fixed by design, and no labels refine them.
    kind.check(images.shape, size, step)
    n, height, width = images.shape
    rows, columns = ((side - size) // step + 1 for side in (height, width))
    found = images.new_empty(n, rows, columns, kind.length)
    operations = select_operations(images.device)
    together = max(1, BLOCK_VALUES[images.device.type] // (kind.orientations * height * width))
    for start in range(0, n, together):
        block = images[start : start + together]
        # The gradients of a patch of one grey value are rounding errors, each up to ε times the largest value: the sum
        # of size² of them bounds the norm of a descriptor that counts as blank.
        blank = torch.finfo(images.dtype).eps * size * size * block.abs().amax(dim=(1, 2)).view(-1, 1, 1, 1)
        pooled = operations.descriptors(block, kind, size, step)
        found[start : start + together] = normalise(pooled, floor, blank)
    return found
