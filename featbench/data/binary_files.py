"""What readers of binary data sets share: files gunzipped or mapped, and checks that name the file at fault."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.errors import DataError


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, gunzipped if it is compressed; a `DataError` if it is damaged or truncated."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged or truncated; fetch it again") from error


def map_records(path: Path, width: int) -> NDArray[np.uint8]:
    """Map a file of records of `width` bytes into memory, [records, width], so that only what is used is read.

    Raises `DataError` if the file is empty or ends within a record.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{path} is empty: it should hold records of {width} bytes; fetch it again")
        if size % width:
            raise DataError(
                f"{path} has {size} bytes, which is no multiple of {width}, the bytes of a record: it is truncated or "
                f"another file; fetch it again"
            )
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r")).reshape(-1, width)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error


def read_names(path: Path, count: int) -> tuple[str, ...]:
    """Read the names of so many classes, one a line, in the order of the labels."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of names ({error}); fetch it again") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) != count or len(set(names)) != count:
        raise DataError(
            f"{path} holds {len(names)} names, {len(set(names))} of them different, where {count} classes have one "
            f"line each; fetch it again"
        )
    return names


def check_labels(path: Path, labels: NDArray[np.integer[Any]], lowest: int, highest: int) -> None:
    """Raise a `DataError` if a label is out of range."""
    outside = labels[(labels < lowest) | (labels > highest)]
    if len(outside):
        raise DataError(f"{path} holds the label {outside[0]}; labels are {lowest} to {highest}; fetch it again")


def check_counts(image_path: Path, images: Sized, label_path: Path, labels: Sized, kind: str = "labels") -> None:
    """Raise a `DataError` that names both files if one does not hold as many labels as the other holds images."""
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} holds {len(images)} images, but {label_path} holds {len(labels)} {kind}: they do not "
            f"belong together, or one is damaged; fetch both again"
        )
