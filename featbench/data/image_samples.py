"""Values of more than 8 bits become bytes: 16-bit grey, whole numbers of 32 bits, floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from featbench.data.image_formats import PNM
from featbench.data.image_opening import split_bands
from featbench.errors import DataError

LEAST_LIGHT = 17
"""The brightest byte of an image of 16 bits a colour, or of floats, is at least this: 12 of the 16 bits give 16."""

WHITE_IS_ZERO, BITS, LARGEST, KIND = 262, 258, 281, 339
"""TIFF's tags: what 0 means (0: white), bits of a value, the largest value, and its kind (2: signed, 3: float)."""


@dataclass(frozen=True)
class Samples:
    """What a file says of its values.

    bits: how many a value has. sure: whether that many are used, which a file of 16 bits may not say. inverted: whether
    0 is white in values that Pillow returns as they are. grey: whether it has no colours, whatever Pillow makes of it.
    """

    bits: int = 8
    sure: bool = True
    inverted: bool = False
    grey: bool = False


def describe_samples(image: ImageFile, kind: str, head: bytes) -> Samples:
    """Return what a file that was opened says of its values; `head` is its beginning.

    Raises `DataError` for signed bytes, which Pillow takes for bytes without a sign.
    """
    if kind == "PNG":
        return Samples(bits=head[24], sure=False, grey=head[25] in (0, 4))
    if kind == "PPM" and head[1:2] not in b"14":
        start = PNM.match(head)
        largest = int(head[start.end() :].split(maxsplit=1)[0]) if start else 255
        # Pillow scales grey of more than 8 bits to 16, and colours to bytes.
        deep = largest > 255 if head[1:2] in b"25" else largest == 65535
        return Samples(bits=16 if deep else 8, sure=largest < 65535)
    if isinstance(image, TiffImageFile):
        return _describe_tiff(image)
    return Samples()


def _describe_tiff(image: TiffImageFile) -> Samples:
    tags = image.tag_v2
    bits = int(max(np.atleast_1d(tags.get(BITS, 1))))
    if bits == 8 and 2 in np.atleast_1d(tags.get(KIND, 1)):
        raise DataError("it holds signed bytes, of which nobody says what is black and what is white: convert it")
    largest = int(max(np.atleast_1d(tags.get(LARGEST, 2**16 - 1))))
    told = bits == 16 and 0 < largest < 2**16 - 1
    # Pillow inverts what it returns as bytes, and nothing else.
    inverted = tags.get(WHITE_IS_ZERO) == 0 and (image.mode == "F" or image.mode.startswith("I"))
    return Samples(largest.bit_length() if told else bits, told or bits not in (16, 32), inverted)


def reduce_integers(image: ImageFile, samples: Samples) -> tuple[NDArray[np.uint8], str]:
    """Return the upper 8 bits of whole numbers, and a remark on how many bits they were taken to have, or "".

    Of 16 bits, cameras and microscopes often use 12, and do not say so: all would be black. So an image of which no
    value needs more than 12 (8) bits is taken for one of 12 (8). Raises `DataError` for numbers outside 16 bits.
    """
    lowest, highest = _find_extremes(image)
    if lowest < 0 or highest >= 2**16:
        raise DataError(f"it holds whole numbers from {lowest} to {highest}, and those from 0 to 65535 are read")
    bits, remark = max(8, min(samples.bits, 16)), ""
    if not samples.sure and 0 < highest < 2**12:
        bits = 12 if highest >= 2**8 else 8
        remark = f"{samples.bits} bits a pixel of which {bits} are used, so that {2**bits - 1} is white"
    key = image.info.get("transparency")
    pixels = np.empty(image.size[::-1], dtype=np.uint8)
    for rows, band in split_bands(image):
        values = np.asarray(band)
        used = 2**bits - 1 - values.astype(np.int32) if samples.inverted else values
        pixels[rows] = (used >> (bits - 8)).clip(0, 255)
        if key is not None:
            pixels[rows][values == key] = 255
    return pixels, remark


def reduce_floats(image: ImageFile, samples: Samples) -> NDArray[np.uint8]:
    """Return floats from 0 (black) to 1 (white) as bytes; raises `DataError` for other floats, or if all is dark."""
    for rows, band in split_bands(image):
        wrong = np.argwhere(~np.isfinite(np.asarray(band)))
        if len(wrong):
            row, column = map(int, wrong[0])
            value = np.asarray(band)[row, column]
            raise DataError(f"it holds {value} in row {rows.start + row}, column {column}, counted from 0")
    lowest, highest = _find_extremes(image)
    if lowest < 0 or highest > 1:
        raise DataError(f"it holds floats from {lowest:g} to {highest:g}, and those from 0 to 1 are read: scale them")
    pixels = np.empty(image.size[::-1], dtype=np.uint8)
    for rows, band in split_bands(image):
        values = np.asarray(band)
        pixels[rows] = np.rint(255 * (1 - values if samples.inverted else values))
    if highest > lowest and pixels.max() < LEAST_LIGHT:
        raise DataError(f"it holds floats of at most {highest:g}, which come out nearly black: scale them")
    return pixels


def _find_extremes(image: Image) -> tuple[Any, Any]:
    """Return the smallest and the largest value of an image, as Python's numbers."""
    arrays = (np.asarray(band) for _, band in split_bands(image))
    extremes = [(values.min().item(), values.max().item()) for values in arrays]
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def require_bright_colours(image: ImageFile, samples: Samples) -> None:
    """Raise a `DataError` if Pillow left nearly nothing of an image's values: few of their many bits are used."""
    clear = image.mode.endswith("A")
    bands = image.split()[: -1 if clear else None]
    highest = max(_find_extremes(band)[1] for band in bands)
    # Black on a clear ground is a picture; black without one may be anything.
    if highest < LEAST_LIGHT and not (clear and highest == 0):
        raise DataError(f"it holds colours of {samples.bits} bits, of which few are used: scale them")
