"""A look at a folder of class folders: how many images, how large, in colour or not; a sample of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from featbench.data.class_folders import find_class_folders
from featbench.data.image_reader import read_with_remarks
from featbench.errors import DataError
from featbench.types import Pixels

SAMPLE = 32
"""Images that are read, spread evenly over the folder: enough for a median, and a second of reading photographs."""


@dataclass(frozen=True)
class Look:
    """What a folder with one folder a class looks like.

    images: the number of image files. smallest, largest: how many of them the smallest and the largest class has.
    width, height: medians of the sample, in pixels. colour: whether any image of the sample is not grey.
    """

    images: int
    classes: int
    smallest: int
    largest: int
    width: int
    height: int
    colour: bool

    @property
    def longest(self) -> int:
        """The longest side of a typical image, in pixels."""
        return max(self.width, self.height)

    def __str__(self) -> str:
        spread = f"{self.smallest}" if self.smallest == self.largest else f"{self.smallest} to {self.largest}"
        kind = "in colour" if self.colour else "grey"
        return (
            f"{self.images} images in {self.classes} classes of {spread}, {kind}, "
            f"about {self.width}×{self.height} pixels"
        )


def look_at_folder(root: Path, without: tuple[str, ...] = ()) -> Look:
    """Look at a folder with one folder a class, except the classes named in `without`.

    Images of the sample that cannot be read are passed over: reading the data set will name them. Raises `DataError` if
    there is no such folder, or if no image of the sample can be read.
    """
    found = find_class_folders(root, without)
    counts = np.bincount(found.labels, minlength=len(found.classes))
    sample = [image for path in _spread(found.files, SAMPLE) if (image := _try_to_read(path)) is not None]
    if not sample:
        raise DataError(f"no image of {root} can be read: `featbench data verify folder:{root}` says why")
    return Look(
        images=len(found.files),
        classes=len(found.classes),
        smallest=int(counts.min()),
        largest=int(counts.max()),
        width=round(median(image.shape[1] for image in sample)),
        height=round(median(image.shape[0] for image in sample)),
        colour=any(_has_colour(image) for image in sample),
    )


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return at most `count` of the paths, evenly spread, the first and the last among them."""
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[index] for index in chosen]


def _try_to_read(path: Path) -> Pixels | None:
    try:
        return read_with_remarks(path).pixels
    except DataError:
        return None


def _has_colour(image: Pixels) -> bool:
    """Whether any pixel is not grey; JPEG and rounding move the channels of a grey pixel apart by a few levels."""
    return image.ndim == 3 and bool((np.ptp(image.astype(np.int64), axis=2) > TINT).any())


TINT = 16
"""Levels, of 256, by which the channels of a grey pixel differ at most."""
