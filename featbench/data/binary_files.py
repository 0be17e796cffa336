"""What readers of binary data sets share: files unpacked or mapped, and checks that name the file at fault.

A file may be damaged or hostile: it may announce more than any memory holds, or unpack to it. No reader here takes more
memory than a file's own header accounts for, and no header may account for more than `LIMIT`.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from featbench.errors import DataError
from featbench.types import Images

LIMIT = 2**30
"""Bytes that a header may announce, and that a file of records may have which is read whole. The largest file of a
built-in data set, the images of small NORB's training part, has 448 MB."""

UNPACKED = 2**28
"""Bytes that a file may unpack to of which no header says how long it is."""

BLOCK = 2**20
"""Bytes read at once: what is announced but does not come takes no memory."""

Parse = Callable[[bytes], tuple[Sequence[int], str]]
"""Receives the header of a file, and returns the sides of the array after it and numpy's type of the values."""


def is_packed(path: Path) -> bool:
    """Whether a file is gzip; `OSError` if it cannot be read."""
    # By the magic number, not by the name: downloads are renamed, and some browsers decompress what ends in gz.
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def open_content(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, to be read from its start to its end, decompressed if it is gzip; `DataError` if it is damaged."""
    try:
        with path.open("rb") as file:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_packed(path) else file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged or truncated; fetch it again") from error


def read_at_most(stream: IO[bytes], most: int) -> bytearray:
    """Read a stream to its end, or `most` bytes of it."""
    found = bytearray()
    while block := stream.read(min(BLOCK, most - len(found))):
        found += block
    return found


def read_content(path: Path) -> memoryview:
    """Return the content of a file: mapped into memory, or unpacked if it is gzip.

    Raises `DataError` if the file is damaged or truncated, or unpacks to more than `UNPACKED` bytes.
    """
    with open_content(path) as stream:
        if not isinstance(stream, gzip.GzipFile):
            return memoryview(cast(Any, map_bytes(path))) if path.stat().st_size else memoryview(b"")
        content = read_at_most(stream, UNPACKED + 1)
    if len(content) > UNPACKED:
        raise DataError(f"{path} unpacks to more than {UNPACKED} bytes: it is not what its name says; fetch it again")
    return memoryview(content)


def read_array(path: Path, header: int, parse: Parse) -> NDArray[Any]:
    """Read a file of one array, whose header of `header` bytes says how large it is; compressed by gzip or not.

    Raises `DataError` if the file is damaged, ends within its header, announces more than `LIMIT` bytes, or holds more
    or fewer bytes than it announces.
    """
    with open_content(path) as stream:
        start = read_at_most(stream, header)
        if len(start) < header:
            raise DataError(f"{path} is truncated: {len(start)} bytes, its header alone has {header}; fetch it again")
        shape, kind = parse(bytes(start))
        expected = math.prod(shape) * np.dtype(kind).itemsize
        asks = f"its header {list(shape)} asks for {header + expected}"
        if expected > LIMIT:
            raise DataError(f"{path} is damaged: {asks} bytes, and no more than {LIMIT} are read; fetch it again")
        # One byte more than there should be: it tells what is too long, and at the end gzip compares its checksum.
        values = read_at_most(stream, expected + 1)
    if len(values) < expected:
        raise DataError(f"{path} is truncated: {header + len(values)} bytes, {asks}; fetch it again")
    if len(values) > expected:
        raise DataError(f"{path} is too long: {asks} bytes, and more follow; fetch it again")
    return np.frombuffer(values, dtype=kind).reshape(shape)


def map_bytes(path: Path) -> NDArray[np.uint8]:
    """Map a file that is not empty into memory, [bytes]: nothing is read but what is used."""
    # A plain array over the map: every operation on a `memmap` would pass through its Python methods.
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def map_records(path: Path, width: int, most: int | None = LIMIT) -> NDArray[np.uint8]:
    """Map a file of records of `width` bytes into memory, [records, width].

    Nothing is read but what is used, and the system may drop it again: with `most` None a file may be larger than the
    memory. Raises `DataError` if the file is empty, ends within a record, or has more than `most` bytes.
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
        if most is not None and size > most:
            raise DataError(f"{path} has {size} bytes, and no more than {most} are read: it is another file")
        return map_bytes(path).reshape(-1, width)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error


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
