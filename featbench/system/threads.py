"""Threads that do work before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")
Item = TypeVar("Item")


def run_in_one_thread(make: Callable[[], T]) -> T:
    """Return make(), computed with one thread of torch's."""
    return next(Workers(1).map(lambda _: make(), [None]))


class Workers:
    """So many threads, each of which computes with one thread of torch's.

    They do not wait for one another, as the threads of one operation do. They stay as long as this object: torch's
    libraries compile their kernels anew for each thread. No gradients are followed in them.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count)
        threads, started = torch.get_num_threads(), Barrier(count)

        def start() -> None:
            torch.get_num_threads()  # a thread takes the number of all when it first asks, and would do so later
            torch.set_num_threads(1)
            torch.set_grad_enabled(False)
            started.wait()

        for future in [self._pool.submit(start) for _ in range(count)]:
            future.result()
        # What a worker sets holds for itself and for threads that are not yet there: give those theirs again.
        torch.set_num_threads(threads)

    def map(self, make: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        """Yield make(item) of each item in order; two for each worker are made while the last one is used.

        What `make` raises is raised when its result is due.
        """
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(make, item))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # whoever stops early does not wait for what nobody takes
                future.cancel()
