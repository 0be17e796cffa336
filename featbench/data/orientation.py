"""How an image was held when it was taken: the orientation that cameras write beside the pixels."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TAG, SHORT = 0x0112, 3
"""EXIF's tag of the orientation, and the type of its value: a whole number of two bytes."""

XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")
"""The orientation where there is XMP but no EXIF."""


def read_orientation(image: Image.Image) -> int:
    """Return the orientation of an image that Pillow has decoded, 1 to 8 as EXIF counts; 1 where it has none.

    TIFF images have none: Pillow turns them by itself.
    """
    # Not Pillow's own reader of EXIF: of a damaged block, which says nothing of the pixels, it prints warnings.
    found = _find_in_exif(_find_exif(image.info)) or _find_in_xmp(image.info)
    return found if found in range(1, 9) else 1


def _find_exif(info: dict[Any, Any]) -> bytes:
    """Return the block of EXIF in what Pillow found beside the pixels."""
    if "exif" in info:
        return bytes(info["exif"])
    # Some programs write it into PNG files as text: three lines, then hexadecimal digits.
    text = "".join(str(info.get("Raw profile type exif", "")).split("\n")[3:])
    return bytes.fromhex(text) if re.fullmatch(r"([0-9a-fA-F]{2})*", text) else b""


def _find_in_exif(block: bytes) -> int:
    """Return the orientation in a block of EXIF, which is laid out as a TIFF file; 0 if there is none."""
    data = re.sub(rb"\A(Exif\0\0){1,2}", b"", block)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return 0
    (start,) = struct.unpack_from(f"{order}L", data, 4)
    if start + 2 > len(data):
        return 0
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHLH", data, place)
        if (tag, kind) == (TAG, SHORT):
            return int(value)
    return 0


def _find_in_xmp(info: dict[Any, Any]) -> int:
    text = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    found = XMP.search(text.encode() if isinstance(text, str) else text)
    return int(found[1]) if found else 0


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return pixels [height, width(, 3)] as they were seen through the camera."""
    # 5 to 8 are 1 to 4 with rows and columns exchanged.
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
