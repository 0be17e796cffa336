"""Prepared images to normalised maps: zero mean and unit variance, local contrast normalisation (LCN), padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.arguments import read_flag, read_integer, read_number
from featbench.data.numbers import rescale, round_to_single
from featbench.data.prepare import PackedImages, prepare
from featbench.errors import DataError
from featbench.stages.normalization import WINDOW, local_contrast_normalise
from featbench.stages.specs import Shape
from featbench.types import Images, IntArray, Pixels

CHUNK = 1024
"""Images normalised at once: bounds the memory of temporaries, whatever number is asked for."""

CHANNELS = (1, 3)
"""Maps that an image may become: one of grey, or red, green and blue."""

Colour = Literal["grey", "rgb", "opponent"]
"""What becomes of an image's colours: nothing but grey is left, they stay, or they turn into opponent colours."""

COLOURS: tuple[Colour, ...] = get_args(Colour)


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the first stage: its maps are what the first filter bank sees.

    The image becomes grey or RGB (`channels`), is resized, standardised, locally contrast-normalised and padded, in
    this order. Caltech-101 in Jarrett et al. 2009: `Preprocessing(size=151, standardise=True, lcn=1.0, pad=True)`.

    Parameters
    ----------
    size : int or None, default None
        Longest side in pixels after resizing, with Pillow's bicubic filter, antialiased. None: images keep their size.
    standardise : bool, default True
        Subtract the mean of the image and divide by its standard deviation, both over all values of the image: the
        three channels of a colour image share them, so that its hues stay. A constant image becomes zeros.
    lcn : float or None, default None
        The constant c of local contrast normalisation, y = (x - w∗x) / max(c, sqrt(w∗x² - (w∗x)²)) with a Gaussian
        window w of 9×9 pixels, over its valid region: height and width lose 8 pixels. It is in the unit of the maps
        after `standardise`. Each channel is normalised by itself. None: no normalisation.
    pad : bool, default False
        Zero-pad the shorter side, the image in the centre, so that maps are square.
    channels : int, default 1
        1: images become grey (ITU-R BT.601), one map each. 3: images become RGB, three maps each in the order red,
        green, blue; a grey image gets three equal ones.
    opponent : bool, default False
        Turn the three channels into opponent colours after `standardise`: red against green, yellow against blue, and
        intensity, in this order, along orthonormal axes. A grey image has zeros in the first two.

    Raises
    ------
    ValueError
        If a value is of another type or out of its range, or `opponent` is asked for with one channel.

    References
    ----------
    Jarrett, Kavukcuoglu, Ranzato, LeCun 2009, What is the best multi-stage architecture for object recognition?,
    section 4. They use grey images; LCN has the form of Torch7's `image.lcn`, which takes grey images alone. Opponent
    colours: van de Sande, Gevers, Snoek 2010, Evaluating color descriptors for object and scene recognition, eq. 5.
    """

    size: int | None = None
    standardise: bool = True
    lcn: float | None = None
    pad: bool = False
    channels: int = 1
    opponent: bool = False

    def __post_init__(self) -> None:
        # Plain numbers: numpy's would have no place in a key, and 1 and 1.0 would have two.
        plain = {
            "size": None if self.size is None else read_integer("size", self.size),
            "standardise": read_flag("standardise", self.standardise),
            "lcn": None if self.lcn is None else read_number("lcn", self.lcn),
            "pad": read_flag("pad", self.pad),
            "channels": read_integer("channels", self.channels),
            "opponent": read_flag("opponent", self.opponent),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size!r}")
        if self.lcn is not None and self.lcn < 0:
            raise ValueError(f"lcn must not be negative, and is {self.lcn!r}")
        if self.channels not in CHANNELS:
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), not {self.channels!r}")
        if self.opponent and self.channels != 3:
            raise ValueError("opponent colours are made of three channels: channels=3")

    @property
    def colour(self) -> Colour:
        """What becomes of an image's colours, by the name that `--channels` has for it."""
        return "grey" if self.channels == 1 else "opponent" if self.opponent else "rgb"

    @property
    def least(self) -> int:
        """The shortest side in pixels that an image may have after resizing."""
        return 1 if self.lcn is None else WINDOW


