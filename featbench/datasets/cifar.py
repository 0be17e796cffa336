"""CIFAR-10 and CIFAR-100 from their binary versions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np

from featbench.data.binary_files import check_labels, map_records, read_names
from featbench.data.dataset import Dataset, Download, FileDataset
from featbench.data.folder import find_file, find_folder
from featbench.errors import DataError
from featbench.hookspecs import hookimpl
from featbench.types import Images

SIDE = 32

PLANES = (3, SIDE, SIDE)
"""An image as its file has it: all red values row by row, then all green, then all blue."""


class Cifar10(FileDataset):
    """Tiny photographs, 50,000 training and 10,000 test images of 32×32 in colour, ten classes; binary version."""

    name: ClassVar[str] = "cifar10"
    source: ClassVar[str] = "Krizhevsky 2009, Learning multiple layers of features from tiny images"
    licence: ClassVar[str] = "not stated; the makers ask to cite the report"
    homepage: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar.html"
    image_count: ClassVar[int | None] = 60_000
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "cifar-10-binary.tar.gz",
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            unpack=".",
        ),
    )
    folder: ClassVar[str] = "cifar-10-batches-bin"
    parts: ClassVar[tuple[str, ...]] = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
    """Files of images, the test part last."""
    names: ClassVar[str] = "batches.meta.txt"
    others: ClassVar[tuple[str, ...]] = ("cifar-10-batches-py", "cifar-10-batches-mat")
    """Folders of the versions that are not read: pickles, which may run code, and MATLAB files."""
    ranges: ClassVar[tuple[int, ...]] = (10,)
    """How many values each byte before an image can take; the last byte is its class. CIFAR-100 has two: the coarse
    class and the fine one."""

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the paths of the images, training first, then that of the names of the classes."""
        folders = (self.folder, f"{self.name}/{self.folder}", self.name)
        try:
            return [find_file(data_dir, self.name, folders, name) for name in (*self.parts, self.names)]
        except DataError as error:
            other = data_dir and find_folder(
                data_dir, [Path(parent, name) for parent in ("", self.name) for name in self.others]
            )
            if other is None:
                raise
            raise DataError(
                f"{error}; {other} is another version: featbench reads the binary one, and never unpickles"
            ) from error

    def load(self, data_dir: Path | None) -> Images:
        """Return the training images, then the test images, which `test` marks; pixels [n, 32, 32, 3]."""
        *paths, names = self.files(data_dir)
        classes = read_names(names, self.ranges[-1])
        label_bytes = len(self.ranges)
        parts = [map_records(path, label_bytes + math.prod(PLANES)) for path in paths]
        for path, part in zip(paths, parts, strict=True):
            for column, count in enumerate(self.ranges):
                check_labels(path, part[:, column], 0, count - 1)
        records = np.concatenate(parts)
        planes = records[:, label_bytes:].reshape(-1, *PLANES)
        tested = len(parts[-1])
        return Images(
            # Colours last, in memory too: an image then is one run of it.
            pixels=np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
            labels=records[:, label_bytes - 1].astype(np.int64),
            classes=classes,
            test=np.repeat([False, True], [len(records) - tested, tested]),
        )


class Cifar100(Cifar10):
    """Tiny photographs, 50,000 training and 10,000 test images of 32×32 in colour, 100 fine classes; binary version."""

    name: ClassVar[str] = "cifar100"
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "cifar-100-binary.tar.gz",
            "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            unpack=".",
        ),
    )
    folder: ClassVar[str] = "cifar-100-binary"
    parts: ClassVar[tuple[str, ...]] = ("train.bin", "test.bin")
    names: ClassVar[str] = "fine_label_names.txt"
    others: ClassVar[tuple[str, ...]] = ("cifar-100-python", "cifar-100-matlab")
    ranges: ClassVar[tuple[int, ...]] = (20, 100)


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register CIFAR-10 and CIFAR-100."""
    return [Cifar10(), Cifar100()]
