"""Image files: read one, list those below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from featbench.data.dataset import hash_files
from featbench.errors import DataError
from featbench.types import Pixels

ENDINGS = (".jpg", ".jpeg", ".png", ".pgm", ".bmp")
"""Endings of the names of image files, in any case; files of other names are ignored."""


class ImageFiles(Sequence[Pixels]):
    """Images that are read from their files when they are asked for, each [height, width] or [height, width, 3]."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:  # type: ignore[override]
        return read_image(self.paths[index])


def find_image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted; a `DataError` if there are none, or no such folder."""
    if not folder.is_dir():
        raise DataError(f"there is no folder of images {folder}")
    found, _ = list_files(folder)
    if not found:
        raise DataError(f"the folder {folder} holds no images ({', '.join(ENDINGS)})")
    return found


def hash_image_folder(folder: Path) -> str:
    """Return a hash of the names and contents of the images below a folder; raises as `find_image_files` does."""
    return hash_files(find_image_files(folder), folder)


def read_image(path: Path) -> Pixels:
    """Read one image file.

    Palettes become RGB, transparency is dropped, and of 16 bits a pixel the upper 8 are kept.

    Parameters
    ----------
    path : Path
        An image in any format that Pillow reads.

    Returns
    -------
    ndarray of uint8
        [height, width] of a grey image, [height, width, 3] RGB of any other.

    Raises
    ------
    DataError
        If the file is damaged or not an image; the message names it.
    """
    try:
        with Image.open(path) as image:
            # "I" and "I;16" hold 16 bits a pixel. Pillow's own conversion to "L" does not scale them: whatever is above
            # 255 becomes 255, so that most of such an image would be white.
            if image.mode.startswith("I"):
                return (np.asarray(image) >> 8).astype(np.uint8)
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    # What Pillow raises for a damaged file depends on the format; a bomb is an image of more pixels than it allows.
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}): it is damaged, or not what its name says"
        ) from error


def list_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files below a folder, sorted, and all other files; hidden images count among the others."""
    files = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    images = sorted(path for path in files if path.suffix.lower() in ENDINGS and not _is_hidden(path, folder))
    require_distinct(images)
    return images, sorted(set(files) - set(images))


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether a name below the folder begins with a dot, as the files `._x.jpg` that macOS puts beside images."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def require_distinct(paths: Iterable[Path]) -> None:
    """Raise a `DataError` if two paths differ in case alone.

    On a file system that ignores case, a copy of the folder would hold one file less, and have another fingerprint.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        twin = seen.setdefault(str(path).lower(), path)
        if twin is not path:
            raise DataError(f"{twin} and {path} have one name but for the case: rename one of them")
