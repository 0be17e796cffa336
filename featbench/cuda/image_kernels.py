"""Images to normalised maps on the device, straight from bytes: images of any sizes, in two kernels.

What `featbench.data.maps` computes on a CPU. Bytes are a quarter of the maps to copy, and the CPU has nothing to do.
"""

from functools import cache

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from featbench.cuda.kernel import ceil_div, kernel, launch, send
from featbench.errors import UsageError
from featbench.stages.normalization import TINY, WINDOW, gaussian_window
from featbench.types import IntArray

BLOCK = 256
"""Pixels of a program. The rows of its windows stay in the first-level cache."""


def normalise_images(
    flat: Tensor, offsets: IntArray, shapes: IntArray, size: tuple[int, int], *, standardise: bool, lcn: float | None
) -> Tensor:
    """Return the normalised maps float32 [n, 1, *size] of grey images, zero-padded to one size, in the centre.

    flat: uint8, packed images on the device; image i is flat[offsets[i]:] as [height, width] = shapes[i]. standardise:
    zero mean and unit variance. lcn: the constant of local contrast normalisation, which makes both sides 8 pixels
    shorter; None: none. Raises UsageError for images that lie outside `flat`, are smaller than the window, or do not
    fit `size`.
    """
    _check(flat, offsets, shapes, size, lcn)
    n, rows, columns = len(shapes), int(size[0]), int(size[1])
    maps = torch.empty(n, 1, rows, columns, device=flat.device)
    # Mean 0 and scale 1, unless `_measure` overwrites them: bytes then stay as they are.
    moments = torch.ones(n, 2, device=flat.device)
    moments[:, 0] = 0
    layouts = send(torch.from_numpy(np.column_stack([offsets, shapes]).astype(np.int64)), flat.device)
    if standardise:
        launch(_measure, n, flat, layouts, moments, block=1024)
    tiles = ceil_div(rows * columns, BLOCK)
    # The deviation is bounded below, not the variance; TINY so that lcn=0 does not divide by zero.
    least = None if lcn is None else max(lcn**2, TINY) ** 0.5
    launch(
        _normalise, n * tiles, flat, layouts, moments, _upload_profile(flat.device), maps, rows, columns, tiles,
        least=least, window=1 if lcn is None else WINDOW, block=BLOCK,
    )  # fmt: skip
    return maps


@cache
def _upload_profile(device: torch.device) -> Tensor:
    """Return one side of the separable Gaussian window, [9], on a device; copied once."""
    return send(gaussian_window(WINDOW, torch.float64).sum(dim=0).float(), device)


def _check(flat: Tensor, offsets: IntArray, shapes: IntArray, size: tuple[int, int], lcn: float | None) -> None:
    if flat.dtype != torch.uint8 or flat.ndim != 1 or not flat.is_contiguous():
        raise UsageError(f"packed images are bytes in one row, not {flat.dtype} of shape {list(flat.shape)}")
    if shapes.shape != (len(offsets), 2):
        raise UsageError(f"{len(offsets)} images need as many heights and widths, not shapes {list(shapes.shape)}")
    # Kernels check no bounds: what is wrong here would be read from, or written to, memory of others.
    lost = 0 if lcn is None else WINDOW - 1
    for index, (offset, (height, width)) in enumerate(zip(offsets, shapes, strict=True)):
        if offset < 0 or offset + height * width > len(flat):
            raise UsageError(f"image {index}, {height}×{width} from byte {offset}, lies outside the {len(flat)} bytes")
        if min(height, width) <= lost or height - lost > size[0] or width - lost > size[1]:
            allowed = f"{lost + 1}×{lost + 1} to {size[0] + lost}×{size[1] + lost}"
            raise UsageError(f"image {index} has {height}×{width} pixels, and {allowed} can be normalised here")


