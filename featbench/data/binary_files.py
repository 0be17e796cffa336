"""What readers of binary data sets share: files decompressed or mapped, and checks that name the file at fault."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.errors import DataError
from featbench.types import Images


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, decompressed if it is gzip; a `DataError` if it is damaged or truncated."""
    try:
        raw = path.read_bytes()
        # By the magic number, not by the name: downloads are renamed, and some browsers decompress what ends in gz.
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged or truncated; fetch it again") from error


def map_records(path: Path, width: int) -> NDArray[np.uint8]:
    """Map a file of records of `width` bytes into memory, [records, width].

    Nothing is read but what is used, and the system may drop it again: a file may be larger than the memory. Raises
    `DataError` if the file is empty or ends within a record.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{path} is empty: it should hold records of {width} bytes; fetch it again")
        if size % width:
            raise DataError(
                f"{path} has {size} bytes, which is not a multiple of {width}, the bytes of a record: it is truncated "
                f"or another file; fetch it again"
            )
        # A plain array over the map: every operation on a `memmap` would pass through its Python methods.
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r")).reshape(-1, width)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error


def unpack_header(path: Path, data: bytes, form: str, length: int) -> tuple[int, ...]:
    """Return the numbers that a file's content begins with, in `struct`'s notation.

    length: bytes of the whole header, which may hold more than is unpacked. Raises `DataError` if there are fewer.
    """
    if len(data) < length:
        raise DataError(f"{path} is truncated: {len(data)} bytes, its header alone has {length}; fetch it again")
    return struct.unpack_from(form, data)


def view_array(path: Path, data: bytes, header: int, shape: Sequence[int], kind: str) -> NDArray[Any]:
    """Return the array that follows the header of a file's content, without a copy; `kind` is numpy's type.

    Raises `DataError` if there are more or fewer bytes than the shape asks for.
    """
    expected = header + math.prod(shape) * np.dtype(kind).itemsize
    if len(data) != expected:
        state = "truncated" if len(data) < expected else "too long"
        raise DataError(
            f"{path} is {state}: {len(data)} bytes, its header {list(shape)} asks for {expected}; fetch it again"
        )
    return np.frombuffer(data, dtype=kind, offset=header).reshape(shape)


def read_names(path: Path, count: int) -> tuple[str, ...]:
    """Read the names of `count` classes, one a line, in the order of the labels.

    Raises `DataError` if there are more or fewer names, or two that are equal.
    """
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
    """Raise a `DataError` if a label is below `lowest` or above `highest`."""
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


def join_parts(
    pixels: Sequence[NDArray[np.uint8]], labels: Sequence[NDArray[np.integer[Any]]], classes: tuple[str, ...]
) -> Images:
    """Return the images of a training part and a test part, in this order; `test` marks those of the second.

    pixels: two arrays [n, height, width(, 3)]. labels: two arrays [n], indices into `classes`.
    """
    training, test = labels
    return Images(
        # Contiguous, where a part is the transposed view of a file: reading an image then reads one run of memory.
        pixels=np.ascontiguousarray(np.concatenate(pixels)),
        labels=np.concatenate(labels).astype(np.int64),
        classes=classes,
        test=np.repeat([False, True], [len(training), len(test)]),
    )
