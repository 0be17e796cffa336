"""Threads that compute results before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")
Item = TypeVar("Item")


def run_in_one_thread(make: Callable[[], T]) -> T:
    """Return make(), computed with one thread of torch's.

    Torch divides a sum among its threads, so that the last bits of a result depend on how many there are.
    """
    return next(Workers(1).map(lambda _: make(), [None]))


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Compute with so many of torch's threads inside the block, in the thread that enters it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Workers:
    """A pool of threads, each of which computes with one thread of torch's, and without gradients.

    They do not wait for one another, as the threads that share an operation do. They live as long as this object:
    oneDNN compiles its kernels again in every new thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count)
        threads, started = torch.get_num_threads(), Barrier(count)

        def start() -> None:
            # A thread takes over the process's number of threads when it first asks for it: that must not come after,
            # or it would undo the next line.
            torch.get_num_threads()
            torch.set_num_threads(1)
            torch.set_grad_enabled(False)
            # Each task waits until all have begun, so that no thread of the pool runs two of them, and another none.
            started.wait()

        for future in [self._pool.submit(start) for _ in range(count)]:
            future.result()
        # `set_num_threads` in a worker also sets the number for threads that are yet to come: restore it for those.
        torch.set_num_threads(threads)

    def map(self, make: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        """Yield make(item) of each item in order; the next results are computed while the last one is used.

        What `make` raises is raised when its result is due.
        """
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(make, item))
                # Two results a worker, and not all of them, which may be gigabytes of features: one that it computes,
                # and one that it goes on with at once while the caller is busy.
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # A caller that stops early, or an error, leaves results that nobody will take.
            for future in waiting:
                future.cancel()
