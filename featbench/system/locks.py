"""Locks between threads, processes and, where the file system passes them on, hosts."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STEP = 0.02
"""Seconds between two attempts to take a lock."""


def lock_open_file(descriptor: int) -> bool:
    """Lock an open file until it is closed or its process ends; False if somebody else holds it.

    Raises `OSError` where there are no locks, as on some network file systems.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def hold_lock(path: Path, patience: float) -> Iterator[bool]:
    """Hold a lock while the context lasts; gives False where it cannot be had.

    path: an empty file that stands for the lock; it is made, and stays. patience: seconds to wait for whoever holds it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        # A folder that cannot be written: nobody else writes there either.
        yield False
        return
    try:
        yield _wait_for(descriptor, patience)
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, patience: float) -> bool:
    end = time.monotonic() + patience
    with contextlib.suppress(OSError):
        while not lock_open_file(descriptor):
            if time.monotonic() > end:
                return False
            time.sleep(STEP)
        return True
    return False
