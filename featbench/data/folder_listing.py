"""What lies in a folder of images: the image files, and all else with the reason why it is not taken."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featbench.data.image_formats import ENDINGS, HEAD, RAW_ENDINGS, READ, find_format, name_other_format
from featbench.errors import DataError
from featbench.system.printable import make_printable

HIDDEN, NO_IMAGE = "hidden", "no image"

SPECIAL = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
"""What is neither file nor folder, and could be waited for, or read, for ever."""


@dataclass(frozen=True, order=True)
class Ignored:
    """Something in a folder of images that is not taken, and what it is."""

    path: Path
    what: str


def list_folder(folder: Path, *, by_name: bool = False) -> tuple[list[Path], list[Ignored]]:
    """Return the image files in a folder and in its subfolders, sorted, and all that is not taken.

    A file is taken if its name ends as that of an image does, or (unless `by_name`) its content begins as one does.
    Hidden files and folders are not, and links to folders are not followed. Raises `DataError` if the folder cannot be
    read, or if two images have one name but for the case.
    """
    images: list[Path] = []
    ignored: list[Ignored] = []
    waiting = [str(folder)]
    while waiting:
        place = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            if place == str(folder):
                raise DataError(f"folder {make_printable(folder)} cannot be read: {error.strerror or error}") from error
            ignored.append(Ignored(Path(place), "folder that cannot be read"))
            continue
        for entry in entries:
            why = _find_reason(entry, by_name)
            if why:
                ignored.append(Ignored(Path(entry.path), why))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                images.append(Path(entry.path))
    images.sort()
    require_distinct(images)
    return images, sorted(ignored)


def _find_reason(entry: os.DirEntry[str], by_name: bool) -> str:
    """Return why an entry of a folder is not taken; empty for folders and for image files."""
    if entry.name.startswith("."):
        return HIDDEN
    ending = Path(entry.name).suffix.lower()
    try:
        if entry.is_dir():
            return "link to a folder" if entry.is_symlink() else ""
        kind = stat.S_IFREG if entry.is_file() else stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        # A link that leads nowhere, or to itself. As an image it is missed, and named when it is read.
        return "" if ending in ENDINGS else "link that leads nowhere"
    if kind != stat.S_IFREG:
        return SPECIAL.get(kind, "special file")
    if ending in ENDINGS:
        return ""
    if ending in RAW_ENDINGS:
        return "camera's raw file"
    return NO_IMAGE if by_name else _look_into(entry.path)


def _look_into(path: str) -> str:
    """Return what a file is whose name promises no image; empty for an image."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return "file that cannot be read"
    return "" if find_format(head) else name_other_format(head) or NO_IMAGE


def require_distinct(paths: Iterable[Path]) -> None:
    """Raise a `DataError` if two paths differ in case alone.

    On a file system that ignores case, a copy of the folder would hold one file less, and have another fingerprint.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        twin = seen.setdefault(str(path).lower(), path)
        if twin is not path:
            names = f"{make_printable(twin)} and {make_printable(path)}"
            raise DataError(f"{names} have one name but for the case: rename one of them")


def describe_ignored(ignored: Sequence[Ignored]) -> list[str]:
    """Return a line that counts what is not taken by what it is, and names one of each; none where all is taken."""
    if not ignored:
        return []
    counts = Counter(one.what for one in ignored)
    first = {one.what: make_printable(one.path) for one in reversed(ignored)}
    parts = [f"{what}: {count}, {'as ' * (count > 1)}{first[what]}" for what, count in counts.most_common()]
    return [f"{len(ignored)} file{'s' * (len(ignored) > 1)} ignored: {'; '.join(parts)}"]


def explain_emptiness(folder: Path, ignored: Sequence[Ignored]) -> str:
    """Return that a folder holds no images, which formats would be read, and what is there instead."""
    empty = f"{make_printable(folder)} holds no images ({', '.join(READ.values())})"
    return "; ".join([empty, *describe_ignored(ignored)])
