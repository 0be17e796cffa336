"""The members of zip and tar archives, read one after another, each byte of their content counted."""

from __future__ import annotations

import gzip
import io
import math
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from featbench.errors import DataError

BLOCK = 2**20
"""Bytes read at once, and those that the headers of a tar's member may have: Python keeps all of them until the member
is known, in many times the memory."""

DIRECTORY = 2**26
"""Bytes that a zip's directory may have: Python makes of it eight times as much. A million names of 20 letters fit."""


@dataclass(frozen=True)
class Member:
    """A file or a folder in an archive.

    open: opens its content, of `size` bytes. flaw: why the member is refused; empty if its kind is admitted.
    """

    name: str
    folder: bool
    size: int
    flaw: str
    open: Callable[[], CountedStream]


class CountedStream:
    """A stream of unpacked bytes, read forward and in pieces that fit into the memory; each byte is counted.

    What is counted is what comes out, not what a header announces: that is how a decompression bomb is noticed. `last`
    is what the last `read` gave. `header_left`: bytes that may be read before it is set again.
    """

    def __init__(self, stream: IO[bytes], count_bytes: Callable[[int], None]) -> None:
        self._stream, self._count_bytes = stream, count_bytes
        self.last = b""
        self.header_left: float = math.inf

    def read(self, size: int) -> bytes:
        """Read `size` bytes, or what is left."""
        self.header_left -= size
        # tarfile reads a long name with a single call, of the size that a header gives.
        if not 0 <= size <= BLOCK or self.header_left < 0:
            raise DataError(f"a header claims {size} bytes, or there are too many headers")
        self.last = self._stream.read(size)
        self._count_bytes(len(self.last))
        return self.last

    def seek(self, offset: int) -> CountedStream:
        """Go forward, and return the stream."""
        # Backward, gzip would decompress everything before again: headers that point there could do so without end.
        if offset < self.tell():
            raise DataError("a header points backward")
        # What is skipped is decompressed all the same.
        self._count_bytes(offset - self.tell())
        self._stream.seek(offset)
        return self

    def tell(self) -> int:
        """Return where the stream is."""
        return self._stream.tell()


def detect_kind(archive: Path) -> str:
    """Return "zip", "tar" or "tar.gz" by what a file begins with; empty if it is not an archive."""
    with archive.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head.startswith(b"PK\3\4"):
        return "zip"
    packed = head.startswith(b"\x1f\x8b")
    try:
        if packed:
            with gzip.open(archive) as unpacked:
                head = unpacked.read(tarfile.BLOCKSIZE)
        # A tar file has no magic number in its first bytes; its first header has a checksum.
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return ""
    except (gzip.BadGzipFile, EOFError, zlib.error):
        pass  # a damaged archive is one, too: extracting it says what is wrong
    return "tar.gz" if packed else "tar"


def open_members(archive: Path, count_bytes: Callable[[int], None]) -> Iterator[Member]:
    """Yield the members of an archive, each of which must be read before the next is asked for."""
    kind = detect_kind(archive)
    if not kind:
        raise DataError("it is neither zip nor tar nor tar.gz")
    return _open_zip(archive, count_bytes) if kind == "zip" else _open_tar(archive, kind, count_bytes)


def _open_zip(path: Path, count_bytes: Callable[[int], None]) -> Iterator[Member]:
    with _BoundedReader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            # `filename` is cut off at a NUL: other programs may see another name. The upper half of the attributes
            # holds the mode of the file, where the archive was made on Unix; a link is told by that alone.
            name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
            flaw = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "it is a link or a device"
            # zipfile unpacks what is compressed otherwise as a whole: of bzip2, a megabyte may stand for a terabyte.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                flaw = "it is compressed by another method than deflate"
            # `partial` binds this `info`; a lambda alone would see the last one of the loop.
            open_content = partial(lambda info: CountedStream(archive.open(info), count_bytes), info)
            yield Member(name, info.is_dir(), info.file_size, flaw, open_content)


class _BoundedReader(io.BufferedReader):
    """A file of which zipfile cannot read a directory that is too large, which it does with a single call."""

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, or what is left."""
        if size is not None and size > DIRECTORY:
            raise DataError(f"its directory claims {size} bytes, and no more than {DIRECTORY} are read")
        return super().read(size)


def _open_tar(path: Path, kind: str, count_bytes: Callable[[int], None]) -> Iterator[Member]:
    with cast(IO[bytes], gzip.open(path)) if kind == "tar.gz" else path.open("rb") as file:
        # Decompressed here and not by tarfile, so that the stream counts what comes out.
        stream = CountedStream(file, count_bytes)
        stream.header_left = BLOCK
        with tarfile.open(fileobj=cast(Any, stream), mode="r:") as archive:
            while (info := archive.next()) is not None:
                stream.header_left = math.inf
                cast(Any, archive).members.clear()  # tarfile would keep every header in memory
                plain = (info.isreg() or info.isdir()) and not info.issparse()
                flaw = "" if plain else "it is a link, a device or a file with holes"
                yield Member(info.name, info.isdir(), info.size, flaw, partial(stream.seek, info.offset_data))
                stream.header_left = BLOCK
        # `next` takes whatever is not a header for the end; the true end is a block of zeros.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise DataError("it is cut off or damaged after this")
        stream.header_left = math.inf
        # To the end of the file, where gzip has its checksum and compares it.
        while stream.read(BLOCK):
            pass
