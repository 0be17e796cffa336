"""Archives: zip, tar and tar.gz, extracted into a folder that nothing in them can leave."""

from __future__ import annotations

import contextlib
import filecmp
import gzip
import re
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from featbench.errors import DataError

BLOCK = 2**20
"""Bytes read at once, and the longest header that is believed."""

RATIO, FLOOR, CEILING = 50, 2**24, 2**36
"""An archive may unpack to so many times its own bytes, with a floor and a ceiling; sets of images reach about ten."""

MEMBERS = 10**6

DEPTH = 32

NESTED = (".zip", ".tar", ".tar.gz", ".tgz")
"""Endings of files in an archive that are extracted in their turn, if they are archives."""

_Parts = tuple[str, ...]


def extract(
    archive: Path,
    folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    limit: int | None = None,
    members: int = MEMBERS,
) -> int:
    """Extract an archive and the archives right inside it, those into the folder they lie in; return the files made.

    All is extracted beside what `folder` holds, then moved into it: a refused or interrupted archive leaves nothing.
    Files that are there already stay if they are the same; otherwise nothing is moved. What macOS adds (__MACOSX, ._*)
    is left out, and so are the archives inside once they are extracted. At most `limit` bytes are unpacked, from at
    most so many members. Raises a `DataError` that names the archive and the member.
    """
    try:
        most = min(CEILING, max(FLOOR, RATIO * archive.stat().st_size)) if limit is None else limit
        with _workplace(folder) as place:
            extraction = _Extraction(place, most, members, progress or (lambda _done: None))
            extraction.unpack(archive, str(archive), ())
            extraction.unpack_nested(str(archive))
            _place(archive, place, folder)
            return len(extraction.files)
    except OSError as error:
        reason = f"{error.filename or ''} {error.strerror or error}".strip()
        raise DataError(f"{archive} cannot be extracted into {folder}: {reason}") from error


@dataclass(frozen=True)
class _Member:
    """A file or a folder in an archive; `read` opens its content, of `size` bytes. flaw: why it is refused."""

    name: str
    folder: bool
    size: int
    flaw: str
    read: Callable[[], _Guarded]


