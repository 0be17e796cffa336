"""Writing files completely or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that readers, and a crash at any moment, find the old content or the new one, never a part.

    write: receives the open file. Missing folders are made. What `write` raises is raised, and leaves no file behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, since a rename is atomic only within one file system; with the process in its name, since two processes
    # may compute the same result.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
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
