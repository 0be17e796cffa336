"""Dense histograms of oriented gradients, one program for each patch: gradients never leave the registers.

The equations are those of `Histograms` in stages/oriented_gradients.py.
"""

from functools import cache

import torch
import triton.language as tl
from torch import Tensor

from featbench.cuda.kernel import kernel, launch, next_power_of_two, send
from featbench.stages.oriented_gradients import Histograms, compute_cell_weights


def describe(images: Tensor, kind: Histograms, size: int, step: int) -> Tensor:
    """Return dense histograms [n, rows, columns, kind.length] of float32 images [n, h, w], as `Histograms.pool` does.

    A pixel's gradient is computed again for each patch that it lies in: that takes less time than storing and loading
    its share in every orientation bin.
    """
    n, height, width = images.shape
    rows, columns = ((side - size) // step + 1 for side in (height, width))
    found = images.new_empty(n, rows, columns, kind.length)
    # One warp is enough for a row of 16 pixels, as in SIFT, and warps of one program would wait for one another at each
    # sum. The patches of an image are many more than a GPU runs at once.
    block_size = next_power_of_two(size, 16)
    launch(
        _describe, n * rows * columns, images.contiguous(), _upload_weights(size, kind.cells, images.device), found,
        height, width, rows, columns, (height - size) % step // 2, (width - size) % step // 2, size, step,
        first=float(kind.first), signed=kind.signed, cells=kind.cells, bins=kind.orientations, block_size=block_size,
        block_cells=next_power_of_two(kind.cells), block_bins=next_power_of_two(kind.orientations),
        num_warps=1 if block_size <= 16 else 4,
    )  # fmt: skip
    return found


@cache
def _upload_weights(size: int, cells: int, device: torch.device) -> Tensor:
    # Cached: a copy from the CPU cannot be part of a CUDA graph. The warm-up before the recording fills the cache.
    return send(compute_cell_weights(size, cells).float(), device)


@kernel
def _describe(
    images: tl.tensor, weights: tl.tensor, found: tl.tensor, height: tl.tensor, width: tl.tensor,
    rows: tl.tensor, columns: tl.tensor, top: tl.tensor, left: tl.tensor, size: tl.tensor, step: tl.tensor,
    first: tl.constexpr, signed: tl.constexpr, cells: tl.constexpr, bins: tl.constexpr,
    block_size: tl.constexpr, block_cells: tl.constexpr, block_bins: tl.constexpr,
) -> None:  # fmt: skip
    """Sum the oriented gradients of one patch over its cells, a row of pixels at a time.

    h[i, j, b] = Σ_yx w_i(y) w_j(x) s_b(y, x), where s_b is the gradient's share in bin b and w a cell's weights along
    one side: cells are separable, so that a row's sums over x come first and are then added to every row of cells.
    """
    patch = tl.program_id(0)
    image = (patch // (rows * columns)).to(tl.int64)
    images += image * height * width
    top += patch // columns % rows * step
    left += patch % columns * step
    # Blocks are powers of two, patches, cells and bins need not be: hence a mask for each.
    across, cell, slot = tl.arange(0, block_size), tl.arange(0, block_cells), tl.arange(0, block_bins)
    within, kept, used = across < size, cell < cells, slot < bins
    row_weights = tl.load(weights + cell[:, None] * size + across[None, :], kept[:, None] & within[None, :], other=0.0)
    # Masked pixels of the block may lie beyond the image. Clamped, their neighbours still differ by at least 1, so that
    # no difference is 0/0: a NaN times the weight 0 would be a NaN in the sum.
    column = tl.minimum(left + across, width - 1)
    # Central differences, one-sided at the border: (f(after) - f(before)) / (after - before).
    before, after = tl.maximum(column - 1, 0), tl.minimum(column + 1, width - 1)
    histogram = tl.zeros((block_cells, block_cells, block_bins), tl.float32)
    for offset in range(size):
        row = top + offset
        above, below = tl.maximum(row - 1, 0), tl.minimum(row + 1, height - 1)
        line = images + row * width
        right = tl.load(line + after, within, other=0.0) - tl.load(line + before, within, other=0.0)
        down = tl.load(images + below * width + column, within, other=0.0)
        down -= tl.load(images + above * width + column, within, other=0.0)
        right, down = right / (after - before), down / (below - above)
        shares = _share_between_bins(right, down, slot, first, signed, bins)
        band = tl.sum(row_weights[:, :, None] * shares[None, :, :], axis=1)
        column_weights = tl.load(weights + cell * size + offset, kept, other=0.0)
        histogram += column_weights[:, None, None] * band[None, :, :]
    where = (cell[:, None, None] * cells + cell[None, :, None]) * bins + slot[None, None, :]
    there = kept[:, None, None] & kept[None, :, None] & used[None, None, :]
    tl.store(found + patch.to(tl.int64) * (cells * cells * bins) + where, histogram, there)


@kernel
def _share_between_bins(
    right: tl.tensor, down: tl.tensor, slot: tl.tensor, first: tl.constexpr, signed: tl.constexpr, bins: tl.constexpr
) -> tl.tensor:
    """Return the share [pixels, bins] of each gradient's magnitude in each bin.

    As `Histograms.compute_oriented_gradients` does.
    """
    # The arc tangent of the first quadrant, mirrored into the others. Rows count downwards, angles counter-clockwise:
    # a gradient that points down has a negative angle.
    magnitude, angle = _to_polar(tl.abs(right), tl.abs(down))
    if signed:
        angle = tl.where(right < 0.0, 3.141592653589793 - angle, angle)
        angle = tl.where(down > 0.0, -angle, angle)
        position = angle * (bins / 6.283185307179586)
    else:
        # Opposite gradients count as one, so that only the product of both signs matters.
        angle = tl.where((down > 0.0) ^ (right < 0.0), -angle, angle)
        position = angle * (bins / 3.141592653589793)
    # Positions run from -bins/2 to bins/2, and so do the bins' centres. A gradient is shared between the two nearest
    # bins by linear interpolation.
    centre = slot + first
    centre = tl.where(centre > bins / 2, centre - bins, centre)
    share = 1.0 - tl.abs(position[:, None] - centre[None, :])
    # The bin in the middle of the turn is reached from both ends of that range.
    ends = (tl.abs(position) - (bins / 2 - 1.0))[:, None]
    share = tl.where(centre[None, :] == bins / 2, ends, share)
    return magnitude[:, None] * tl.maximum(share, 0.0)


@kernel
def _to_polar(x: tl.tensor, y: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return the length of (x, y) ≥ 0 and its angle from 0 to π/2, both to a few units in the last place."""
    # The ratio of the smaller to the larger lies in [0, 1], where a polynomial of least relative error gives the arc
    # tangent: atan r = r + r · r² P(r²), 3e-9 before rounding. Beyond 45°, atan(y/x) = π/2 - atan(x/y).
    larger, smaller = tl.maximum(x, y), tl.minimum(x, y)
    ratio = smaller / tl.where(larger > 0.0, larger, 1.0)
    square = ratio * ratio
    rest = -1.7936177318915725e-3 * square + 1.091458834707737e-2
    rest = rest * square - 3.1177815049886703e-2
    rest = rest * square + 5.795756354928017e-2
    rest = rest * square - 8.403448760509491e-2
    rest = rest * square + 1.0952185094356537e-1
    rest = rest * square - 1.4264240860939026e-1
    rest = rest * square + 1.9998548924922943e-1
    rest = rest * square - 3.3333298563957214e-1
    angle = ratio * (square * rest) + ratio
    # larger · sqrt(1 + r²): x² + y² would lose the digits of small values, and overflow for large ones.
    return larger * tl.sqrt(1.0 + square), tl.where(y > x, 1.5707963267948966 - angle, angle)
