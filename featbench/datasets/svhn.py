"""Street View House Numbers from the MATLAB files of cropped digits.

A MATLAB file of version 5 is a header of 128 bytes and then data elements. An element is a tag, which holds its kind
and its number of bytes, then its content, filled up to a multiple of 8 bytes. A variable is an element whose content
is elements again: flags, sides, name, values. MATLAB deflates each variable; the deflated bytes are an element too.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.data.binary_files import LIMIT, check_labels, join_parts, read_content
from featbench.data.dataset import Dataset, Download, FileDataset, prefix_errors
from featbench.data.folder import find_file
from featbench.errors import DataError
from featbench.hookspecs import hookimpl
from featbench.types import Images

FILES = ("train_32x32.mat", "test_32x32.mat")
IMAGE = (32, 32, 3)
"""Sides of an image: rows, columns, colours."""

CLASSES = 10

VARIABLES: Mapping[str, tuple[int | None, ...]] = {"X": (*IMAGE, None), "y": (None, 1)}
"""The variables of a file by name, with their sides; None stands for the number of images. All are unsigned bytes."""

HEADER = 128
"""Bytes before the first data element of a MATLAB file."""

BYTES, MATRIX, COMPRESSED = 2, 14, 15
"""Kinds of data elements: unsigned bytes, a variable, a variable that is deflated."""

TAG = 8
"""Bytes of an element's tag."""

HEAD = [6, 5, 1]
"""Kinds of the elements that a variable starts with: its flags (uint32), its sides (int32), its name (int8)."""

HEAD_BYTES, SLICE = 2**16, 2**16
"""Bytes that a variable's head may have, and deflated bytes inflated at once: a byte may stand for a thousand, so that
a slice of them adds 64 MB at most before it is counted."""

UINT8, CLASS_FLAGS = 9, 0x0AFF
"""The class of arrays of unsigned bytes, and the bits of the flags that must equal it: the class in the lower byte, and
the bits for complex (0x0800) and logical (0x0200) values."""


@dataclass(frozen=True)
class Variable:
    """A variable of a MATLAB file.

    plain: whether it is an array of unsigned bytes, real and not logical. values: its bytes, the first side changing
    fastest; none unless it is plain.
    """

    name: str
    shape: tuple[int, ...]
    plain: bool
    values: memoryview


def _make_download(file: str, checksum: str) -> Download:
    return Download(f"http://ufldl.stanford.edu/housenumbers/{file}", f"svhn/{file}", f"sha256:{checksum}")


class Svhn(FileDataset):
    """House numbers, 73,257 training and 26,032 test digits cropped to 32×32 in colour, ten classes; MATLAB files."""

    name: ClassVar[str] = "svhn"
    source: ClassVar[str] = (
        "Netzer, Wang, Coates, Bissacco, Wu, Ng 2011, Reading digits in natural images with unsupervised feature "
        "learning"
    )
    licence: ClassVar[str] = "for non-commercial use only"
    homepage: ClassVar[str] = "http://ufldl.stanford.edu/housenumbers/"
    image_count: ClassVar[int | None] = 99_289
    downloads: ClassVar[tuple[Download, ...]] = (
        _make_download(FILES[0], "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
        _make_download(FILES[1], "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
    )

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the paths of the training and the test digits."""
        return [find_file(data_dir, self.name, [self.name], file, f"{file}.gz") for file in FILES]

    def load(self, data_dir: Path | None) -> Images:
        """Return the training images, then the test images, which `test` marks; pixels [n, 32, 32, 3]."""
        pixels, labels = zip(*(read_digits(path) for path in self.files(data_dir)), strict=True)
        # The digit 0 has the label 10, as MATLAB counts from 1.
        return join_parts(pixels, [part % CLASSES for part in labels], tuple("0123456789"))


def read_digits(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images [n, 32, 32, 3] and the labels [n], 1 to 10, of a MATLAB file of version 5.

    Raises `DataError` naming the file if it is damaged or holds anything else.
    """
    with prefix_errors(str(path)):
        variables = read_variables(read_content(path))
        for name, sides in VARIABLES.items():
            _check_variable(name, sides, variables)
    images, labels = (np.frombuffer(variables[name].values, dtype=np.uint8) for name in VARIABLES)
    count = variables["X"].shape[-1]
    if count != len(labels):
        raise DataError(f"{path} holds {count} images, but {len(labels)} labels: it is damaged; fetch it again")
    check_labels(path, labels, 1, CLASSES)
    # In MATLAB the first side changes fastest, in numpy the last: read backward the sides are n × 3 × columns × rows.
    return np.ascontiguousarray(images.reshape(count, *IMAGE[::-1]).transpose(0, 3, 2, 1)), labels


def read_variables(data: memoryview) -> dict[str, Variable]:
    """Read a MATLAB file of version 5 (format: MathWorks, MAT-File Format).

    Not with scipy: one wrong byte in a variable's flags or types can crash its reader (1.17), and Python with it.
    Raises `DataError` if the file is of another kind or damaged.
    """
    # The header ends with the letters MI as one number of 16 bits: in which order they stand tells that of all numbers.
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:HEADER]))
    version = struct.unpack_from(f"{order}H", data, 124)[0] if order else None
    if version == 0x0200:
        raise DataError("a MATLAB file of version 7.3 (HDF5), where SVHN's are of version 5; fetch it again")
    if order is None or version != 0x0100:
        raise DataError("not a MATLAB file of version 5: truncated, damaged or something else; fetch it again")
    variables = {}
    # Memory views: the images of a file are 200 MB, which slices of bytes would copy at every level.
    for kind, content in read_elements(data[HEADER:], order):
        variable = _read_deflated(content, order) if kind == COMPRESSED else _read_only([(kind, content)], order)
        if variable.name in variables:
            raise DataError(f"holds two variables {variable.name}: damaged; fetch it again")
        variables[variable.name] = variable
    return variables