class Maps:
    """The normalised maps of images, computed when they are asked for: `maps[3:7]`, `maps[indices]`.

    pixels: images as `prepare` gives them, with the channels of the preprocessing. They come out as float32
    [n, channels, height, width]; images of several sizes only one size at a time, unless padding makes them equal.
    """

    def __init__(self, pixels: PackedImages, preprocessing: Preprocessing, chosen: IntArray | None = None) -> None:
        if pixels.channels != preprocessing.channels:
            raise ValueError(f"images of {pixels.channels} channels were prepared, not of {preprocessing.channels}")
        self.pixels, self.preprocessing = pixels, preprocessing
        self.chosen = np.arange(len(pixels)) if chosen is None else chosen
        self._sizes = pixels.shapes[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def image_sizes(self) -> IntArray:
        """The height and the width of each image as it comes out, [n, 2]."""
        # LCN keeps the positions at which its window lies within the image.
        lost = 0 if self.preprocessing.lcn is None else WINDOW - 1
        sides = self._sizes - lost
        return sides.max(axis=1, keepdims=True).repeat(2, axis=1) if self.preprocessing.pad else sides

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """The heights and widths that come out."""
        return {(int(height), int(width)) for height, width in np.unique(self.image_sizes, axis=0)}

    @property
    def shape(self) -> Shape:
        """Channels, height and width; raises `DataError` if images come out in several sizes."""
        self.require_one_size()
        return (self.pixels.channels, *self.sizes.pop())

    @property
    def least(self) -> Shape:
        """Channels, and the smallest height and the smallest width that come out."""
        height, width = self.image_sizes.min(axis=0)
        return self.pixels.channels, int(height), int(width)

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
        """Return the maps of some of the images; they too are computed when they are asked for."""
        return Maps(self.pixels, self.preprocessing, self.chosen[indices])

    def __getitem__(self, which: slice | IntArray) -> Tensor:
        """Return the maps [n, channels, height, width] of some of the images, which must come out in one size."""
        wanted, sizes = self.chosen[which], self._sizes[which]
        made: list[Tensor | None] = [None] * len(wanted)
        for height, width in np.unique(sizes, axis=0):
            # Images of one size are normalised together: a call for each would cost more than the arithmetic.
            (positions,) = np.nonzero((sizes == (height, width)).all(axis=1))
            for start in range(0, len(positions), CHUNK):
                here = positions[start : start + CHUNK]
                images = np.stack([self.pixels[int(index)] for index in wanted[here]])
                for position, image in zip(here, _normalise(images, self.preprocessing, wanted[here]), strict=True):
                    made[position] = image
        return torch.stack([image for image in made if image is not None])


class JoinedMaps:
    """The maps of several sources, one source after another; their sizes may differ."""

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
        """Return the maps of some of the images, of one size; `which` is in ascending order."""
        # Ascending positions fall into one run for each source, whose first position is found by bisection.
        bounds = np.searchsorted(which, self._starts)
        pieces = zip(self.parts, self._starts[:-1], bounds[:-1], bounds[1:], strict=True)
        return torch.cat([part[which[low:high] - start] for part, start, low, high in pieces if high > low])


def preprocess(pixels: Sequence[Pixels] | Pixels, preprocessing: Preprocessing) -> Tensor:
    """Return the maps [n, channels, height, width] of raw images.

    Raises a `DataError` that names the images that cannot be used, or if maps come out in several sizes.
    """
    maps = make_maps(pixels, preprocessing)
    maps.require_one_size()
    return maps[:]


def make_maps(pixels: Sequence[Pixels] | Pixels, preprocessing: Preprocessing) -> Maps:
    """Prepare raw images, and return their maps; a `DataError` names the images that cannot be used."""
    unlabelled = Images(pixels, np.zeros(len(pixels), dtype=np.int64), ("",))
    channels, least = preprocessing.channels, preprocessing.least
    prepared = prepare(unlabelled, preprocessing.size, channels=channels, least=least, skip_bad=None)
    return Maps(prepared.pixels, preprocessing)


def find_map_shape(maps: Maps | Tensor) -> Shape:
    """Return channels, height and width of what enters the first stage: the smallest where images differ in size."""
    if isinstance(maps, Maps):
        return maps.least
    _, channels, height, width = maps.shape
    return channels, height, width


def _normalise(images: NDArray[Any], preprocessing: Preprocessing, indices: IntArray) -> Tensor:
    """Return the maps of images [n, height, width] or [n, height, width, 3]; `indices` name them in errors."""
    values = torch.from_numpy(_read_values(images, preprocessing, indices))
    # Colours come last in an image and first in its maps; contiguous, since passes over rows and columns follow.
    maps = values.unsqueeze(1) if preprocessing.channels == 1 else values.permute(0, 3, 1, 2).contiguous()
    if preprocessing.standardise:
        maps = standardise(maps).float()
    if preprocessing.opponent:
        # After standardising, which takes the mean of all channels out: differences of colours have none in common.
        maps = to_opponent_colours(maps)
    if preprocessing.lcn is not None:
        maps = local_contrast_normalise(maps, preprocessing.lcn)
    return pad_to_square(maps) if preprocessing.pad else maps


def _read_values(images: NDArray[Any], preprocessing: Preprocessing, indices: IntArray) -> NDArray[np.floating[Any]]:
    """Return the values of images in the precision that the next step needs."""
    if images.dtype == np.uint8:
        return images.astype(np.float32)
    numbers = images.astype(np.float64)
    if preprocessing.standardise:
        return rescale(numbers)[0]
    if preprocessing.lcn is not None:
        # What LCN takes away in any case goes before rounding, which a large offset would leave no digits.
        numbers -= numbers.min(axis=tuple(range(1, numbers.ndim)), keepdims=True)
    return round_to_single(numbers, indices)


def standardise(maps: Tensor) -> Tensor:
    """Give each image zero mean and unit variance over all its values; a constant image becomes zeros.

    maps [n, channels, height, width]: the channels of an image share one mean and one deviation.
    """
    centred = maps - maps.mean(dim=(1, 2, 3), keepdim=True)
    # From the centred values rather than as E[x²] - E[x]², which cancels where the mean is large beside the deviation.
    deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    # Rounding leaves a constant image with a deviation of a few units in the last place of its mean: dividing by that
    # would blow rounding errors up to unit variance.
    floor = 1e-6 * maps.abs().amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(deviation > floor, centred / deviation.clamp_min(1e-30), torch.zeros_like(centred))


def to_opponent_colours(maps: Tensor) -> Tensor:
    """Turn red, green and blue [n, 3, height, width] into red against green, yellow against blue, and intensity.

    Van de Sande, Gevers, Snoek 2010, eq. 5: the axes are orthonormal, so that distances between images stay.
    """
    red, green, blue = maps.unbind(1)
    opponents = (red - green) / sqrt(2), (red + green - 2 * blue) / sqrt(6), (red + green + blue) / sqrt(3)
    return torch.stack(opponents, dim=1)


def pad_to_square(maps: Tensor) -> Tensor:
    """Zero-pad the shorter side of maps [n, channels, height, width], the image in the centre."""
    height, width = maps.shape[2:]
    # Zero is the mean of a standardised image: the padding is as grey as the image on average.
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return torch.nn.functional.pad(maps, (left, side - width - left, top, side - height - top))
