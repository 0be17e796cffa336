"""Compiled loops over the maps of a filter bank on a CPU: what N and average pooling need of them, and the way back.

y = g t, or |g t|, are the maps of `TanhMaps`; r [n, h, w] is the reciprocal of what N divides by. A cell is a square of
side×side pixels, and its value is the average of r y over them. Pixels beyond the last whole cell belong to none.

Why loops of our own: torch computes each of these steps with an operation that reads and writes all maps, 5 MB an image
for 64 maps of 143×143, while the arithmetic is a few instructions a value. Memory is the bottleneck, so each loop here
does all it can while a pixel's maps are in registers, and writes one number a pixel, or one a cell, where it can.

Maps are last in memory (t [n, h, w, K]): the inner loop runs over maps, which are contiguous, and the compiler turns it
into vector instructions whatever the size of the cells.

The loops use no threads. Parts of a batch run side by side in threads of ours (`gradients.py`), which is why the GIL is
released; and a sum that one thread computes has the same bits however many threads there are.

Importing this module compiles nothing, but it loads the compiler: it is imported where it is needed. Compiled code is
cached where the package's folder or the user's cache can be written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from featbench.refinement.host_arrays import Array, Moments, TanhMaps

VECTORISABLE = {"reassoc", "contract", "nsz", "arcp"}
"""The parts of LLVM's fast-math that are safe here.

Without `reassoc` a sum over maps is one chain of dependent additions, and is not vectorised. `nnan` and `ninf` are left
out: with them the compiler may assume that no value is NaN or infinite, and divergence would go unseen. The order in
which a sum is taken depends on the number of maps and on the machine's vectors, and not on the batch or the threads.
"""

compiled: Any = njit(nogil=True, fastmath=VECTORISABLE, cache=True)


@compiled  # type: ignore[untyped-decorator]
def compute_moments(maps: TanhMaps, out: Moments) -> None:
    """Fill the mean and the mean square of y over its maps."""
    t, gain, rectified = maps
    mean, mean_square = out
    images, height, width, count = t.shape
    # float32 throughout: one float64 operand would turn the whole expression into float64, at half the vector width.
    part = np.float32(1 / count)
    for n in range(images):
        for i in range(height):
            for j in range(width):
                total = np.float32(0)
                squares = np.float32(0)
                for k in range(count):
                    y = gain[k] * t[n, i, j, k]
                    y = abs(y) if rectified else y
                    total += y
                    squares += y * y
                mean[n, i, j] = total * part
                mean_square[n, i, j] = squares * part


@compiled  # type: ignore[untyped-decorator]
def average_cells(maps: TanhMaps, r: Array, side: int, out: Array) -> None:
    """Fill the cells [n, h//side, w//side, K], the averages of r y."""
    t, gain, rectified = maps
    images, rows, columns, count = out.shape
    for n in range(images):
        for i in range(rows):
            for j in range(columns):
                for k in range(count):
                    out[n, i, j, k] = 0
                # One cell at a time: its K sums stay in the first-level cache until the last of its pixels.
                for a in range(side):
                    for b in range(side):
                        factor = r[n, i * side + a, j * side + b]
                        for k in range(count):
                            y = t[n, i * side + a, j * side + b, k]
                            out[n, i, j, k] += factor * (abs(y) if rectified else y)
                # |g t| = |g| |t|, so the gain is the same for all pixels and meets their sum once.
                for k in range(count):
                    factor = abs(gain[k]) if rectified else gain[k]
                    out[n, i, j, k] *= factor / np.float32(side * side)


@compiled  # type: ignore[untyped-decorator]
def backpropagate_to_reciprocal(maps: TanhMaps, by_cells: Array, side: int, out: Array) -> None:
    """Fill the gradient by r [n, h, w], given that by the cells: Σ_k by_cells_k y_k / side²."""
    t, gain, rectified = maps
    images, height, width, count = t.shape
    _, rows, columns, _ = by_cells.shape
    part = np.float32(1 / (side * side))
    for n in range(images):
        for i in range(height):
            for j in range(width):
                total = np.float32(0)
                if i // side < rows and j // side < columns:
                    for k in range(count):
                        y = gain[k] * t[n, i, j, k]
                        total += by_cells[n, i // side, j // side, k] * (abs(y) if rectified else y)
                out[n, i, j] = total * part


@compiled  # type: ignore[untyped-decorator]
def backpropagate_to_tanh_argument(
    maps: TanhMaps,
    r: Array,
    by_cells: Array,
    side: int,
    by_moments: Moments,
    out: Array,
    by_gain: NDArray[np.float64],
) -> None:
    """Fill the gradient by tanh's argument [n, h, w, K], and add that by the gain [K] to `by_gain`.

    A value y of map k reaches the loss through its cell, through μ = Σ y / K and through q = Σ y² / K:
    ∂/∂y = r by_cells_k / side² + by_μ / K + 2 by_q y / K. Then y = |g t| gives ∂/∂(g t) = sign(g t) ∂/∂y for the first
    two terms; the third needs no sign, since y² = (g t)². Last, ∂/∂g = Σ t ∂/∂(g t), and ∂/∂(w∗x + b) = g (1 - t²)
    ∂/∂(g t), which is why t is all that is kept of the forward pass.
    """
    t, gain, rectified = maps
    by_mean, by_mean_square = by_moments
    images, height, width, count = t.shape
    _, rows, columns, _ = by_cells.shape
    part = np.float32(1 / (side * side))
    each = np.float32(1 / count)
    # Pixels that belong to no cell read zeros: a branch in the inner loop would keep it from being vectorised.
    none = np.zeros(count, dtype=np.float32)
    for n in range(images):
        # float32 within an image, where the loop is vectorised; float64 across images, whose number has no bound.
        sums = np.zeros(count, dtype=np.float32)
        for i in range(height):
            for j in range(width):
                inside = i // side < rows and j // side < columns
                pooled = by_cells[n, i // side, j // side] if inside else none
                factor = r[n, i, j] * part
                shift = by_mean[n, i, j] * each
                slope = 2 * by_mean_square[n, i, j] * each
                for k in range(count):
                    value = t[n, i, j, k]
                    y = gain[k] * value
                    # The sign is zero at zero, as in torch.
                    sign = np.float32(1) if not rectified or y > 0 else np.float32(-1) if y < 0 else np.float32(0)
                    by_product = sign * (factor * pooled[k] + shift) + slope * y
                    sums[k] += by_product * value
                    out[n, i, j, k] = by_product * gain[k] * (1 - value * value)
        for k in range(count):
            by_gain[k] += sums[k]