class _Extraction:
    """Extracts archives below one empty folder, on one budget of bytes and members."""

    def __init__(self, root: Path, limit: int, members: int, progress: Callable[[int], None]) -> None:
        self._root, self._progress = root, progress
        self._limit, self._members = limit, members
        self._bytes = self._count = 0
        self._known: dict[_Parts, tuple[_Parts, bool]] = {}
        self.files: list[_Parts] = []

    def unpack(self, archive: Path, label: str, into: _Parts) -> None:
        """Extract one archive into a folder below the root."""
        name = ""
        try:
            for member in _members(archive, self._spend):
                name = member.name
                self._take(member, into)
        except Exception as error:  # zipfile, tarfile and zlib raise a dozen kinds where an archive is damaged
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            where, what = f"at {name!r}: " if name else "", str(error) or type(error).__name__
            raise DataError(f"{label} cannot be extracted, {where}{what}; nothing was kept, fetch it again") from error

    def unpack_nested(self, label: str) -> None:
        """Extract the archives among the files, in place of them."""
        for parts in [file for file in self.files if file[-1].lower().endswith(NESTED)]:
            path = self._root.joinpath(*parts)
            if _kind(path):
                self.unpack(path, f"{label}/{'/'.join(parts)}", parts[:-1])
                path.unlink()
                self.files.remove(parts)

    def _take(self, member: _Member, into: _Parts) -> None:
        self._count += 1
        if self._count > self._members:
            raise DataError(f"there are more than {self._members} members")
        if member.flaw:
            raise DataError(member.flaw)
        inner = _safe_parts(member.name)
        if not inner or "__MACOSX" in inner or inner[-1].startswith("._"):
            return
        parts = into + inner
        if len(parts) > DEPTH:
            raise DataError(f"it lies more than {DEPTH} folders deep")
        self._claim(parts, member.folder)
        path = self._root.joinpath(*parts)
        if member.folder:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            _copy(member, file)
        self.files.append(parts)
        self._progress(len(self.files))

    def _claim(self, parts: _Parts, folder: bool) -> None:
        """Raise a `DataError` if a name is taken, as a machine sees it that does not tell a from A."""
        for depth in range(1, len(parts) + 1):
            path, is_folder = parts[:depth], folder or depth < len(parts)
            key = tuple(unicodedata.normalize("NFC", part).casefold() for part in path)
            if key not in self._known:
                self._known[key] = (path, is_folder)
            elif self._known[key] != (path, True) or not is_folder:
                raise DataError(f"its name is that of {'/'.join(self._known[key][0])} once more")

    def _spend(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._limit:
            raise DataError(f"more than {self._limit} bytes are unpacked by then")


class _Guarded:
    """A stream of unpacked bytes, read forward and in pieces that fit into the memory; each byte is counted."""

    def __init__(self, stream: IO[bytes], spend: Callable[[int], None]) -> None:
        self._stream, self._spend = stream, spend
        self.last = b""

    def read(self, size: int) -> bytes:
        """Read so many bytes, or what is left."""
        if not 0 <= size <= BLOCK:
            raise DataError(f"a header claims {size} bytes")
        self.last = self._stream.read(size)
        self._spend(len(self.last))
        return self.last

    def seek(self, offset: int) -> _Guarded:
        """Go forward, and return the stream."""
        if offset < self.tell():
            raise DataError("a header points backward")
        self._spend(offset - self.tell())
        self._stream.seek(offset)
        return self

    def tell(self) -> int:
        """Return where the stream is."""
        return self._stream.tell()


def _safe_parts(name: str) -> _Parts:
    """Return the folders and the file that a member's name is made of; a `DataError` if it is not plainly relative."""
    if not name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise DataError("its name is empty or holds control characters")
    if "\\" in name or name.startswith("/") or re.match("[A-Za-z]:", name):
        raise DataError("its name is not that of a file below a folder")
    parts = tuple(part for part in PurePosixPath(name).parts if part != ".")
    if ".." in parts:
        raise DataError("its name leads out of the folder")
    return parts


def _copy(member: _Member, file: IO[bytes]) -> None:
    stream, left = member.read(), member.size
    while left:
        block = stream.read(min(BLOCK, left))
        if not block:
            raise DataError(f"it ends {left} bytes before its {member.size}")
        file.write(block)
        left -= len(block)


def _kind(archive: Path) -> str:
    """Return "zip", "tar" or "tar.gz" by what a file begins with; empty if it is no archive."""
    with archive.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head.startswith(b"PK\3\4"):
        return "zip"
    packed = head.startswith(b"\x1f\x8b")
    try:
        if packed:
            with gzip.open(archive) as unpacked:
                head = unpacked.read(tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return ""
    except (gzip.BadGzipFile, EOFError, zlib.error):
        pass  # whoever extracts it will see what is wrong
    return "tar.gz" if packed else "tar"


def _members(archive: Path, spend: Callable[[int], None]) -> Iterator[_Member]:
    kind = _kind(archive)
    if not kind:
        raise DataError("it is neither zip nor tar nor tar.gz")
    return _zip_members(archive, spend) if kind == "zip" else _tar_members(archive, kind, spend)


def _zip_members(path: Path, spend: Callable[[int], None]) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # `filename` ends at a NUL, and is not what other programs see.
            name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
            flaw = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "it is a link or a device"
            read = partial(lambda info: _Guarded(archive.open(info), spend), info)
            yield _Member(name, info.is_dir(), info.file_size, flaw, read)


def _tar_members(path: Path, kind: str, spend: Callable[[int], None]) -> Iterator[_Member]:
    with cast(IO[bytes], gzip.open(path)) if kind == "tar.gz" else path.open("rb") as file:
        stream = _Guarded(file, spend)
        with tarfile.open(fileobj=cast(Any, stream), mode="r:") as archive:
            while (info := archive.next()) is not None:
                cast(Any, archive).members.clear()  # it would keep them all
                plain = (info.isreg() or info.isdir()) and not info.issparse()
                flaw = "" if plain else "it is a link, a device or a file with holes"
                yield _Member(info.name, info.isdir(), info.size, flaw, partial(stream.seek, info.offset_data))
        # `next` takes whatever is no header for the end; the true end is a block of zeros.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise DataError("it is cut off or damaged after this")
        while stream.read(BLOCK):  # to the end, where gzip has its checksum
            pass


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside another, which is made where it is missing; in the end nothing empty is left."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".extracting-", dir=folder) as place:
            yield Path(place)
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _place(archive: Path, source: Path, target: Path) -> None:
    """Move what is in one folder into another; a `DataError`, before anything is moved, if files there are others."""
    other = list(_conflicts(source, target))
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise DataError(
            f"{archive} was not extracted: {other[0]}{more} would be replaced, by other content: move it away first"
        )
    _move(source, target)


def _conflicts(source: Path, target: Path) -> Iterator[Path]:
    for entry in sorted(source.iterdir()):
        there = target / entry.name
        if entry.is_dir() and there.is_dir() and not there.is_symlink():
            yield from _conflicts(entry, there)
        elif there.is_symlink() or (there.exists() and not filecmp.cmp(entry, there, shallow=False)):
            yield there


def _move(source: Path, target: Path) -> None:
    for entry in list(source.iterdir()):
        there = target / entry.name
        if entry.is_dir() and there.is_dir():
            _move(entry, there)
        else:
            entry.replace(there)
