"""Work that threads do before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")
Item = TypeVar("Item")


def ahead(make: Callable[[Item], T], items: Iterable[Item], workers: int = 1) -> Iterator[T]:
    """Yield make(item) of each item in order; two for each worker are made while the last one is used.

    A worker computes with one thread of torch's: workers do not wait for one another, as the threads of one operation
    do. What `make` raises is raised when its result is due. No gradients are followed.
    """
    threads = torch.get_num_threads()
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=partial(torch.set_num_threads, 1))
    work = torch.no_grad()(make)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops early does not wait for what nobody takes
        # What a worker sets holds for itself and for threads that are not yet there: give those theirs again.
        torch.set_num_threads(threads)
