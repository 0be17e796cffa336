"""MNIST from its four original idx files."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.dataset import Dataset
from featbench.errors import DataError
from featbench.hookspecs import hookimpl
from featbench.types import Images

IMAGES, LABELS = 3, 1
"""Number of sides of the idx arrays."""

PARTS = ("train", "t10k")


class Mnist(Dataset):
    """Handwritten digits, 60,000 training and 10,000 test images of 28×28, ten classes; four idx files, gz or not."""

    name: ClassVar[str] = "mnist"
    source: ClassVar[str] = "LeCun, Bottou, Bengio, Haffner 1998"

    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the four files, whole."""
        digest = hashlib.sha256()
        for path in _files(data_dir):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def load(self, data_dir: Path | None) -> Images:
        """Return training images first, then the test images."""
        paths = _files(data_dir)
        pixels, labels = [], []
        for image_path, label_path in (paths[:2], paths[2:]):
            images, names = read_idx(image_path, IMAGES), read_idx(label_path, LABELS)
            if len(images) != len(names):
                raise DataError(f"{image_path} holds {len(images)} images, but {label_path} holds {len(names)} labels")
            if len(names) and names.max() > 9:
                raise DataError(f"{label_path} holds the label {names.max()}; digits are 0 to 9")
            pixels.append(images)
            labels.append(names)
        if pixels[0].shape[1:] != pixels[1].shape[1:]:
            raise DataError(f"images are {pixels[0].shape[1:]} in {paths[0]} but {pixels[1].shape[1:]} in {paths[2]}")
        test = np.repeat([False, True], [len(labels[0]), len(labels[1])])
        classes = tuple(str(digit) for digit in range(10))
        return Images(np.concatenate(pixels), np.concatenate(labels).astype(np.int64), classes, test)


def read_idx(path: Path, sides: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes with so many sides (format: LeCun's MNIST page), gz or not.

    Raises `DataError` naming the file if it is truncated, too long, damaged or of another kind.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged or truncated; fetch it again") from error
    header = 4 + 4 * sides
    if len(data) < header:
        raise DataError(f"{path} is truncated: {len(data)} bytes, its header alone has {header}; fetch it again")
    magic, *shape = struct.unpack(f">{1 + sides}I", data[:header])
    if magic != 0x0800 + sides:
        raise DataError(
            f"{path} is no idx file of {sides}-sided byte arrays: "
            f"it starts with {magic:#010x}, not {0x0800 + sides:#010x}"
        )
    expected = header + math.prod(shape)
    if len(data) != expected:
        state = "truncated" if len(data) < expected else "too long"
        raise DataError(f"{path} is {state}: {len(data)} bytes, its header {shape} asks for {expected}; fetch it again")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _files(data_dir: Path | None) -> list[Path]:
    """Return the paths of images and labels, training first; a `DataError` says where they were looked for."""
    if data_dir is None:
        raise DataError(
            "MNIST needs its four idx files: set FEATBENCH_DATA or --data-dir to a folder that holds them, or mnist/"
        )
    return [_find(data_dir, f"{part}-{kind}") for part in PARTS for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def _find(data_dir: Path, stem: str) -> Path:
    folders = [data_dir / "mnist", data_dir]
    for folder in folders:
        for name in (f"{stem}.gz", stem):
            if (folder / name).is_file():
                return folder / name
    raise DataError(
        f"MNIST's file {stem}.gz is neither in {folders[0]} nor in {folders[1]}: put it there, or set --data-dir"
    )


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register MNIST."""
    return [Mnist()]
