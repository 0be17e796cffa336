"""Passes over the maps of a filter bank on a CPU, compiled: what N and average pooling need of them, there and back.

Maps t [n, h, w, K] are those of tanh, last in memory. With y = g t, its absolute value if `rectified`, and r [n, h, w]
the reciprocal of what N divides by, cells of side×side pixels (what is left over belongs to none) are averages of r y.

Importing it compiles nothing, but loads the compiler: it is imported where it is needed. The compiled code is kept
where the package's folder or the user's cache can be written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]

REORDER = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered, so that they are vectorised; what is not finite keeps its meaning."""

compiled: Any = njit(nogil=True, fastmath=REORDER, cache=True)


@compiled  # type: ignore[untyped-decorator]
def moments(t: Array, gain: Array, rectified: bool, mean: Array, square: Array) -> None:
    """Fill the mean and the mean square of y over maps, [n, h, w]."""
    images, height, width, maps = t.shape
    part = np.float32(1 / maps)
    for n in range(images):
        for i in range(height):
            for j in range(width):
                total = np.float32(0)
                squares = np.float32(0)
                for k in range(maps):
                    y = gain[k] * t[n, i, j, k]
                    y = abs(y) if rectified else y
                    total += y
                    squares += y * y
                mean[n, i, j] = total * part
                square[n, i, j] = squares * part


@compiled  # type: ignore[untyped-decorator]
def cells(t: Array, gain: Array, rectified: bool, r: Array, side: int, out: Array) -> None:
    """Fill the cells [n, h//side, w//side, K]."""
    images, rows, columns, maps = out.shape
    for n in range(images):
        for i in range(rows):
            for j in range(columns):
                for k in range(maps):
                    out[n, i, j, k] = 0
                for a in range(side):
                    for b in range(side):
                        factor = r[n, i * side + a, j * side + b]
                        for k in range(maps):
                            y = t[n, i * side + a, j * side + b, k]
                            out[n, i, j, k] += factor * (abs(y) if rectified else y)
                for k in range(maps):
                    factor = abs(gain[k]) if rectified else gain[k]
                    out[n, i, j, k] *= factor / np.float32(side * side)


@compiled  # type: ignore[untyped-decorator]
def pull(t: Array, gain: Array, rectified: bool, grad: Array, side: int, out: Array) -> None:
    """Fill the gradient [n, h, w] by r, given that by the cells."""
    images, height, width, maps = t.shape
    _, rows, columns, _ = grad.shape
    part = np.float32(1 / (side * side))
    for n in range(images):
        for i in range(height):
            for j in range(width):
                total = np.float32(0)
                if i // side < rows and j // side < columns:
                    for k in range(maps):
                        y = gain[k] * t[n, i, j, k]
                        total += grad[n, i // side, j // side, k] * (abs(y) if rectified else y)
                out[n, i, j] = total * part


@compiled  # type: ignore[untyped-decorator]
def push(
    t: Array,
    gain: Array,
    rectified: bool,
    r: Array,
    grad: Array,
    side: int,
    by_mean: Array,
    by_square: Array,
    out: Array,
    by_gain: NDArray[np.float64],
) -> None:
    """Fill the gradient [n, h, w, K] by tanh's argument, given those by the cells and by both moments.

    The gradient by the gain [K] is added to `by_gain`.
    """
    images, height, width, maps = t.shape
    _, rows, columns, _ = grad.shape
    part = np.float32(1 / (side * side))
    each = np.float32(1 / maps)
    none = np.zeros(maps, dtype=np.float32)
    for n in range(images):
        sums = np.zeros(maps, dtype=np.float32)
        for i in range(height):
            for j in range(width):
                cell = i // side < rows and j // side < columns
                pooled = grad[n, i // side, j // side] if cell else none
                factor = r[n, i, j] * part
                shift = by_mean[n, i, j] * each
                slope = 2 * by_square[n, i, j] * each
                for k in range(maps):
                    value = t[n, i, j, k]
                    y = gain[k] * value
                    # The sign is zero at zero, as in torch.
                    sign = np.float32(1) if not rectified or y > 0 else np.float32(-1) if y < 0 else np.float32(0)
                    by_product = sign * (factor * pooled[k] + shift) + slope * y
                    sums[k] += by_product * value
                    out[n, i, j, k] = by_product * gain[k] * (1 - value * value)
        for k in range(maps):
            by_gain[k] += sums[k]
