"""Random distortions of training images: new ones in every epoch, so that refinement sees no image twice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from featbench.stages.normalization import smooth
from featbench.types import IntArray

LIMITS = {"shift": 1000.0, "rotate": 180.0, "scale": 1.0, "shear": 1.0, "elastic": 1000.0, "smooth": 32.0}
"""The largest value of each setting: a larger one is a mistake in the unit, such as 15 for 15 %."""

SHIFT_X, SHIFT_Y, ANGLE, SCALE_X, SCALE_Y, SHEAR, FLIP, FIELD = range(8)
"""Positions of an image's random words: one for each number, used or not, and from FIELD on those of the elastic field.

Since positions are fixed, switching one distortion on leaves the draws of the others as they were.
"""

CUTOFF = 3.0
"""Where the Gaussian that smooths a field is cut off, in standard deviations."""

SPLITMIX_STEP = 0x9E3779B97F4A7C15
"""What SplitMix64 adds to its state for each word: 2^64 divided by the golden ratio, made odd."""

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Augmentation:
    """Random distortions of training images, affine and elastic.

    An image is mirrored, scaled, sheared and rotated, all about its centre, and then shifted. Last, an elastic field
    displaces the position from which each pixel is read. Each image and seed has its own numbers.

    Parameters
    ----------
    shift : float, default 0
        Translation in pixels, uniform in ±shift down and across; at most 1000.
    rotate : float, default 0
        Rotation in degrees, uniform in ±rotate; at most 180.
    scale : float, default 0
        Change of size as a fraction, at most 1. Each axis has its own factor, whose logarithm is uniform in
        ±log(1 + scale).
    shear : float, default 0
        Shear, as the tangent of the angle by which columns lean, uniform in ±shear; at most 1.
    elastic : float, default 0
        Simard's α in pixels, at most 1000: what the smoothed field of displacements is multiplied by.
    smooth : float, default 4
        Simard's σ in pixels, in (0, 32]: standard deviation of the Gaussian that smooths the field.
    flip : bool, default False
        Whether left and right are exchanged with probability 1/2.

    Raises
    ------
    ValueError
        If a value lies outside its range. The message names the parameter.

    Attributes
    ----------
    active : bool
        Whether anything is distorted at all.

    Notes
    -----
    The elastic field is noise, uniform in ±1, one number a pixel and direction, convolved with a Gaussian of sum 1 and
    multiplied by α. The noise goes on beyond the border, so that displacements have the same standard deviation
    everywhere: α / (σ sqrt(12 π)) pixels, which is 1.4 at the paper's α = 34, σ = 4. The paper does not say how its
    Gaussian is normalised; a sum of 1 is the usual reading.

    Values between pixels are bilinear. Pixels from outside the image repeat its border: in standardised maps no value
    stands for "nothing", and zero would be a grey patch.

    References
    ----------
    Simard, Steinkraus, Platt: Best practices for convolutional neural networks applied to visual document analysis,
    ICDAR 2003, section 2.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    smooth: float = 4.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise ValueError(f"{name} must lie between 0 and {limit:g}, not {value}")
        if self.smooth == 0:
            raise ValueError("smooth must be positive")

    @property
    def active(self) -> bool:
        """Whether anything is distorted at all."""
        return self.flip or self._resamples

    @property
    def _resamples(self) -> bool:
        return any((self.shift, self.rotate, self.scale, self.shear, self.elastic))

    def distort(self, maps: Tensor, images: IntArray, seed: int) -> Tensor:
        """Return maps of images, distorted.

        Parameters
        ----------
        maps : Tensor, [n, c, height, width]
            All c maps of an image are distorted alike.
        images : array of int, [n]
            The number of each image. With `seed` and the size of the maps it alone decides on the distortion, so that
            the division into batches and threads does not matter.
        seed : int
            Another seed gives other distortions: refinement takes one for each epoch.

        Returns
        -------
        Tensor, [n, c, height, width]
            `maps` itself if nothing is active.

        Raises
        ------
        ValueError
            If the shapes do not fit.
        """
        if maps.ndim != 4 or images.shape != maps.shape[:1]:
            raise ValueError(f"maps [n, c, height, width] and n images are needed, not {[*maps.shape]}, {images.shape}")
        if not self.active or not maps.numel():
            return maps
        states = derive_states(seed, images)
        draws = _to_signed(make_words(states, np.arange(FIELD)[:, None]))
        if self.flip:
            maps = torch.where(_view_per_image(draws[FLIP] < 0, maps), maps.flip(-1), maps)
        return self._resample(maps, draws, states) if self._resamples else maps

    def _resample(self, maps: Tensor, draws: NDArray[np.float64], states: Words) -> Tensor:
        """Read each pixel from the position that it comes from."""
        height, width = maps.shape[2:]
        # Positions (x, y) relative to the centre, in float64: float32 would round shifts by whole pixels to fractions,
        # and blur what only moves.
        across, down = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in (width, height))
        matrix = torch.from_numpy(self._compute_inverse(draws))[..., None, None]
        shift = torch.from_numpy(self.shift * draws[[SHIFT_X, SHIFT_Y]])[..., None, None]
        across, down = across - shift[0], down[:, None] - shift[1]
        positions = torch.stack([row[0] * across + row[1] * down for row in matrix], dim=1)
        if self.elastic:
            positions = positions + self._draw_field(states, height, width)
        # grid_sample's unit is half the image: with align_corners=False, -1 and 1 are its outer edges.
        positions = positions * torch.tensor([2 / width, 2 / height], dtype=torch.float64).view(2, 1, 1)
        grid = positions.permute(0, 2, 3, 1).to(maps.device)
        sampled = functional.grid_sample(maps.double(), grid, padding_mode="border", align_corners=False)
        return sampled.to(maps.dtype)

    def _compute_inverse(self, draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the matrices [2, 2, n] that lead from distorted (x, y) back to where a pixel is read.

        A point is scaled by S, sheared by H = [[1, h], [0, 1]] and rotated by R, so the way back is S⁻¹ H⁻¹ R⁻¹. Pixels
        are read and not moved, so only the inverse is needed: H⁻¹ R⁻¹ is written out, and S⁻¹ divides its rows.
        """
        angle, shear = np.deg2rad(self.rotate) * draws[ANGLE], self.shear * draws[SHEAR]
        cosine, sine = np.cos(angle), np.sin(angle)
        # Uniform in the logarithm: enlarging by 5/4 is as likely as shrinking by 4/5.
        factors = np.exp(np.log1p(self.scale) * draws[[SCALE_X, SCALE_Y]])
        unrotated = np.array([[cosine + shear * sine, sine - shear * cosine], [-sine, cosine]])
        return np.asarray(unrotated / factors[:, None])

    def _draw_field(self, states: Words, height: int, width: int) -> Tensor:
        """Return the elastic displacements (x, y) in pixels, [n, 2, height, width]."""
        reach = math.floor(CUTOFF * self.smooth + 0.5)
        profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / self.smooth) ** 2)
        # The noise is larger than the image by the window: the valid region of the correlation has the image's size,
        # and its border is as random as its middle.
        rows, columns = height + 2 * reach, width + 2 * reach
        words = make_words(states[:, None], np.arange(FIELD, FIELD + rows * columns))
        # A word of 64 bits makes two numbers of 32, which are enough for a displacement and cost half as much.
        noise = torch.from_numpy(words.view(np.int32).reshape(-1, 2, rows, columns)).float()
        # Signed 32-bit integers become numbers in [-1, 1) by 2^-31, which joins α in one factor.
        return smooth(noise, (profile / profile.sum()).tolist()) * (self.elastic / 2**31)


def make_words(states: Words, positions: NDArray[np.integer[Any]]) -> Words:
    """Return the 64-bit words at positions 0, 1, … of SplitMix64 started in each state; the two arrays are broadcast.

    The state before a word is an affine function of its position, so a word needs no other before it. That lets each
    image, pixel and thread draw by itself, on any device, and numpy draw all of them at once.

    Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators, with the mixing of Vigna's
    splitmix64.c.
    """
    # Unsigned arithmetic wraps modulo 2^64, as the algorithm demands.
    word = np.asarray(states + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(SPLITMIX_STEP))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word ^= word >> np.uint64(shift)
        word *= np.uint64(factor)
    word ^= word >> np.uint64(31)
    return word


def derive_states(seed: int, images: IntArray) -> Words:
    """Return the state [n] in which the random words of each image start."""
    # An image's state is a word of the seed's sequence, and so is mixed. Unmixed, each image would start a step after
    # the one before it and repeat all its words but the first.
    start = make_words(np.array([seed % 2**64], dtype=np.uint64), np.zeros(1, dtype=np.int64))
    return make_words(start, images)


def _to_signed(words: Words) -> NDArray[np.float64]:
    """Return words as numbers in [-1, 1): the upper 53 bits, which are all that a float64 holds."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1


def _view_per_image(values: NDArray[Any], like: Tensor) -> Tensor:
    """Return values [n] as a tensor that broadcasts over maps [n, c, height, width]."""
    return torch.from_numpy(values).to(like.device)[:, None, None, None]