def _read_only(elements: Iterable[tuple[int, memoryview]], order: str) -> Variable:
    """Return the variable that is the only one of these elements."""
    found = list(elements)
    if [kind for kind, _ in found] != [MATRIX]:
        raise DataError("holds something that is not a variable: damaged; fetch it again")
    return read_variable(found[0][1], order)


def _read_deflated(data: memoryview, order: str) -> Variable:
    """Return the variable that deflated bytes hold; no more is inflated than its own sides account for."""
    inflater, found, most = zlib.decompressobj(), bytearray(), HEAD_BYTES
    try:
        for start in range(0, len(data), SLICE):
            found += inflater.decompress(data[start : start + SLICE])
            if most == HEAD_BYTES < len(found):
                head = _read_head(memoryview(found)[TAG:HEAD_BYTES], order)
                if not head.plain:
                    return head
                most += math.prod(head.shape)
            if len(found) > min(most, LIMIT):
                raise DataError("inflates to more bytes than its sides ask for, or than are read; fetch it again")
        found += inflater.flush()
    except zlib.error as error:
        raise DataError(f"damaged ({error}); fetch it again") from error
    if not inflater.eof or inflater.unused_data:
        raise DataError("damaged (what is deflated is cut off, or more follows it); fetch it again")
    return _read_only(read_elements(memoryview(found), order), order)


def read_variable(data: memoryview, order: str) -> Variable:
    """Read the content of an element of kind `MATRIX`: flags, sides, name and, for an array, its values."""
    head = _read_head(data, order)
    values = list(read_elements(data, order))[len(HEAD) :]
    plain = head.plain and [kind for kind, _ in values] == [BYTES]
    return replace(head, plain=plain, values=values[0][1] if plain else head.values)


def _read_head(data: memoryview, order: str) -> Variable:
    """Read what a variable starts with: flags, sides and name; it has no values yet."""
    parts = list(islice(read_elements(data, order), len(HEAD)))
    if [kind for kind, _ in parts] != HEAD or len(parts[0][1]) != 8:
        raise DataError("holds a variable without flags, sides or name: damaged; fetch it again")
    (_, flags), (_, sides), (_, name) = parts
    (bits,) = struct.unpack_from(f"{order}I", flags)
    shape = tuple(side for (side,) in struct.iter_unpack(f"{order}I", sides[: len(sides) // 4 * 4]))
    return Variable(bytes(name).decode("latin-1"), shape, bits & CLASS_FLAGS == UINT8, memoryview(b""))


def read_elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield kind and content of data elements that follow each other; `order` is struct's, "<" or ">".

    Raises `DataError` if one is cut off.
    """
    position = 0
    while position < len(data):
        if position + TAG > len(data):
            raise DataError(f"truncated, or {len(data) - position} bytes too long; fetch it again")
        kind, size = struct.unpack_from(f"{order}2I", data, position)
        start = position + TAG
        # A content of up to four bytes stands within the tag. Kind and size then are 16 bits each, and the size, which
        # is not 0, is where an ordinary tag has the upper half of its kind, which is 0.
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
        end = start + size
        if end > len(data) or (start == position + 4 and size > 4):
            raise DataError(f"truncated: {size} bytes should follow, but {len(data) - start} do; fetch it again")
        yield kind, data[start:end]
        # What is deflated is the only content that is not filled up to a multiple of 8 bytes.
        position = end if kind == COMPRESSED else end + -end % 8


def _check_variable(name: str, sides: tuple[int | None, ...], variables: Mapping[str, Variable]) -> None:
    """Raise a `DataError` unless a variable is there and holds unsigned bytes, as many as fit its sides."""
    if name not in variables:
        held = ", ".join(sorted(variables)) or "nothing"
        raise DataError(f"holds {held}, but no variable {name}: not SVHN's cropped digits")
    shape, plain, size = variables[name].shape, variables[name].plain, len(variables[name].values)
    fits = len(shape) == len(sides) and all(want in (None, side) for want, side in zip(sides, shape, strict=True))
    if not plain or not fits or 0 in shape:
        kind = "unsigned bytes" if plain else "other than unsigned bytes"
        expected = ", ".join("n" if side is None else str(side) for side in sides)
        raise DataError(
            f"variable {name} holds {kind}, {list(shape)}, not unsigned bytes, [{expected}]: not SVHN's cropped digits"
        )
    if math.prod(shape) != size:
        raise DataError(
            f"variable {name} has {size} bytes, its sides {list(shape)} ask for {math.prod(shape)}: damaged; "
            f"fetch it again"
        )


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register SVHN."""
    return [Svhn()]
