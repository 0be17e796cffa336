"""Images to normalised maps: grey, resize by the longest side, zero mean and unit variance, LCN, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.data.prepare import PackedImages, prepare
from featbench.errors import DataError
from featbench.stages.architecture import Shape
from featbench.stages.normalization import WINDOW, local_contrast_normalise
from featbench.types import Images, IntArray, Pixels

CHUNK = 1024
"""Images normalised at once; bounds the memory of temporaries."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the first stage, in this order; for Caltech-101 (151, True, 1.0, True).

    size: longest side in pixels after resizing (None: as it is; Pillow's bicubic filter, antialiased).
    standardise: subtract the image's mean, divide by its standard deviation.
    lcn: the constant of local contrast normalisation over a 9×9 window (None: none); height and width lose 8 pixels.
    pad: zero-pad the shorter side, so that maps are square.
    """

    size: int | None = None
    standardise: bool = True
    lcn: float | None = None
    pad: bool = False

    @property
    def least(self) -> int:
        """The shortest side that an image may have after resizing."""
        return 1 if self.lcn is None else WINDOW


class Maps:
    """The normalised maps of images, computed when they are asked for: `maps[3:7]`, `maps[indices]`.

    pixels: grey images as `prepare` gives them. They come out as float32 [n, 1, height, width]; images of several sizes
    only one size at a time, unless padding makes them equal.
    """

    def __init__(self, pixels: PackedImages, preprocessing: Preprocessing, chosen: IntArray | None = None) -> None:
        self.pixels, self.preprocessing = pixels, preprocessing
        self.chosen = np.arange(len(pixels)) if chosen is None else chosen
        self._sizes = pixels.shapes[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def image_sizes(self) -> IntArray:
        """The height and the width of each image as it comes out, [n, 2]."""
        lost = 0 if self.preprocessing.lcn is None else WINDOW - 1
        sides = self._sizes - lost
        return sides.max(axis=1, keepdims=True).repeat(2, axis=1) if self.preprocessing.pad else sides

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """The heights and widths that come out."""
        return {(int(height), int(width)) for height, width in np.unique(self.image_sizes, axis=0)}

    @property
    def shape(self) -> Shape:
        """Maps, height and width; raises `DataError` if images come out in several sizes."""
        self.require_one_size()
        return (1, *self.sizes.pop())

    @property
    def least(self) -> Shape:
        """Maps, and the smallest height and the smallest width that come out."""
        height, width = self.image_sizes.min(axis=0)
        return 1, int(height), int(width)

    def require_one_size(self) -> None:
        """Raise a `DataError` if there are no images, or if they come out in several sizes."""
        sizes = self.sizes
        if not sizes:
            raise DataError("there are no images to preprocess")
        if len(sizes) > 1:
            shown = ", ".join(f"{height}×{width}" for height, width in sorted(sizes)[:4])
            raise DataError(
                f"the images have {len(sizes)} sizes ({shown}…): a protocol that resizes and pads is needed"
            )

    def select(self, indices: IntArray) -> Maps:
        """Return the maps of some of the images, computed as late."""
        return Maps(self.pixels, self.preprocessing, self.chosen[indices])

    def __getitem__(self, which: slice | IntArray) -> Tensor:
        wanted, sizes = self.chosen[which], self._sizes[which]
        made: list[Tensor | None] = [None] * len(wanted)
        for height, width in np.unique(sizes, axis=0):
            # Images of one size are normalised together.
            (places,) = np.nonzero((sizes == (height, width)).all(axis=1))
            for start in range(0, len(places), CHUNK):
                here = places[start : start + CHUNK]
                grey = np.stack([self.pixels[int(index)] for index in wanted[here]])
                for place, image in zip(here, _normalise(grey, self.preprocessing), strict=True):
                    made[place] = image
        return torch.stack([image for image in made if image is not None])


class JoinedMaps:
    """The maps of several sources, one after another; their sizes may differ."""

    def __init__(self, *parts: Maps) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """The heights and widths that come out."""
        return set[tuple[int, int]]().union(*(part.sizes for part in self.parts))

    def __getitem__(self, which: IntArray) -> Tensor:
        """Return the maps of images of one size, named in ascending order."""
        bounds = np.searchsorted(which, self._starts)
        pieces = zip(self.parts, self._starts[:-1], bounds[:-1], bounds[1:], strict=True)
        return torch.cat([part[which[low:high] - start] for part, start, low, high in pieces if high > low])


def preprocess(pixels: Sequence[Pixels] | Pixels, preprocessing: Preprocessing) -> Tensor:
    """Return the maps [n, 1, height, width] of images; a `DataError` names the image that cannot take part."""
    maps = maps_of(pixels, preprocessing)
    maps.require_one_size()
    return maps[:]


def maps_of(pixels: Sequence[Pixels] | Pixels, preprocessing: Preprocessing) -> Maps:
    """Make images ready, and return their maps."""
    if len(pixels) == 0:
        raise DataError("there are no images to preprocess")
    unlabelled = Images(pixels, np.zeros(len(pixels), dtype=np.int64), ("",))
    prepared = prepare(unlabelled, preprocessing.size, least=preprocessing.least)
    return Maps(prepared.pixels, preprocessing)


def map_shape(maps: Maps | Tensor) -> Shape:
    """Return maps, height and width of what enters the first stage: the smallest where images differ in size."""
    if isinstance(maps, Maps):
        return maps.least
    _, channels, height, width = maps.shape
    return channels, height, width


def _normalise(grey: NDArray[Any], preprocessing: Preprocessing) -> Tensor:
    maps = torch.from_numpy(grey.astype(np.float32)).unsqueeze(1)
    if preprocessing.standardise:
        maps = standardise(maps)
    if preprocessing.lcn is not None:
        maps = local_contrast_normalise(maps, preprocessing.lcn)
    return pad_to_square(maps) if preprocessing.pad else maps


def standardise(maps: Tensor) -> Tensor:
    """Give each image [1, height, width] zero mean and unit variance; a constant image becomes zeros."""
    centred = maps - maps.mean(dim=(1, 2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    # Rounding leaves a constant image with a deviation of a few units in the last place of its mean.
    floor = 1e-6 * maps.abs().amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(deviation > floor, centred / deviation.clamp_min(1e-30), torch.zeros_like(centred))


def pad_to_square(maps: Tensor) -> Tensor:
    """Zero-pad the shorter side of [n, 1, height, width], the image in the centre."""
    height, width = maps.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return torch.nn.functional.pad(maps, (left, side - width - left, top, side - height - top))
