"""Archives: zip, tar and tar.gz, extracted into a folder that nothing in them can leave.

An archive comes from elsewhere and may be damaged or hostile: names that lead out of the folder, links, headers that
claim more than there is, a few bytes that unpack to more than the disk holds, two members of one name. What is not
plainly a file or a folder below the target is refused, and a refused archive leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import filecmp
import gzip
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from featbench.data.archive_members import BLOCK, Member, detect_kind, open_members
from featbench.errors import DataError

RATIO, FLOOR, CEILING = 50, 2**24, 2**36
"""An archive may unpack to this many times its own bytes, with a floor and a ceiling; data sets of images reach about
ten times. Deflate alone can reach a thousand, and archives inside archives any number."""

MEMBERS = 10**6
"""Files and folders that an archive may hold: more of them, all empty, would fill a file system as well."""

DEPTH = 32
"""Folders in which a file may lie, one within the other."""

NESTED = (".zip", ".tar", ".tar.gz", ".tgz")
"""Endings of files in an archive that are extracted in their turn, if they are archives."""

_Parts = tuple[str, ...]
"""The names of the folders on the way to a file below the target, and its own."""


def extract(
    archive: Path,
    folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    limit: int | None = None,
    members: int = MEMBERS,
) -> int:
    """Extract an archive, and the archives among its files into the folder they lie in; return the number of files.

    All is extracted into a temporary folder within `folder`, then moved into place: a refused or interrupted archive
    leaves nothing behind. Files that are there already stay if they are the same; otherwise nothing is moved. What
    macOS adds (__MACOSX, ._*) is left out, and so are the archives inside once they are extracted. At most `limit`
    bytes are unpacked, from at most `members` members. `progress` receives the number of files so far. Raises a
    `DataError` that names the archive and the member.
    """
    try:
        most = min(CEILING, max(FLOOR, RATIO * archive.stat().st_size)) if limit is None else limit
        with _make_workspace(folder) as workspace:
            extraction = _Extraction(workspace, most, members, progress or (lambda _done: None))
            extraction.unpack(archive, str(archive), ())
            extraction.unpack_nested(str(archive))
            _move_into_place(archive, workspace, folder)
            return len(extraction.files)
    except OSError as error:
        reason = f"{error.filename or ''} {error.strerror or error}".strip()
        raise DataError(f"{archive} cannot be extracted into {folder}: {reason}") from error


class _Extraction:
    """Extracts archives into one empty folder; all of them share one budget of bytes and members."""

    def __init__(self, root: Path, limit: int, members: int, progress: Callable[[int], None]) -> None:
        self._root, self._progress = root, progress
        self._limit, self._members = limit, members
        self._bytes = self._count = 0
        # Every path that is taken, by its name in lower case: the path itself, and whether it is a folder.
        self._taken: dict[_Parts, tuple[_Parts, bool]] = {}
        self.files: list[_Parts] = []

    def unpack(self, archive: Path, label: str, into: _Parts) -> None:
        """Extract one archive into a folder below the root; `label` is what errors call it."""
        name = ""
        try:
            for member in open_members(archive, self._count_bytes):
                name = member.name
                self._extract_member(member, into)
        except Exception as error:  # zipfile, tarfile and zlib raise a dozen kinds where an archive is damaged
            # An error of the file system, as a full disk, is not the archive's fault; the caller describes it.
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            where, what = f"at {name!r}: " if name else "", str(error) or type(error).__name__
            raise DataError(f"{label} cannot be extracted, {where}{what}; nothing was kept, fetch it again") from error

    def unpack_nested(self, label: str) -> None:
        """Replace the archives among the files by what is in them; those inside these stay as they are."""
        for parts in [file for file in self.files if file[-1].lower().endswith(NESTED)]:
            path = self._root.joinpath(*parts)
            if detect_kind(path):
                self.unpack(path, f"{label}/{'/'.join(parts)}", parts[:-1])
                path.unlink()
                self.files.remove(parts)

    def _extract_member(self, member: Member, into: _Parts) -> None:
        self._count += 1
        if self._count > self._members:
            raise DataError(f"there are more than {self._members} members")
        if member.flaw:
            raise DataError(member.flaw)
        inner = _split_name(member.name)
        if not inner or "__MACOSX" in inner or inner[-1].startswith("._"):
            return
        parts = into + inner
        if len(parts) > DEPTH:
            raise DataError(f"it lies more than {DEPTH} folders deep")
        self._claim_name(parts, member.folder)
        path = self._root.joinpath(*parts)
        if member.folder:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" refuses a file that exists: on a file system that takes other names for one than `_claim_name` does,
        # too, nothing is written twice.
        with path.open("xb") as file:
            _copy_content(member, file)
        self.files.append(parts)
        self._progress(len(self.files))

    def _claim_name(self, parts: _Parts, folder: bool) -> None:
        """Take a name, and those of the folders above it; a `DataError` if another member has it.

        Names that differ in case or in the encoding of an accent alone count as one, as file systems of macOS and
        Windows treat them: there the second file would replace the first.
        """
        for depth in range(1, len(parts) + 1):
            path, is_folder = parts[:depth], folder or depth < len(parts)
            key = tuple(unicodedata.normalize("NFC", part).casefold() for part in path)
            if key not in self._taken:
                self._taken[key] = (path, is_folder)
            # A folder may come again, spelled alike: every file in it names it.
            elif self._taken[key] != (path, True) or not is_folder:
                raise DataError(f"its name is that of {'/'.join(self._taken[key][0])} again")

    def _count_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._limit:
            raise DataError(f"more than {self._limit} bytes are unpacked by then")


def _split_name(name: str) -> _Parts:
    """Return the folders and the file that a member's name is made of; a `DataError` if it is not plainly relative.

    Refused are names that some system reads otherwise: a backslash or a drive letter on Windows, control characters.
    """
    if not name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise DataError("its name is empty or holds control characters")
    if "\\" in name or name.startswith("/") or re.match("[A-Za-z]:", name):
        raise DataError("its name is not that of a file below a folder")
    parts = tuple(part for part in PurePosixPath(name).parts if part != ".")
    if ".." in parts:
        raise DataError("its name leads out of the folder")
    return parts


def _copy_content(member: Member, file: IO[bytes]) -> None:
    """Write the content of a member to a file; a `DataError` if it has fewer bytes than its header says."""
    stream, left = member.open(), member.size
    while left:
        block = stream.read(min(BLOCK, left))
        if not block:
            raise DataError(f"it ends {left} bytes before its {member.size}")
        file.write(block)
        left -= len(block)


@contextlib.contextmanager
def _make_workspace(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder inside another, which is made where it is missing; in the end nothing empty is left."""
    # Inside the target, and so on its file system: moving from there renames, and copies nothing.
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".extracting-", dir=folder) as workspace:
            yield Path(workspace)
    finally:
        # Folders made here are removed again, the innermost first, if nothing was moved into them.
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _move_into_place(archive: Path, source: Path, target: Path) -> None:
    """Move the content of one folder into another; a `DataError`, before anything is moved, if files there differ."""
    other = list(_find_conflicts(source, target))
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise DataError(
            f"{archive} was not extracted: {other[0]}{more} would be replaced, by other content: move it away first"
        )
    _move(source, target)


def _find_conflicts(source: Path, target: Path) -> Iterator[Path]:
    """Yield what is in the target under the name of something in the source, and differs from it.

    A link in the target always does: what is moved there would end up wherever it leads.
    """
    for entry in sorted(source.iterdir()):
        there = target / entry.name
        if entry.is_dir() and there.is_dir() and not there.is_symlink():
            yield from _find_conflicts(entry, there)
        elif there.is_symlink() or (there.exists() and not filecmp.cmp(entry, there, shallow=False)):
            yield there


def _move(source: Path, target: Path) -> None:
    for entry in list(source.iterdir()):
        there = target / entry.name
        if entry.is_dir() and there.is_dir():
            _move(entry, there)
        else:
            entry.replace(there)
