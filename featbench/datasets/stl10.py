"""STL-10 from its binary version, with its unlabelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from featbench.data.binary_files import LIMIT, check_counts, check_labels, join_parts, map_records, read_names
from featbench.data.dataset import Dataset, Download, FileDataset
from featbench.data.folder import find_file
from featbench.hookspecs import hookimpl
from featbench.types import Images, Pixels

FOLDERS = ("stl10_binary", "stl10/stl10_binary", "stl10")
CLASSES = 10
PLANES = (3, 96, 96)
"""An image as its file has it: one colour after the other, each column by column."""


class Stl10(FileDataset):
    """Photographs, 5,000 training, 8,000 test and 100,000 unlabelled images of 96×96 in colour, ten classes."""

    name: ClassVar[str] = "stl10"
    source: ClassVar[str] = (
        "Coates, Lee, Ng 2011, An analysis of single-layer networks in unsupervised feature learning"
    )
    licence: ClassVar[str] = "not stated; research use"
    homepage: ClassVar[str] = "https://cs.stanford.edu/~acoates/stl10/"
    image_count: ClassVar[int | None] = 13_000
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            "stl10_binary.tar.gz",
            "sha256:f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
            unpack=".",
        ),
    )

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the paths of labelled images and their labels, training first, then that of the classes' names."""
        names = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
        return [find_file(data_dir, self.name, FOLDERS, name) for name in names]

    def load(self, data_dir: Path | None) -> Images:
        """Return the training images, then the test images, which `test` marks; pixels [n, 96, 96, 3]."""
        *paths, names = self.files(data_dir)
        planes = [map_planes(path) for path in paths[::2]]
        labels = [map_records(path, 1)[:, 0] for path in paths[1::2]]
        for image_path, images, label_path, own_labels in zip(paths[::2], planes, paths[1::2], labels, strict=True):
            check_counts(image_path, images, label_path, own_labels)
            check_labels(label_path, own_labels, 1, CLASSES)
        # A file has colours × columns × rows; its labels count from 1.
        pixels, indices = [part.transpose(0, 3, 2, 1) for part in planes], [part - 1 for part in labels]
        return join_parts(pixels, indices, read_names(names, CLASSES))

    def pool(self, data_dir: Path | None) -> Sequence[Pixels]:
        """Return the unlabelled images, which stay in their file of 2.7 GB until they are asked for."""
        return MappedImages(map_planes(find_file(data_dir, self.name, FOLDERS, "unlabeled_X.bin"), most=None))


class MappedImages(Sequence[Pixels]):
    """Images of a mapped file, each of which is read when it is asked for, [96, 96, 3].

    planes: [n, colours, columns, rows].
    """

    def __init__(self, planes: NDArray[np.uint8]) -> None:
        self.planes = planes

    def __len__(self) -> int:
        return len(self.planes)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> MappedImages: ...
    def __getitem__(self, index: int | slice) -> Pixels | MappedImages:
        if isinstance(index, slice):
            return MappedImages(self.planes[index])
        return np.ascontiguousarray(self.planes[index].transpose(2, 1, 0))


def map_planes(path: Path, most: int | None = LIMIT) -> NDArray[np.uint8]:
    """Map a file of images into memory, [n, colours, columns, rows]; `most` as in `map_records`."""
    return map_records(path, math.prod(PLANES), most).reshape(-1, *PLANES)


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register STL-10."""
    return [Stl10()]