@kernel
def _measure(flat: tl.tensor, layouts: tl.tensor, moments: tl.tensor, block: tl.constexpr) -> None:
    """Find an image's mean and the reciprocal of its standard deviation, 0 for a blank one.

    With N pixels x, S = Σ x and Q = Σ x²: mean = S/N, variance = (N Q - S²)/N². Integers: sums of bytes are exact.
    """
    image = tl.program_id(0)
    start = tl.load(layouts + image * 3)
    pixels = (tl.load(layouts + image * 3 + 1) * tl.load(layouts + image * 3 + 2)).to(tl.int32)
    total = tl.zeros((block,), tl.int64)
    energy = tl.zeros((block,), tl.int64)
    for first in range(0, pixels, block):
        pixel = first + tl.arange(0, block)
        value = tl.load(flat + start + pixel, pixel < pixels, other=0).to(tl.int32)
        total += value
        energy += value * value
    whole = tl.sum(total, axis=0)
    # N Q - S², N² times the variance: exactly 0 for a blank image, and for no other. In floating point the difference
    # of two large numbers would leave rounding error, which the division would blow up to unit variance.
    spread = (tl.sum(energy, axis=0) * pixels - whole * whole).to(tl.float32)
    tl.store(moments + image * 2, whole.to(tl.float32) / pixels)
    tl.store(moments + image * 2 + 1, tl.where(spread > 0.0, pixels / tl.sqrt(tl.maximum(spread, 1.0)), 0.0))


@kernel
def _normalise(
    flat: tl.tensor, layouts: tl.tensor, moments: tl.tensor, profile: tl.tensor, maps: tl.tensor,
    rows: tl.tensor, columns: tl.tensor, tiles: tl.tensor,
    least: tl.constexpr, window: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Make a tile of an image's map: (z - m) / max(least, σ), m = w∗z, σ² = w∗(z - m)², of z = (byte - mean) · scale.

    m is that of the pixel in the middle, in the whole window: Σ w (z - m)² = w∗z² - m², without the cancellation of
    that difference.
    """
    program = tl.program_id(0)
    image = (program // tiles).to(tl.int64)
    start = tl.load(layouts + image * 3)
    height = tl.load(layouts + image * 3 + 1).to(tl.int32)
    width = tl.load(layouts + image * 3 + 2).to(tl.int32)
    mean, scale = tl.load(moments + image * 2), tl.load(moments + image * 2 + 1)
    pixel = program % tiles * block + tl.arange(0, block)
    inside = pixel < rows * columns
    # Row and column in the valid part of the image, which lies in the middle of the map; outside it the map is 0.
    row = pixel // columns - (rows - (height - window + 1)) // 2
    column = pixel % columns - (columns - (width - window + 1)) // 2
    there = inside & (row >= 0) & (row <= height - window) & (column >= 0) & (column <= width - window)
    corner = flat + start + row * width + column
    value = _load_standardised(corner + window // 2 * (width + 1), mean, scale, there)
    if least is not None:
        around = tl.zeros((block,), tl.float32)
        # All 81 taps rather than rows and then columns: that would need shared memory for the sums between, and these
        # maps are small beside those that the filters make of them.
        for tap in range(window * window):
            weight = tl.load(profile + tap // window) * tl.load(profile + tap % window)
            around += weight * _load_standardised(corner + tap // window * width + tap % window, mean, scale, there)
        variance = tl.zeros((block,), tl.float32)
        for tap in range(window * window):
            weight = tl.load(profile + tap // window) * tl.load(profile + tap % window)
            apart = _load_standardised(corner + tap // window * width + tap % window, mean, scale, there) - around
            variance += weight * apart * apart
        value = (value - around) / tl.maximum(tl.sqrt(variance), least)
    tl.store(maps + image * rows * columns + pixel, tl.where(there, value, 0.0), inside)


@kernel
def _load_standardised(address: tl.tensor, mean: tl.tensor, scale: tl.tensor, there: tl.tensor) -> tl.tensor:
    """Return the standardised bytes at some addresses; where `there` is false, those of a byte 0."""
    return (tl.load(address, there, other=0).to(tl.float32) - mean) * scale
