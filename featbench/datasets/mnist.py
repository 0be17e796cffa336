"""MNIST and Fashion-MNIST from their four original idx files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.data.binary_files import check_counts, check_labels, join_parts, read_array
from featbench.data.checksums import has_checksum, has_content
from featbench.data.dataset import Dataset, Download, FileDataset
from featbench.data.folder import find_file
from featbench.errors import DataError
from featbench.hookspecs import hookimpl
from featbench.types import Images

IMAGES, LABELS = 3, 1
"""Number of sides of the idx arrays: n × height × width, and n."""

MAGIC = 0x0800
"""What an idx file of unsigned bytes begins with, plus the number of sides."""

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""Training first, images before labels."""


def _make_downloads(
    address: str, folder: str, sums: Sequence[str], contents: Sequence[str] = ()
) -> tuple[Download, ...]:
    """Return what is published: sums are of the gz files (MD5), contents of what is in them (SHA-256)."""
    return tuple(
        Download(f"{address}/{stem}.gz", f"{folder}/{stem}.gz", f"md5:{md5}", content=content and f"sha256:{content}")
        for stem, md5, content in zip_longest(STEMS, sums, contents)
    )


class Mnist(FileDataset):
    """Handwritten digits, 60,000 training and 10,000 test images of 28×28, ten classes; four idx files, gz or not."""

    name: ClassVar[str] = "mnist"
    source: ClassVar[str] = (
        "LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition"
    )
    licence: ClassVar[str] = "CC BY-SA 3.0"
    homepage: ClassVar[str] = "http://yann.lecun.com/exdb/mnist/"
    downloads: ClassVar[tuple[Download, ...]] = _make_downloads(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "mnist",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    )
    image_count: ClassVar[int | None] = 70_000
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    folders: ClassVar[tuple[str, ...]] = ("mnist", "MNIST", "MNIST/raw")
    """Where the files may lie below the data folder: the third is what torchvision makes."""

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the paths of images and labels, training first."""
        return [find_file(data_dir, self.name, self.folders, f"{stem}.gz", stem) for stem in STEMS]

    def load(self, data_dir: Path | None) -> Images:
        """Return the training images, then the test images, which `test` marks."""
        paths = self.files(data_dir)
        self._refuse_namesakes(paths[-1])
        pixels = [read_idx(path, IMAGES) for path in paths[::2]]
        labels = [read_idx(path, LABELS) for path in paths[1::2]]
        for image_path, images, label_path, own_labels in zip(paths[::2], pixels, paths[1::2], labels, strict=True):
            check_counts(image_path, images, label_path, own_labels)
            check_labels(label_path, own_labels, 0, len(self.classes) - 1)
        if pixels[0].shape[1:] != pixels[1].shape[1:]:
            raise DataError(f"images are {pixels[0].shape[1:]} in {paths[0]} but {pixels[1].shape[1:]} in {paths[2]}")
        return join_parts(pixels, labels, self.classes)

    def _refuse_namesakes(self, labels: Path) -> None:
        """Raise a `DataError` if these test labels, in the data folder itself, are those of the other data set.

        Their files have the same names, and nothing in them tells which they are.
        """
        for other in (Mnist, FashionMnist):
            item = other.downloads[-1]
            if other.name != self.name and (has_checksum(labels, item.checksum) or has_content(labels, item)):
                raise DataError(
                    f"data set {self.name}: {labels} is {other.name}'s: put the files of {self.name} into a folder of "
                    f"that name, or `featbench data fetch {self.name}`"
                )


class FashionMnist(Mnist):
    """Articles of clothing, 60,000 training and 10,000 test images of 28×28, ten classes; idx files as MNIST's."""

    name: ClassVar[str] = "fashion-mnist"
    source: ClassVar[str] = "Xiao, Rasul, Vollgraf 2017, Fashion-MNIST (arXiv 1708.07747)"
    licence: ClassVar[str] = "MIT"
    homepage: ClassVar[str] = "https://github.com/zalandoresearch/fashion-mnist"
    downloads: ClassVar[tuple[Download, ...]] = _make_downloads(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "fashion-mnist",
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    )
    folders: ClassVar[tuple[str, ...]] = ("fashion-mnist", "FashionMNIST", "FashionMNIST/raw")
    classes: ClassVar[tuple[str, ...]] = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


def read_idx(path: Path, sides: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes with this many sides (format: LeCun's MNIST page), compressed by gzip or not.

    Raises `DataError` naming the file if it is truncated, too long, damaged or of another kind.
    """

    def parse(header: bytes) -> tuple[list[int], str]:
        magic, *shape = struct.unpack(f">{1 + sides}I", header)
        if magic != MAGIC + sides:
            raise DataError(
                f"{path} is not an idx file of {sides}-sided byte arrays: "
                f"it starts with {magic:#010x}, not {MAGIC + sides:#010x}"
            )
        return shape, "u1"

    return read_array(path, 4 + 4 * sides, parse)


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register MNIST and Fashion-MNIST."""
    return [Mnist(), FashionMnist()]
