"""Folders of image files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from featbench.errors import DataError
from featbench.types import Pixels

ENDINGS = (".jpg", ".jpeg", ".png", ".pgm", ".bmp")


def image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted; a `DataError` if there are none."""
    if not folder.is_dir():
        raise DataError(f"there is no folder of images {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise DataError(f"the folder {folder} holds no images ({', '.join(ENDINGS)})")
    return found


def folder_fingerprint(folder: Path) -> str:
    """Return a hash of the names and contents of a folder's images."""
    digest = hashlib.sha256()
    for path in image_files(folder):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_image(path: Path) -> Pixels:
    """Read one image as uint8, [height, width] grey or [height, width, 3] RGB; a `DataError` names a damaged file."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion cuts off what 8 bits cannot hold
                return (np.asarray(image) >> 8).astype(np.uint8)
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}): it is damaged, or not what its name says"
        ) from error
