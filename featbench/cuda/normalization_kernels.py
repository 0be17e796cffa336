"""N's mean and deviation around each pixel, from the mean and the mean square over maps.

With μ = mean_k y_k, q = mean_k y_k² and a Gaussian window w: m = w∗μ and σ² = w∗(q - 2mμ + m²), two small maps for all
maps of an image (see `LocalNormalisation`). No sum is shared between programs: atomic additions come in any order, and
would give other bits in another run or batch.
"""

import torch
import triton.language as tl
from torch import Tensor

from featbench.cuda.bank_kernels import MOST_MAPS, VALUES, add_moments, store_moments
from featbench.cuda.kernel import ceil_div, kernel, launch, next_power_of_two, to_nhwc
from featbench.stages.normalization import ROUNDING, TINY, LocalNormalisation

BLOCK = 256
"""Pixels of a program. The rows of its windows stay in the first-level cache."""


def compute_moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and mean square over maps, float32 [n, 1, h, w], of y [n, maps, h, w]."""
    n, maps, height, width = y.shape
    mean = y.new_empty(n, 1, height, width, dtype=torch.float32)
    square = torch.empty_like(mean)
    # As many values a program as fit its registers: few pixels with many maps each, or many pixels with few.
    block_maps = next_power_of_two(min(maps, MOST_MAPS), 16)
    block_pixels = VALUES // block_maps
    tiles = ceil_div(height * width, block_pixels)
    launch(
        _reduce_moments, n * tiles, to_nhwc(y), mean, square, height * width, tiles,
        maps=maps, block_pixels=block_pixels, block_maps=block_maps,
    )  # fmt: skip
    return mean, square


def compute_statistics(mean: Tensor, square: Tensor, norm: LocalNormalisation) -> tuple[Tensor | None, Tensor | None]:
    """Return what N subtracts and what it divides by, [n, 1, h, w] each, or None; mean, square: float32 [n, 1, h, w].

    As `LocalNormalisation.statistics`, but the window is summed at once instead of rows first: a second kernel, and a
    map between the two, would take longer than 81 loads from the cache.
    """
    n, _, height, width = mean.shape
    tiles = ceil_div(height * width, BLOCK)
    profile = norm.profile.to(mean)
    mean, square = mean.contiguous(), square.contiguous()
    local_mean = torch.empty_like(mean) if norm.subtractive else None
    variance = torch.empty_like(mean) if norm.divisive else None
    window = {"size": norm.size, "zeros": norm.zeros, "block": BLOCK}
    # Three kernels, since each needs its neighbours' results of the one before: programs cannot wait for one another.
    launch(_centre, n * tiles, mean, square, profile, local_mean, variance, height, width, tiles, **window)
    if variance is None:
        return local_mean, None
    deviation = torch.empty_like(mean)
    launch(_deviate, n * tiles, variance, profile, deviation, height, width, tiles, tiny=TINY, **window)
    # c is a mean over the whole image, which only a kernel of its own can know; the maximum over σ follows it.
    least = mean.new_empty(n, 1, 1, 1)
    noise = ROUNDING * torch.finfo(mean.dtype).eps ** 0.5
    launch(_find_floor, n, deviation, square, least, height * width, noise=noise, block=1024)
    return local_mean, torch.maximum(least, deviation, out=deviation)


@kernel
def _reduce_moments(
    y: tl.tensor, mean: tl.tensor, square: tl.tensor, pixels: tl.tensor, tiles: tl.tensor,
    maps: tl.constexpr, block_pixels: tl.constexpr, block_maps: tl.constexpr,
) -> None:  # fmt: skip
    """Reduce a tile of an image's pixels over maps."""
    # As `_activate` sums them, tile by tile of one image: the same bits whichever kernel gave the moments.
    program = tl.program_id(0)
    pixel = program % tiles * block_pixels + tl.arange(0, block_pixels)
    inside = pixel < pixels
    position = (program // tiles).to(tl.int64) * pixels + pixel
    total = tl.zeros((block_pixels,), tl.float32)
    energy = tl.zeros((block_pixels,), tl.float32)
    for first in range(0, maps, block_maps):
        unit = first + tl.arange(0, block_maps)
        there = inside[:, None] & (unit < maps)[None, :]
        value = tl.load(y + position[:, None] * maps + unit[None, :], there, other=0.0).to(tl.float32)
        total, energy = add_moments(value, total, energy)
    store_moments(mean, square, position, total, energy, maps, inside)


@kernel
def _blur(
    x: tl.tensor, profile: tl.tensor, row: tl.tensor, column: tl.tensor, inside: tl.tensor,
    height: tl.tensor, width: tl.tensor, size: tl.constexpr, zeros: tl.constexpr, block: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return the Gaussian mean of an image x around pixels.

    At the border the sum is divided by the weight of the pixels that exist, or with `zeros` left as it is.
    """
    total = tl.zeros((block,), tl.float32)
    mass = tl.zeros((block,), tl.float32)
    for tap in range(size * size):
        weight = tl.load(profile + tap // size) * tl.load(profile + tap % size)
        # The row and the column of the tap's pixel; what lies beyond the border adds neither value nor mass.
        near, beside = row + tap // size - size // 2, column + tap % size - size // 2
        there = inside & (near >= 0) & (near < height) & (beside >= 0) & (beside < width)
        total += weight * tl.load(x + near * width + beside, there, other=0.0)
        mass += tl.where(there, weight, 0.0)
    # Pixels beyond the image have no mass: 1 keeps 0/0 out of what is masked later.
    return total if zeros else total / tl.where(inside, mass, 1.0)


@kernel
def _centre(
    mean: tl.tensor, square: tl.tensor, profile: tl.tensor, local_mean: tl.tensor, variance: tl.tensor,
    height: tl.tensor, width: tl.tensor, tiles: tl.tensor,
    size: tl.constexpr, zeros: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Find m = w∗μ and v = q - 2mμ + m² of a tile of an image; m = 0 where it is not asked for.

    v = mean_k (y_k - m)², the mean square over maps of the centred responses.
    """
    program = tl.program_id(0)
    start = (program // tiles).to(tl.int64) * height * width
    pixel = program % tiles * block + tl.arange(0, block)
    inside = pixel < height * width
    around = tl.zeros((block,), tl.float32)
    if local_mean is not None:
        around = _blur(mean + start, profile, pixel // width, pixel % width, inside, height, width, size, zeros, block)
        tl.store(local_mean + start + pixel, around, inside)
    if variance is not None:
        here = tl.load(mean + start + pixel, inside, other=0.0)
        value = tl.load(square + start + pixel, inside, other=0.0) - 2.0 * around * here + around * around
        # Rounding may leave a mean square below zero. `where`, since `maximum` would turn a NaN into 0 and hide it.
        tl.store(variance + start + pixel, tl.where(value < 0.0, 0.0, value), inside)


@kernel
def _deviate(
    variance: tl.tensor, profile: tl.tensor, deviation: tl.tensor, height: tl.tensor, width: tl.tensor,
    tiles: tl.tensor, size: tl.constexpr, zeros: tl.constexpr, block: tl.constexpr, tiny: tl.constexpr,
) -> None:  # fmt: skip
    """Find σ = sqrt(w∗v) of a tile of an image."""
    program = tl.program_id(0)
    start = (program // tiles).to(tl.int64) * height * width
    pixel = program % tiles * block + tl.arange(0, block)
    inside = pixel < height * width
    row, column = pixel // width, pixel % width
    blurred = _blur(variance + start, profile, row, column, inside, height, width, size, zeros, block)
    tl.store(deviation + start + pixel, tl.sqrt(tl.where(blurred < tiny, tiny, blurred)), inside)


@kernel
def _find_floor(
    deviation: tl.tensor, square: tl.tensor, least: tl.tensor, pixels: tl.tensor,
    noise: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Find the smallest denominator of an image: the mean c of σ over it, or the largest σ that rounding may give."""
    # One program an image, which goes over it in a fixed order: the same bits in every run.
    image = tl.program_id(0)
    start = image.to(tl.int64) * pixels
    spread = tl.zeros((block,), tl.float32)
    energy = tl.zeros((block,), tl.float32)
    for first in range(0, pixels, block):
        pixel = first + tl.arange(0, block)
        inside = pixel < pixels
        spread += tl.load(deviation + start + pixel, inside, other=0.0)
        energy += tl.load(square + start + pixel, inside, other=0.0)
    rounding = noise * tl.sqrt(tl.sum(energy, axis=0) / pixels)
    tl.store(least + image, tl.maximum(tl.sum(spread, axis=0) / pixels, rounding))
