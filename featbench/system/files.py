"""Writing files completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from featbench.system.locks import lock_open_file

LEFTOVERS = ".*.tmp"
"""What temporary files are called, those of earlier versions too."""

OLD = 24 * 3600.0
"""Seconds after which a temporary file may be a leftover: hosts that share a disk need not agree on the time."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that readers, and a crash at any moment, find the old content or the new one, never a part.

    write: receives the open file. Missing folders are made. What `write` raises is raised, and leaves no file behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, since a rename is atomic only within one file system. A random name, since the numbers of processes
    # repeat: in threads, in containers and on other hosts. Short, whatever the length of the file's own name.
    temporary = path.with_name(f".featbench-{secrets.token_hex(16)}.tmp")
    try:
        with temporary.open("xb") as file:
            # Held until the file is closed: it tells a living writer from a dead one, wherever that runs.
            with contextlib.suppress(OSError):
                lock_open_file(file.fileno())
            write(file)
            file.flush()
            # The rename may reach the disk before the data: after a power cut the name would lead to an empty file.
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        # Of an interrupt too: a store would fill up with parts of files.
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed: those that nobody wrote to for a day and nobody holds."""
    for path in folder.glob(LEFTOVERS):
        # Another process may be removing the same file, and a store may be read-only.
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > OLD and not _is_held(path):
                path.unlink()


def _is_held(path: Path) -> bool:
    """Whether a living process writes a file; `OSError` where nobody can know, as there are no locks."""
    if sys.platform == "win32":
        # Windows removes no file that is open.
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return not lock_open_file(descriptor)
    finally:
        os.close(descriptor)
