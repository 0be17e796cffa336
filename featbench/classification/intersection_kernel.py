"""The Gram matrix of the histogram intersection kernel, K(a, b) = Σ_k min(a_k, b_k), without approximation."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.errors import FeatureError
from featbench.types import FloatArray

Matrix = NDArray[np.float64]

COLUMNS = 1024
"""Bins that are summed in single precision before the sum is added in double precision.

Counts stay exact as long as these sums stay below 2²⁴. The six rows that the compiled loop reads together, 4 KB each,
fit into the first-level cache.
"""

ROWS = 64
"""Rows of the result that a thread computes at a time: few enough that all threads have work to the end."""


def intersection_gram(a: FloatArray, b: FloatArray) -> Matrix:
    """Return Σ_k min(a_ik, b_jk) for histograms a [n, d] and b [m, d], as float64 [n, m].

    The histograms are rounded to float32 first. Raises `FeatureError` for values that are negative or not finite.
    Source: Swain and Ballard 1991.
    """
    for histograms in (a, b):
        bad = np.flatnonzero(~(np.isfinite(histograms).all(axis=1) & (histograms >= 0).all(axis=1)))
        if len(bad):
            raise FeatureError(f"histogram {bad[0]} has values that are negative or not finite: they cannot intersect")
    gram = np.zeros((len(a), len(b)))
    add = _compile_sum()
    starts = range(0, len(a), ROWS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for column in range(0, a.shape[1], COLUMNS):
            bins = slice(column, column + COLUMNS)
            # Contiguous, so that the compiler can read neighbouring bins into one vector register.
            x, y = (np.ascontiguousarray(part[:, bins], dtype=np.float32) for part in (a, b))
            # Threads write to rows of their own, so that they need no lock; the list waits for all of them.
            list(pool.map(lambda start, x=x, y=y: add(x[start : start + ROWS], y, gram[start : start + ROWS]), starts))
    return gram


@cache
def _compile_sum() -> Callable[[FloatArray, FloatArray, Matrix], None]:
    """Compile the function that adds the intersections of a [n, d] and b [m, d] to a Gram matrix [n, m].

    numpy would write every minimum to memory, and take twenty times as long.
    """
    from numba import njit  # here, as importing numba takes long and few classifiers need it

    def add(a: Any, b: Any, gram: Any) -> None:
        # Four rows against two at a time: six values read serve eight sums, which stay in registers. One row against
        # one would read two values a sum, and wait for memory.
        even, odd = len(a) - len(a) % 4, len(b) - len(b) % 2
        for i in range(0, even, 4):
            for j in range(0, odd, 2):
                s = t = u = v = w = x = y = z = np.float32(0)
                for k in range(a.shape[1]):
                    p, q = b[j, k], b[j + 1, k]
                    s += min(a[i, k], p)
                    t += min(a[i, k], q)
                    u += min(a[i + 1, k], p)
                    v += min(a[i + 1, k], q)
                    w += min(a[i + 2, k], p)
                    x += min(a[i + 2, k], q)
                    y += min(a[i + 3, k], p)
                    z += min(a[i + 3, k], q)
                gram[i, j] += s
                gram[i, j + 1] += t
                gram[i + 1, j] += u
                gram[i + 1, j + 1] += v
                gram[i + 2, j] += w
                gram[i + 2, j + 1] += x
                gram[i + 3, j] += y
                gram[i + 3, j + 1] += z
        # The rows that are left over, one against one.
        for i in range(len(a)):
            for j in range(odd if i < even else 0, len(b)):
                s = np.float32(0)
                for k in range(a.shape[1]):
                    s += min(a[i, k], b[j, k])
                gram[i, j] += s

    # fastmath lets the compiler reorder the sums, without which it may not use vector instructions for them. The values
    # are finite, as fastmath assumes. nogil lets the threads run at the same time.
    compiled: Callable[[FloatArray, FloatArray, Matrix], None] = njit(fastmath=True, nogil=True)(add)
    return compiled
