"""Files as users name them: `~` expanded, written through links, pipes and devices, with the permissions they have."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import IO

from featbench.system.files import write_atomically

UNREPLACEABLE = (errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV, errno.EROFS, errno.ENAMETOOLONG)
"""What the system answers where a file may be written but not replaced, as in a folder without write permission."""


def expand_user(path: str | Path) -> Path:
    """Return a path with `~` and `~name` expanded; names of nobody's home stay as they are."""
    # pathlib's own method raises a RuntimeError where there is no such user.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def follow_links(path: Path) -> Path:
    """Return the file that a path leads to through symbolic links, whether or not it exists.

    The name of an open descriptor, as `/dev/stdout` and `/dev/fd/63` lead to, is returned as it is: what stands behind
    it need not have a path. Raises `OSError` for links that lead in a circle.
    """
    for _ in range(40):  # as many links as Linux follows
        folder = Path(os.path.realpath(path.parent))
        path = folder / path.name
        if is_descriptor(path) or not path.is_symlink():
            return path
        path = folder / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def is_descriptor(path: Path) -> bool:
    """Whether a path, with its links followed, is the name of an open descriptor of this process."""
    return path.name.isdecimal() and str(path.parent) in map(os.path.realpath, ("/dev/fd", "/proc/self/fd"))


def is_standard_output(path: Path) -> bool:
    """Whether a path leads to standard output, as `/dev/stdout` does."""
    with contextlib.suppress(OSError):
        target = follow_links(path)
        return is_descriptor(target) and target.name == "1"
    return False


def find_obstacle(path: Path) -> str:
    """Return why a file cannot be written, as far as that can be told without opening it; "" if nothing stands against.

    The text follows the file's name in a message, as in ": there is no folder x".
    """
    try:
        target = follow_links(path)
        if target.is_dir():
            return " is a folder: name a file"
        if is_descriptor(target) and not target.exists():
            return " is not open"
        if target.is_socket():
            return " is a socket: name a file"
        if target.exists():
            return "" if os.access(target, os.W_OK) else " cannot be written: no permission"
        if not target.parent.is_dir():
            return f": there is no folder {target.parent if path.is_symlink() else path.parent}"
        may_make = os.access(target.parent, os.W_OK | os.X_OK)
    except OSError as error:
        return f" cannot be written: {error.strerror or error}"
    return "" if may_make else f" cannot be written: no permission to make files in {path.parent}"


def write_through(path: Path, content: bytes) -> None:
    """Write a file that the user named, in a way that keeps what else is known of it.

    A regular file is replaced as a whole, with its permissions and owner, so that no reader finds a part of it. A link
    stays, and the file that it leads to is written. Pipes, devices, descriptors and files of several names (hard links)
    are written in place, and so is a file that cannot be replaced. Raises `OSError`.
    """
    target = follow_links(path)
    if is_descriptor(target):
        with os.fdopen(os.dup(int(target.name)), "wb") as file:
            file.write(content)
        return
    try:
        status = target.stat()
    except FileNotFoundError:
        write_atomically(target, lambda file: file.write(content))
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        _write_in_place(target, content)
        return
    try:
        write_atomically(target, lambda file: _write_as(status, file, content))
    except OSError as error:
        if error.errno not in UNREPLACEABLE:
            raise
        _write_in_place(target, content)


def _write_as(status: os.stat_result, file: IO[bytes], content: bytes) -> None:
    """Write a file with the owner and the permissions of another."""
    own = os.fstat(file.fileno())
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
    file.write(content)


def _write_in_place(path: Path, content: bytes) -> None:
    # Not open(): it would make a regular file of a pipe that has gone meanwhile.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        file.write(content)
