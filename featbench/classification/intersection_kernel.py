"""The Gram matrix of the histogram intersection, Σ min(a, b), exact."""

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
"""Bins summed in single precision before they are added in double; of few rows they fit into the fastest cache."""

ROWS = 64
"""Rows of the result that a thread computes at a time."""


def intersection_gram(a: FloatArray, b: FloatArray) -> Matrix:
    """Return Σ_k min(a_ik, b_jk) for histograms a [n, d] and b [m, d], in float64, computed from single precision.

    Raises `FeatureError` for histograms that are negative or not finite. Source: Swain, Ballard 1991.
    """
    for histograms in (a, b):
        bad = np.flatnonzero(~(np.isfinite(histograms).all(axis=1) & (histograms >= 0).all(axis=1)))
        if len(bad):
            raise FeatureError(f"histogram {bad[0]} has values that are negative or not finite: they cannot intersect")
    gram = np.zeros((len(a), len(b)))
    add = _compiled()
    starts = range(0, len(a), ROWS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for column in range(0, a.shape[1], COLUMNS):
            here = slice(column, column + COLUMNS)
            x, y = (np.ascontiguousarray(part[:, here], dtype=np.float32) for part in (a, b))
            list(pool.map(lambda start, x=x, y=y: add(x[start : start + ROWS], y, gram[start : start + ROWS]), starts))
    return gram


@cache
def _compiled() -> Callable[[FloatArray, FloatArray, Matrix], None]:
    """Compile the sum: numpy's own would write every minimum to memory, and take twenty times as long."""
    from numba import njit

    def add(a: Any, b: Any, gram: Any) -> None:
        # Four rows against two at a time, so that a value read serves several sums.
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
        for i in range(len(a)):
            for j in range(odd if i < even else 0, len(b)):
                s = np.float32(0)
                for k in range(a.shape[1]):
                    s += min(a[i, k], b[j, k])
                gram[i, j] += s

    compiled: Callable[[FloatArray, FloatArray, Matrix], None] = njit(fastmath=True, nogil=True)(add)
    return compiled
