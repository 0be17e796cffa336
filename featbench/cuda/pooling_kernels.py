"""N and pooling at once: maps are normalised while they are pooled.

The maps are read once, and what is written is smaller by the stride squared: no normalised copy of them is ever stored.
"""

import torch
import triton.language as tl
from torch import Tensor

from featbench.cuda.kernel import ceil_div, kernel, launch, make_contiguous, next_power_of_two, to_nhwc
from featbench.stages.specs import PoolingSpec

VALUES = 2048
"""Sums that a program holds: 16 in each of 128 threads, which leaves room for many loads at a time."""


def normalise_and_pool(y: Tensor, shift: Tensor | None, scale: Tensor | None, spec: PoolingSpec) -> Tensor:
    """Pool (y - shift) / scale over space, y [n, maps, h, w], shift and scale float32 [n, 1, h, w] or None.

    Average or maximum; returns float32 [n, maps, rows, columns], contiguous. The maps of a pixel lie together in memory
    and are read together; where windows overlap, the caches hold what was read before.
    """
    n, maps, height, width = y.shape
    rows, columns = ((side - spec.size) // spec.stride + 1 for side in (height, width))
    pooled = y.new_empty(n, maps, rows, columns, dtype=torch.float32)
    block_maps = next_power_of_two(min(maps, 64), 16)
    block_columns = next_power_of_two(min(columns, VALUES // block_maps))
    map_blocks, column_blocks = ceil_div(maps, block_maps), ceil_div(columns, block_columns)
    launch(
        _pool, n * rows * column_blocks * map_blocks, to_nhwc(y), make_contiguous(shift), make_contiguous(scale),
        pooled, height, width, rows, columns, map_blocks, column_blocks, maps=maps, size=spec.size, stride=spec.stride,
        largest=spec.kind == "M", block_maps=block_maps, block_columns=block_columns,
    )  # fmt: skip
    return pooled


@kernel
def _pool(
    y: tl.tensor, shift: tl.tensor, scale: tl.tensor, pooled: tl.tensor,
    height: tl.tensor, width: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    map_blocks: tl.tensor, column_blocks: tl.tensor,
    maps: tl.constexpr, size: tl.constexpr, stride: tl.constexpr,
    largest: tl.constexpr, block_maps: tl.constexpr, block_columns: tl.constexpr,
) -> None:  # fmt: skip
    """Pool a block of maps and columns of one row of an image."""
    # The program's number holds block of maps, block of columns, row and image, the first fastest: programs that run at
    # the same time read the same pixels.
    program = tl.program_id(0)
    unit = program % map_blocks * block_maps + tl.arange(0, block_maps)
    program = program // map_blocks
    column = program % column_blocks * block_columns + tl.arange(0, block_columns)
    program = program // column_blocks
    row = program % rows
    image = (program // rows).to(tl.int64)
    inside, present = column < columns, unit < maps
    there = inside[:, None] & present[None, :]
    total = tl.full((block_columns, block_maps), float("-inf") if largest else 0.0, tl.float32)
    for tap in range(size * size):
        position = (image * height + row * stride + tap // size) * width + column * stride + tap % size
        # shift and scale are one number a pixel, for all maps.
        value = tl.load(y + position[:, None] * maps + unit[None, :], there, other=0.0).to(tl.float32)
        if shift is not None:
            value -= tl.load(shift + position, inside, other=0.0)[:, None]
        if scale is not None:
            value *= (1.0 / tl.load(scale + position, inside, other=1.0))[:, None]
        if largest:
            # A NaN wins, as in torch: value != value holds for a NaN alone.
            total = tl.where((value > total) | (value != value), value, total)
        else:
            total += value
    if not largest:
        total = total / (size * size)
    # Maps first: features are read as rows [maps, rows, columns], the order that classifiers and the store expect.
    where = ((image * maps + unit[None, :]) * rows + row) * columns + column[:, None]
    tl.store(pooled + where, total, there)
