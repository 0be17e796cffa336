"""Images to normalised maps: grey, resize by the longest side, zero mean and unit variance, LCN, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from featbench.architecture import Shape
from featbench.errors import DataError
from featbench.normalization import local_contrast_normalise
from featbench.types import Pixels

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Red, green, blue: ITU-R 601, as Pillow's conversion to "L"; the paper does not say."""

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


def preprocess(pixels: Sequence[Pixels] | Pixels, preprocessing: Preprocessing) -> Tensor:
    """Return float32 maps [n, 1, height, width]; a `DataError` names the image that cannot take part."""
    if isinstance(pixels, np.ndarray) and preprocessing.size is None:
        chunks = range(0, len(pixels), CHUNK)
        maps = [_normalise(_grey_batch(pixels[i : i + CHUNK], i), preprocessing) for i in chunks]
    else:
        maps = [preprocess_one(image, preprocessing, index) for index, image in enumerate(pixels)]
        _require_one_size(maps)
    if not maps:
        raise DataError("there are no images to preprocess")
    return torch.cat(maps)


def map_shape(maps: Tensor) -> Shape:
    """Return maps, height and width of a [n, maps, height, width] tensor."""
    _, channels, height, width = maps.shape
    return channels, height, width


def preprocess_one(image: Pixels, preprocessing: Preprocessing, index: int = 0) -> Tensor:
    """Return the float32 maps [1, 1, height, width] of one image; `index` names it in errors."""
    grey = _grey_batch(image[None], index)[0]
    if preprocessing.size is not None:
        grey = resize(grey, preprocessing.size)
    return _normalise(grey[None], preprocessing, index)


def resize(grey: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
    """Resize [height, width] so that its longest side is `longest` pixels."""
    height, width = grey.shape
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return grey
    return np.array(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)


def _grey_batch(images: Pixels, first: int) -> NDArray[np.float32]:
    if images.ndim == 4 and images.shape[3] == 3:
        grey = (images.astype(np.float32) @ np.array(GREY_WEIGHTS, dtype=np.float32)).astype(np.float32)
    elif images.ndim == 3:
        grey = images.astype(np.float32)
    else:
        raise DataError(
            f"image {first} has shape {list(images.shape[1:])}; expected [height, width] grey or [height, width, 3] RGB"
        )
    finite = np.isfinite(grey).all(axis=(1, 2))
    if not finite.all():
        raise DataError(f"image {first + int(np.argmin(finite))} holds values that are not finite")
    return grey


def _normalise(grey: NDArray[np.float32], preprocessing: Preprocessing, index: int = 0) -> Tensor:
    maps = torch.from_numpy(np.ascontiguousarray(grey)).unsqueeze(1)
    if preprocessing.standardise:
        maps = standardise(maps)
    if preprocessing.lcn is not None:
        if min(maps.shape[2:]) < 9:
            raise DataError(f"image {index} is {maps.shape[2]}×{maps.shape[3]}; LCN needs at least 9×9")
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


def _require_one_size(maps: list[Tensor]) -> None:
    sizes = {tuple(image.shape[2:]) for image in maps}
    if len(sizes) > 1:
        shown = ", ".join(f"{h}×{w}" for h, w in sorted(sizes)[:4])
        raise DataError(f"the images have {len(sizes)} sizes ({shown}…): a protocol that resizes and pads is needed")
