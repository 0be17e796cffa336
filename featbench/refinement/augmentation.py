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
"""The largest value of each setting: beyond lies a mistake in the unit, as 15 for 15 %."""

SHIFT_X, SHIFT_Y, ANGLE, SCALE_X, SCALE_Y, SHEAR, FLIP, FIELD = range(8)
"""The random words of an image: one for each number, whether it is used or not; from FIELD on the elastic field's."""

REACH = 3.0
"""Where the Gaussian that smooths a field is cut off, in standard deviations."""

STEP = 0x9E3779B97F4A7C15
"""What SplitMix64 adds to its state for each word."""

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Augmentation:
    """Random distortions of training images, affine and elastic (Simard, Steinkraus, Platt 2003, section 2).

    shift: pixels, uniform within ±shift, down and across. rotate: degrees, uniform within ±rotate. scale: a part; each
    axis by its own factor, its logarithm uniform within ±log(1 + scale). shear: tangent of the angle by which columns
    lean, uniform within ±shear. flip: left and right exchanged with probability 1/2.

    An image is flipped, scaled, sheared, rotated, all about its centre, then shifted; and the place that a pixel reads
    from is displaced by an elastic field: numbers uniform within ±1, one a pixel and direction, convolved with a
    Gaussian of `smooth` pixels and of sum 1, then times `elastic`, Simard's α, in pixels. The noise goes on beyond the
    border, so a displacement has everywhere a standard deviation of elastic / (smooth sqrt(12 π)) pixels: 1.4 at their
    α = 34, σ = 4. A Gaussian of sum 1 is the usual reading of the paper.

    Values between pixels are bilinear. What comes in from outside repeats the border: standardised maps have no value
    that means nothing.
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
        return self.flip or self._moves

    @property
    def _moves(self) -> bool:
        return any((self.shift, self.rotate, self.scale, self.shear, self.elastic))

    def distort(self, maps: Tensor, images: IntArray, seed: int) -> Tensor:
        """Return maps [n, c, height, width] distorted, all maps of an image alike; `maps` itself if nothing is active.

        images: [n], the number of each image. Its distortion depends on it, on `seed` and on the size alone, so batches
        and threads do not matter. A `ValueError` if the shapes do not fit.
        """
        if maps.ndim != 4 or images.shape != maps.shape[:1]:
            raise ValueError(f"maps [n, c, height, width] and n images are needed, not {[*maps.shape]}, {images.shape}")
        if not self.active or not maps.numel():
            return maps
        states = image_states(seed, images)
        draws = _signed(random_words(states, np.arange(FIELD)[:, None]))
        if self.flip:
            maps = torch.where(_column(draws[FLIP] < 0, maps), maps.flip(-1), maps)
        return self._resample(maps, draws, states) if self._moves else maps

    def _resample(self, maps: Tensor, draws: NDArray[np.float64], states: Words) -> Tensor:
        """Read each pixel from where it comes from; in float64, so that whole pixels stay whole."""
        height, width = maps.shape[2:]
        across, down = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in (width, height))
        matrix = torch.from_numpy(self._inverse(draws))[..., None, None]
        shift = torch.from_numpy(self.shift * draws[[SHIFT_X, SHIFT_Y]])[..., None, None]
        across, down = across - shift[0], down[:, None] - shift[1]
        places = torch.stack([row[0] * across + row[1] * down for row in matrix], dim=1)
        if self.elastic:
            places = places + self._field(states, height, width)
        # Relative to the centre; grid_sample counts in halves of the image.
        places = places * torch.tensor([2 / width, 2 / height], dtype=torch.float64).view(2, 1, 1)
        grid = places.permute(0, 2, 3, 1).to(maps.device)
        sampled = functional.grid_sample(maps.double(), grid, padding_mode="border", align_corners=False)
        return sampled.to(maps.dtype)

    def _inverse(self, draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the matrices [2, 2, n] that lead from distorted (x, y) back: unrotate, unshear, unscale."""
        angle, shear = np.deg2rad(self.rotate) * draws[ANGLE], self.shear * draws[SHEAR]
        cosine, sine = np.cos(angle), np.sin(angle)
        factors = np.exp(np.log1p(self.scale) * draws[[SCALE_X, SCALE_Y]])
        unrotated = np.array([[cosine + shear * sine, sine - shear * cosine], [-sine, cosine]])
        return np.asarray(unrotated / factors[:, None])

    def _field(self, states: Words, height: int, width: int) -> Tensor:
        """Return the elastic displacements (x, y) in pixels, [n, 2, height, width]."""
        reach = math.floor(REACH * self.smooth + 0.5)
        profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / self.smooth) ** 2)
        rows, columns = height + 2 * reach, width + 2 * reach
        words = random_words(states[:, None], np.arange(FIELD, FIELD + rows * columns))
        # A word makes two numbers.
        noise = torch.from_numpy(words.view(np.int32).reshape(-1, 2, rows, columns)).float()
        return smooth(noise, (profile / profile.sum()).tolist()) * (self.elastic / 2**31)


def random_words(states: Words, positions: NDArray[np.integer[Any]]) -> Words:
    """Return the words at positions 0, 1, … of SplitMix64 started in each state; the two arrays are broadcast.

    A word needs no other before it. Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators,
    with the mixing of Vigna's splitmix64.c.
    """
    word = np.asarray(states + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(STEP))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word ^= word >> np.uint64(shift)
        word *= np.uint64(factor)
    word ^= word >> np.uint64(31)
    return word


def image_states(seed: int, images: IntArray) -> Words:
    """Return the state [n] that the random words of each image start in."""
    start = random_words(np.array([seed % 2**64], dtype=np.uint64), np.zeros(1, dtype=np.int64))
    return random_words(start, images)


def _signed(words: Words) -> NDArray[np.float64]:
    """Return words as numbers in [-1, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1


def _column(values: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)[:, None, None, None]
