"""What a model is given to predict: files, folders and arrays become images with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featbench.data.arrays import read_pixels
from featbench.data.folder_listing import list_folder
from featbench.data.image_files import ImageFiles
from featbench.errors import DataError
from featbench.system.printable import make_printable
from featbench.system.user_files import expand_user
from featbench.types import Pixels


@dataclass(frozen=True)
class NewImages:
    """Images to predict, and what they are called: paths of files, or `image 0`, `image 1` … of arrays.

    ignored: what lies in the folders that were named and is no image.
    """

    pixels: Sequence[Pixels] | Pixels
    names: Sequence[str]
    ignored: int = 0

    def select(self, start: int, end: int) -> Sequence[Pixels] | Pixels:
        """Return some images; files are read when they are asked for."""
        if isinstance(self.pixels, ImageFiles):
            return ImageFiles(self.pixels.paths[start:end])
        return self.pixels[start:end]


def read_inputs(given: Any) -> NewImages:
    """Return the images that a path, an array, or a list of either stands for.

    A folder stands for all images below it. Raises `DataError` for anything that is neither, and for no images.
    """
    if isinstance(given, str | Path):
        return _read_paths([given])
    if isinstance(given, set | frozenset):
        given = sorted(given, key=str)
    if isinstance(given, list | tuple) and len(given) and all(isinstance(one, str | Path) for one in given):
        return _read_paths(given)
    if isinstance(given, list | tuple) and any(isinstance(one, str | Path) for one in given):
        raise DataError("paths and arrays together: give the one or the other")
    if isinstance(given, np.ndarray) and (given.ndim == 2 or (given.ndim == 3 and given.shape[2] == 3)):
        given = given[np.newaxis]
    pixels = read_pixels(given)
    if len(pixels) == 0:
        raise DataError("there are no images to predict")
    return NewImages(pixels, [f"image {index}" for index in range(len(pixels))])


def _read_paths(given: Sequence[str | Path]) -> NewImages:
    paths: list[Path] = []
    ignored = 0
    for one in given:
        path = expand_user(one)
        if path.is_dir():
            found, others = list_folder(path)
            if not found:
                raise DataError(f"the folder {make_printable(path)} holds no images")
            paths += found
            ignored += len(others)
        else:
            paths.append(path)
    return NewImages(ImageFiles(paths), [make_printable(path) for path in paths], ignored)
