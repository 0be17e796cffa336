"""Image files opened by Pillow: one format at a time, whole, not too large, and without Pillow's own warnings."""

from __future__ import annotations

import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from featbench.errors import DataError

MOST_PIXELS = 110_000_000
"""Pixels that an image may have: cameras have up to 102 million. Pillow takes 4 bytes for each beside what is returned,
so that no image takes 500 MB more than its own bytes."""

BAND = 2**22
"""Pixels converted at once: no second copy is made of a large image."""

BLOCK = 2**20
"""Bytes read at once."""

TILE_SIDES = (322, 323)
"""TIFF's tags of the width and the height of tiles."""

PREVIEW, RAW_VERSION = 254, 50706
"""TIFF's tags that tell what an image is (1: a smaller version of another) and that the file is a camera's raw one."""

HARMLESS = "Metadata Warning"
"""How Pillow's warnings begin that say nothing of a TIFF file's pixels."""

# `Image.open` would choose the format by itself, and print a warning of its own for large images. The reader of JPEG
# files is not the one for several JPEG images in one file, which warns of what it cannot read.
_READERS: dict[str, Callable[[IO[bytes]], ImageFile]] = {
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "PPM": PpmImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}

_CATCHING = threading.Lock()
"""Held while warnings are caught, which Python does for all threads of a process at once."""


def open_image(file: IO[bytes], kind: str) -> ImageFile:
    """Return the first image of a file, decoded; `kind` is Pillow's name of its format.

    Raises `DataError` if it is too large or a preview, and anything else if it is damaged.
    """
    if kind == "TIFF":
        return _open_tiff(file)
    if kind == "PNG":
        _check_chunks(file)
        file.seek(0)
    image = _READERS[kind](file)
    _require_size(*image.size, _find_cost(image, kind))
    image.load()
    return image


def split_bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield an image some rows at a time: which they are, and an image of them."""
    width, height = image.size
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


def read_array(
    image: Image.Image, convert: Callable[[Image.Image], Image.Image] = lambda band: band
) -> NDArray[np.uint8]:
    """Return the bytes of an image, [height, width] or [height, width, 3], after `convert`, which makes them such."""
    width, height = image.size
    if width * height <= BAND:
        return np.asarray(convert(image))
    bands = ((rows, np.asarray(convert(band))) for rows, band in split_bands(image))
    rows, first = next(bands)
    pixels = np.empty((height, *first.shape[1:]), dtype=np.uint8)
    pixels[rows] = first
    for rows, band in bands:
        pixels[rows] = band
    return pixels


def _open_tiff(file: IO[bytes]) -> ImageFile:
    """Open a TIFF file, of which Pillow reads what it can, and says by a warning what it cannot."""
    with _CATCHING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = TiffImageFile(file)
        if RAW_VERSION in image.tag_v2 or image.tag_v2.get(PREVIEW, 0) & 1:
            raise DataError("its first image is a preview, as in a camera's raw file: convert it")
        _require_size(*image.size, _find_cost(image, "TIFF"))
        # A tile may be larger than the image that it is a part of, and is decoded whole.
        _require_size(*(int(image.tag_v2.get(side, 1)) for side in TILE_SIDES))
        image.load()
    for warning in caught:
        if not str(warning.message).startswith(HARMLESS):
            raise ValueError(str(warning.message))
    return image


def _find_cost(image: ImageFile, kind: str) -> int:
    """Return how many times as much memory as others an image takes beside its own bytes."""
    if kind == "WEBP":  # its decoder keeps several copies of the whole image
        return 4
    # Three bytes of colour come from one of a palette. All coefficients of a progressive JPEG image are kept.
    return 2 if image.mode == "P" or "progressive" in image.info else 1


def _require_size(width: int, height: int, cost: int = 1) -> None:
    most = MOST_PIXELS // cost
    if width * height > most:
        raise DataError(f"it has {width}×{height} pixels, and {most:,} at most are read of such files: make it smaller")
    if width < 1 or height < 1:
        raise ValueError(f"it has {width}×{height} pixels")


def _check_chunks(file: IO[bytes]) -> None:
    """Raise a `ValueError` unless the chunks of a PNG file are whole: Pillow compares no checksum of pixels."""
    file.seek(8)
    kind, animated = b"", False
    while kind != b"IEND":
        length, kind = int.from_bytes(file.read(4)), file.read(4)
        content = file.read(min(length, BLOCK))
        if kind == b"acTL":
            # Pillow would print a warning, and go on.
            if animated or not 0 < int.from_bytes(content[:4]) <= 2**31:
                raise ValueError("its chunk acTL is damaged")
            animated = True
        checksum, left = zlib.crc32(kind), length
        while content:
            checksum, left = zlib.crc32(content, checksum), left - len(content)
            content = file.read(min(left, BLOCK))
        expected = file.read(4)
        if left or len(expected) < 4:
            raise ValueError("image file is truncated")
        if int.from_bytes(expected) != checksum:
            raise ValueError(f"its chunk {kind.decode('latin-1')} is damaged")
