"""Filter banks: the first layer's convolution with its non-linearity in one kernel, and the non-linearity for others.

Both write maps last in memory: a program's tile of pixels and maps is then one stretch of memory, and so are the maps
of a pixel for the kernels that follow. The mean and the mean square over maps, which N needs, are summed while a
pixel's maps are still in registers: the maps are not read again for them.
"""

import torch
import triton.language as tl
from torch import Tensor

from featbench.cuda.kernel import ceil_div, kernel, launch, make_contiguous, next_power_of_two
from featbench.operations.reference import BankWeights, Responses

MOST_MAPS = 128
"""Maps that a program holds at once: with 64 pixels, 64 sums in each of 128 threads."""

VALUES = 4096
"""Values that a program which only passes over maps holds: 32 in each of 128 threads."""


def convolve(
    x: Tensor, weight: Tensor, bank: BankWeights, kept: torch.dtype, *, ieee: bool, moments: bool
) -> Responses:
    """Return the responses, of type `kept`, of a bank without table to x [n, maps, h, w].

    x and weight [filters, maps, size, size] are float32. With `ieee` all their bits count; else they are rounded to
    TF32 or fewer bits already, and tensor cores multiply them. A program reads and writes within one image, so that
    responses do not depend on the batch.
    """
    n, _, height, width = x.shape
    filters, size = weight.shape[0], weight.shape[3]
    rows, columns = height - size + 1, width - size + 1
    last = x.new_empty(n, rows, columns, filters, dtype=kept)
    mean, square = _allocate_moments(last) if moments else (None, None)
    # Sides of a block are powers of two in Triton, and `tl.dot` takes no side below 16.
    block_maps = next_power_of_two(min(filters, MOST_MAPS), 16)
    # 64 sums a thread, as a good matrix product has; on tensor cores half, for the registers that addresses take.
    pixels = 128 if block_maps <= 64 else 64
    tiles = ceil_div(rows * columns, pixels)
    # [taps, filters]: a program reads the weights of one tap for all its filters, which then lie side by side.
    taps = weight.reshape(filters, -1).T.contiguous()
    launch(
        _convolve, n * tiles, x.contiguous(), taps, bank.bias.contiguous(), make_contiguous(bank.gain), last, mean,
        square, height, width, rows, columns, tiles, taps=taps.shape[0], size=size, maps=filters, block_pixels=pixels,
        block_maps=block_maps, block_taps=16 if ieee else 32, rectified=bank.rectified,
        precision="ieee" if ieee else "tf32", num_warps=4 if ieee else 8, num_stages=2,
    )  # fmt: skip
    return Responses(last.permute(0, 3, 1, 2), mean, square, own=True)


def activate(last: Tensor, bank: BankWeights, *, moments: bool) -> Responses:
    """Add the bias to bare responses [n, h, w, maps], contiguous, and apply the non-linearity, in place."""
    mean, square = _allocate_moments(last) if moments else (None, None)
    n, height, width, maps = last.shape
    block_maps = next_power_of_two(min(maps, MOST_MAPS), 16)
    block_pixels = VALUES // block_maps
    tiles = ceil_div(height * width, block_pixels)
    launch(
        _activate, n * tiles, last, bank.bias.contiguous(), make_contiguous(bank.gain), mean, square, height * width,
        tiles, maps=maps, block_pixels=block_pixels, block_maps=block_maps, rectified=bank.rectified,
    )  # fmt: skip
    return Responses(last.permute(0, 3, 1, 2), mean, square, own=True)


def _allocate_moments(last: Tensor) -> tuple[Tensor, Tensor]:
    """Return two empty maps, float32 [n, 1, h, w], for the moments of responses [n, h, w, maps]."""
    n, rows, columns, _ = last.shape
    mean = last.new_empty(n, 1, rows, columns, dtype=torch.float32)
    return mean, torch.empty_like(mean)


