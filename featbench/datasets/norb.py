"""Small NORB from its six files of binary matrices: toys with category, instance and pose."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.data.binary_files import check_counts, check_labels, join_parts, read_array
from featbench.data.dataset import Dataset, Download, FileDataset
from featbench.data.folder import find_file
from featbench.errors import DataError
from featbench.hookspecs import hookimpl
from featbench.types import Images

BYTES, INTEGERS = 0x1E3D4C55, 0x1E3D4C54
"""Magic numbers of matrices of unsigned bytes and of integers of four bytes."""

KINDS: Mapping[int, tuple[str, str]] = {BYTES: ("bytes", "u1"), INTEGERS: ("integers", "<i4")}
"""What the magic numbers stand for: in words, and as numpy's type."""

PAIR = (2, 96, 96)
"""Sides of a stereo pair, the left camera first."""

POSE: Mapping[str, range] = {
    "instance": range(10),
    "elevation": range(9),
    "azimuth": range(0, 36, 2),
    "lighting": range(6),
}
"""Columns of the info matrices and the values they take."""

CHECKSUMS: Mapping[str, str] = {
    "5x46789x9x18x6x2x96x96-training-dat": "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
    "5x46789x9x18x6x2x96x96-training-cat": "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa",
    "5x46789x9x18x6x2x96x96-training-info": "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
    "5x01235x9x18x6x2x96x96-testing-dat": "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
    "5x01235x9x18x6x2x96x96-testing-cat": "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff",
    "5x01235x9x18x6x2x96x96-testing-info": "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
}
"""SHA-256 of the published files, in the order in which they are read: images, categories, poses."""


@dataclass(frozen=True)
class Poses:
    """What each image shows beside its category, [n] each, as the files count it.

    instance: 0 to 9, the toy of its category. elevation: 0 to 8, the camera at 30° + 5° times this. azimuth: 0 to 34,
    even, in tens of degrees. lighting: 0 to 5.
    """

    instance: NDArray[np.int32]
    elevation: NDArray[np.int32]
    azimuth: NDArray[np.int32]
    lighting: NDArray[np.int32]


class SmallNorb(FileDataset):
    """Photographs of 50 toys in many poses, 24,300 training and as many test images, five classes, gz or not.

    Of each stereo pair it gives the left camera's image, grey and 96×96. No toy is in both parts.
    """

    name: ClassVar[str] = "small-norb"
    source: ClassVar[str] = (
        "LeCun, Huang, Bottou 2004, Learning methods for generic object recognition with invariance to pose and "
        "lighting"
    )
    licence: ClassVar[str] = "for research purposes; cannot be sold"
    homepage: ClassVar[str] = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
    downloads: ClassVar[tuple[Download, ...]] = tuple(
        Download(
            f"https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-{stem}.mat.gz",
            f"small-norb/smallnorb-{stem}.mat.gz",
            f"sha256:{checksum}",
        )
        for stem, checksum in CHECKSUMS.items()
    )
    image_count: ClassVar[int | None] = 48_600
    classes: ClassVar[tuple[str, ...]] = ("animal", "human", "plane", "truck", "car")

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the paths of images, categories and poses, training first."""
        files = [f"smallnorb-{stem}.mat" for stem in CHECKSUMS]
        return [find_file(data_dir, self.name, [self.name, "smallnorb"], f"{file}.gz", file) for file in files]

    def load(self, data_dir: Path | None) -> Images:
        """Return the left images of the training part, then of the testing part, which `test` marks."""
        paths = self.files(data_dir)
        pixels, labels = [], []
        for image_path, label_path, pose_path in (paths[:3], paths[3:]):
            own_labels = read_matrix(label_path, INTEGERS, 1)
            check_labels(label_path, own_labels, 0, len(self.classes) - 1)
            images = read_left(image_path)
            check_counts(image_path, images, label_path, own_labels)
            check_counts(image_path, images, pose_path, read_poses(pose_path), "poses")
            pixels.append(images)
            labels.append(own_labels)
        return join_parts(pixels, labels, self.classes)

    def poses(self, data_dir: Path | None) -> Poses:
        """Return the poses of all images, in the order in which `load` gives them."""
        paths = self.files(data_dir)
        return Poses(*np.concatenate([read_poses(path) for path in paths[2::3]]).T)


def read_left(path: Path) -> NDArray[np.uint8]:
    """Read a file of stereo pairs and return the left images, [n, 96, 96]."""
    pairs = read_matrix(path, BYTES, 1 + len(PAIR))
    if pairs.shape[1:] != PAIR:
        raise DataError(f"{path} holds images of {list(pairs.shape[1:])}, not stereo pairs of {list(PAIR)}")
    # A copy: a view would keep the right images in memory as well.
    return pairs[:, 0].astype(np.uint8)


def read_poses(path: Path) -> NDArray[np.int32]:
    """Read an info file, [n, 4]: instance, elevation, azimuth and lighting, in the ranges of `Poses`."""
    poses = read_matrix(path, INTEGERS, 2)
    if poses.shape[1] != len(POSE):
        raise DataError(f"{path} holds {poses.shape[1]} numbers an image, not {len(POSE)}: {', '.join(POSE)}")
    for column, (name, values) in zip(poses.T, POSE.items(), strict=True):
        outside = column[~np.isin(column, list(values))]
        if len(outside):
            steps = f" in steps of {values.step}" if values.step > 1 else ""
            raise DataError(f"{path} holds the {name} {outside[0]}; it is {values[0]} to {values[-1]}{steps}")
    return poses.astype(np.int32)


def read_matrix(path: Path, magic: int, sides: int) -> NDArray[np.integer[Any]]:
    """Read a binary matrix of this many sides (format: small NORB's page), compressed by gzip or not.

    magic: the number of its kind, `BYTES` or `INTEGERS`.

    Raises `DataError` naming the file if it is empty, truncated, too long, damaged or of another kind.
    """
    words, kind = KINDS[magic]

    def parse(header: bytes) -> tuple[list[int], str]:
        found, count, *shape = struct.unpack_from(f"<{2 + sides}I", header)
        if (found, count) != (magic, sides):
            raise DataError(
                f"{path} is not a binary matrix of {words} with {sides} sides: "
                f"it starts with {found:#010x} and {count}, not {magic:#010x} and {sides}"
            )
        return shape, kind

    # The header always has room for three sides; those that a matrix does not have are filled with anything.
    matrix = read_array(path, 8 + 4 * max(sides, 3), parse)
    if matrix.size == 0:
        raise DataError(f"{path} is empty: its header {list(matrix.shape)} asks for nothing; fetch it again")
    return matrix


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register small NORB."""
    return [SmallNorb()]
