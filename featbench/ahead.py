"""Work that is done in a thread before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
Item = TypeVar("Item")

DEPTH = 2
"""Results that wait to be taken."""


def ahead(make: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
    """Yield make(item) of each item in order; up to `DEPTH` of them are made while the last one is used.

    What `make` raises is raised when its result is due. No gradients are followed.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(1)
    try:
        for item in items:
            waiting.append(pool.submit(torch.no_grad()(make), item))
            if len(waiting) > DEPTH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops early does not wait for what nobody takes
