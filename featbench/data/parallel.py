"""Images gone through by several threads, in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

BLOCK = 64
"""Images in one task of the thread pool: enough to hide the cost of a task, few enough for progress to move."""


def map_images(make: Callable[[int], T], count: int, progress: Callable[[int, int], None] | None = None) -> list[T]:
    """Return make(0), make(1), …, make(count - 1), each made by one of several threads.

    The result does not depend on how many threads there are. `progress` receives how many are made, and out of how
    many. What `make` or `progress` raises ends the work and is raised.
    """

    def make_block(start: int) -> list[T]:
        return [make(index) for index in range(start, min(start + BLOCK, count))]

    made: list[T] = []
    # Threads, not processes, although Python runs one thread at a time: files are read, and Pillow decodes and resizes,
    # with the interpreter lock released, and pixels need not be copied from one process to another.
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        # `map` yields the blocks in their order, whichever is finished first.
        for block in pool.map(make_block, range(0, count, BLOCK)):
            made += block
            if progress is not None:
                progress(len(made), count)
    finally:
        # After an error or an interrupt, blocks that have not begun are dropped: nobody waits for the whole data set.
        pool.shutdown(cancel_futures=True)
    return made
