"""What has arrived of a file that is being downloaded."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from featbench.errors import DownloadError


class PartialFile:
    """What has arrived of a file: PATH.part, which one process writes at a time.

    PATH.part.version holds the server's name for the version of the file that it is part of. As a context it is closed
    in the end, and removed if it is empty.
    """

    def __init__(self, goal: Path) -> None:
        self._goal = goal
        self.path = goal.with_name(f"{goal.name}.part")
        self._version_file = goal.with_name(f"{goal.name}.part.version")
        goal.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer `size` is what is on disk, whenever the process is killed.
        self._file = self.path.open("ab", buffering=0)
        self._lock()
        self.size = os.fstat(self._file.fileno()).st_size
        self.version = self._version_file.read_text("latin-1") if self._version_file.is_file() else ""

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if not self.size:
                self.path.unlink(missing_ok=True)
                self._version_file.unlink(missing_ok=True)
        self._file.close()

    def keep_version(self, version: str) -> None:
        """Keep the server's name for the version of the file; empty if it gave none."""
        self._version_file.write_text(version, "latin-1")
        self.version = version

    def append(self, block: bytes) -> None:
        """Write more bytes."""
        # A file without a buffer may write less than it is given.
        rest = memoryview(block)
        while rest:
            written = self._file.write(rest)
            self.size += written
            rest = rest[written:]

    def restart(self) -> None:
        """Drop what has arrived."""
        self._file.truncate(0)
        self.size = 0

    def finish(self) -> None:
        """Give the file its own name."""
        # On disk before it is renamed: after a crash there is the file that was verified, or none.
        os.fsync(self._file.fileno())
        self.path.replace(self._goal)
        self._version_file.unlink(missing_ok=True)

    def _lock(self) -> None:
        """Raise a `DownloadError` if another process writes the file; the lock ends with the process or the file."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our opening of PATH.part and the lock another process may have finished and renamed it: what was
            # opened then is its verified file, which must not be written to.
            ours = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        except OSError:
            ours = True  # a file system without locks
        if not ours:
            self._file.close()
            raise DownloadError(f"{self.path} is being downloaded by another process: let it finish")