@kernel
def _convolve(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, gain: tl.tensor, y: tl.tensor, mean: tl.tensor, square: tl.tensor,
    height: tl.tensor, width: tl.tensor, rows: tl.tensor, columns: tl.tensor, tiles: tl.tensor,
    taps: tl.constexpr, size: tl.constexpr, maps: tl.constexpr, block_pixels: tl.constexpr,
    block_maps: tl.constexpr, block_taps: tl.constexpr, rectified: tl.constexpr, precision: tl.constexpr,
) -> None:  # fmt: skip
    """Filter a tile of an image's pixels: a product of their windows [pixels, taps] and the filters [taps, maps].

    The windows are never stored (implicit im2col). Each input value is loaded size² times, nearly always from the
    cache: in the first layer of Jarrett et al. 2009 the image is 1/57 of the maps that are written.
    """
    program = tl.program_id(0)
    # 64 bits for all that is multiplied by the image: a batch holds more than 2^31 values.
    image = (program // tiles).to(tl.int64)
    pixel = program % tiles * block_pixels + tl.arange(0, block_pixels)
    inside = pixel < rows * columns
    # taps // size² maps come in. Pixels and taps are addressed apart: corner of the window + offset of the tap in it.
    corner = image * (taps // (size * size)) * height * width + pixel // columns * width + pixel % columns
    position = image * rows * columns + pixel
    total = tl.zeros((block_pixels,), tl.float32)
    energy = tl.zeros((block_pixels,), tl.float32)
    # One program computes all maps of its pixels, block by block, so that it alone has their sums: no atomic additions,
    # whose order, and so whose rounding, changes from run to run.
    for first in range(0, maps, block_maps):
        unit = first + tl.arange(0, block_maps)
        present = unit < maps
        response = tl.zeros((block_pixels, block_maps), tl.float32)
        for start in range(0, taps, block_taps):
            tap = start + tl.arange(0, block_taps)
            used = tap < taps
            # Tap (map, row, column) of the window, in the order of the weight's last three sides.
            offset = tap // (size * size) * height * width + tap // size % size * width + tap % size
            # What lies beyond the tile or the filter is 0, and adds nothing.
            window = tl.load(x + corner[:, None] + offset[None, :], inside[:, None] & used[None, :], other=0.0)
            filters = tl.load(weight + tap[:, None] * maps + unit[None, :], used[:, None] & present[None, :], other=0.0)
            response = tl.dot(window, filters, response, input_precision=precision)
        response = _finish(response, bias, gain, y, position, inside, unit, maps, rectified)
        total, energy = add_moments(response, total, energy)
    if mean is not None:
        store_moments(mean, square, position, total, energy, maps, inside)


@kernel
def _activate(
    y: tl.tensor, bias: tl.tensor, gain: tl.tensor, mean: tl.tensor, square: tl.tensor,
    pixels: tl.tensor, tiles: tl.tensor,
    maps: tl.constexpr, block_pixels: tl.constexpr, block_maps: tl.constexpr, rectified: tl.constexpr,
) -> None:  # fmt: skip
    """Finish the responses of a tile of an image's pixels, in place."""
    program = tl.program_id(0)
    # Tiles end at the image's border, though memory goes on: else a pixel's place in its tile, and with it the order of
    # its sums, would depend on the images before it.
    pixel = program % tiles * block_pixels + tl.arange(0, block_pixels)
    inside = pixel < pixels
    position = (program // tiles).to(tl.int64) * pixels + pixel
    total = tl.zeros((block_pixels,), tl.float32)
    energy = tl.zeros((block_pixels,), tl.float32)
    for first in range(0, maps, block_maps):
        unit = first + tl.arange(0, block_maps)
        present = unit < maps
        where, there = position[:, None] * maps + unit[None, :], inside[:, None] & present[None, :]
        # What cuDNN gave in 16 bits is widened here: bias, tanh and the sums are float32.
        response = tl.load(y + where, there, other=0.0).to(tl.float32)
        response = _finish(response, bias, gain, y, position, inside, unit, maps, rectified)
        total, energy = add_moments(response, total, energy)
    if mean is not None:
        store_moments(mean, square, position, total, energy, maps, inside)


@kernel
def _finish(
    response: tl.tensor, bias: tl.tensor, gain: tl.tensor, y: tl.tensor, position: tl.tensor, inside: tl.tensor,
    unit: tl.tensor, maps: tl.constexpr, rectified: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Add the bias to [pixels, maps], apply tanh, gain and absolute value, and store it; absent maps become 0."""
    present = unit < maps
    response += tl.load(bias + unit, present, other=0.0)[None, :]
    # None and flags are known at compile time: what is not asked for is not compiled.
    if gain is not None:
        response = tanh(response) * tl.load(gain + unit, present, other=0.0)[None, :]
    if rectified:
        response = tl.abs(response)
    where = position[:, None] * maps + unit[None, :]
    tl.store(y + where, response.to(y.dtype.element_ty), inside[:, None] & present[None, :])
    # For the moments: maps that are absent must not count in the sums.
    return tl.where(present[None, :], response, 0.0)


@kernel
def add_moments(value: tl.tensor, total: tl.tensor, energy: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return the sums over maps, Σ y and Σ y², with those of values y [pixels, maps] added."""
    return total + tl.sum(value, axis=1), energy + tl.sum(value * value, axis=1)


@kernel
def store_moments(
    mean: tl.tensor, square: tl.tensor, position: tl.tensor, total: tl.tensor, energy: tl.tensor,
    maps: tl.constexpr, inside: tl.tensor,
) -> None:  # fmt: skip
    """Store mean and mean square of pixels from their sums over maps."""
    tl.store(mean + position, total / maps, inside)
    tl.store(square + position, energy / maps, inside)


@kernel
def tanh(x: tl.tensor) -> tl.tensor:
    """Return tanh x in float32, with a relative error below 3e-7, provided that `exp` errs by as much.

    Triton's language has no tanh of its own, and its interpreter, in which tests run, cannot call CUDA's library.
    """
    size = tl.abs(x)
    # Below 1: tanh x = x + x · x² P(x²), P of least relative error (Remez). 1 - 2t/(1 + t) would lose its digits here,
    # since both terms are near 1. Clamped, since both branches are computed, and this one would overflow for large x.
    square = tl.minimum(size, 1.0) * tl.minimum(size, 1.0)
    rest = -3.5845153615809977e-4 * square + 2.301363041624427e-3
    rest = rest * square - 7.946104742586613e-3
    rest = rest * square + 2.1486656740307808e-2
    rest = rest * square - 5.387980118393898e-2
    rest = rest * square + 1.3332344591617584e-1
    rest = rest * square - 3.3333295583724976e-1
    # From 1 on: tanh|x| = 1 - 2t/(1 + t) with t = e^(-2|x|) ≤ e^-2, and a polynomial in t for 2/(1 + t), which saves
    # the division. For large |x| t vanishes, and the result is 1. Before rounding both polynomials err by 5e-9.
    fallen = tl.exp(-2.0 * size)
    part = 1.364681363105774 * fallen - 1.912386178970337
    part = part * fallen + 1.994266390800476
    part = part * fallen - 1.9998328685760498
    part = part * fallen + 1.9999984502792358
    large = 1.0 - fallen * part
    return tl.where(size < 1.0, x * (square * rest) + x, tl.where(x < 0.0, -large, large))
