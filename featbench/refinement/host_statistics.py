"""N's local mean and divisor on a CPU, compiled, and the way back: what `LocalNormalisation.statistics` says.

For each image [h, w], with the means μ and mean squares q of its maps: m = B μ, u = max(q - 2mμ + m², 0),
d = sqrt(max(B u, TINY)), s = max(d, mean d, noise), with the blur B x = (w ∗ x) / (w ∗ 1).

Importing it compiles nothing, but loads the compiler: it is imported where it is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from featbench.stages.normalization import ROUNDING, TINY

Array = NDArray[np.float32]

NOISE = np.float32(ROUNDING * np.sqrt(np.finfo(np.float32).eps))
"""Times the root of q's mean: the least divisor."""

compiled: Any = njit(nogil=True, cache=True)


@compiled  # type: ignore[untyped-decorator]
def smoothed(x: Array, taps: Array, out: Array) -> None:
    """Correlate an image [h, w] with a separable, symmetric window; beyond the border it is zero."""
    height, width = x.shape
    margin = len(taps) // 2
    across = np.zeros_like(x)
    for i in range(height):
        for away in range(-margin, margin + 1):
            tap = taps[away + margin]
            for j in range(max(0, -away), min(width, width - away)):
                across[i, j] += tap * x[i, j + away]
    out[:] = 0
    for i in range(height):
        for away in range(max(-margin, -i), min(margin, height - 1 - i) + 1):
            tap = taps[away + margin]
            for j in range(width):
                out[i, j] += tap * across[i + away, j]


@compiled  # type: ignore[untyped-decorator]
def forward(
    mean: Array,
    square: Array,
    taps: Array,
    weight: Array,
    halves: tuple[bool, bool],
    m: Array,
    u: Array,
    d: Array,
    r: Array,
) -> None:
    """Fill m, u, d and r = 1/s, [n, h, w] each, given μ and q, the window's taps and weight [h, w].

    halves: whether N subtracts, and whether it divides; without the one m is 0, without the other r is 1.
    """
    subtractive, divisive = halves
    for n in range(len(mean)):
        m[n] = 0
        if subtractive:
            smoothed(mean[n], taps, m[n])
            m[n] /= weight
        r[n] = 1
        if divisive:
            u[n] = square[n] + m[n] * (m[n] - 2 * mean[n])
            smoothed(np.maximum(u[n], np.float32(0)), taps, d[n])
            d[n] = np.sqrt(np.maximum(d[n] / weight, np.float32(TINY)))
            least = max(np.float32(d[n].mean()), NOISE * np.float32(np.sqrt(square[n].mean())))
            r[n] = 1 / np.maximum(d[n], least)


@compiled  # type: ignore[untyped-decorator]
def backward(
    mean: Array,
    square: Array,
    taps: Array,
    weight: Array,
    halves: tuple[bool, bool],
    m: Array,
    u: Array,
    d: Array,
    r: Array,
    by_r: Array,
    by_shift: Array,
    by_mean: Array,
    by_square: Array,
) -> None:
    """Fill the gradients by μ and q, [n, h, w] each, given those by r and the shift m r; the rest as in `forward`."""
    subtractive, divisive = halves
    tiny = np.float32(np.sqrt(TINY))
    spread = np.empty_like(weight)
    for n in range(len(mean)):
        by_mean[n] = 0
        by_square[n] = 0
        by_m = by_shift[n] * r[n]
        if divisive:
            by_s = -(by_r[n] + by_shift[n] * m[n]) * r[n] * r[n]
            typical = np.float32(d[n].mean())
            noise = NOISE * np.float32(np.sqrt(square[n].mean()))
            own = d[n] > max(typical, noise)
            by_d = np.where(own, by_s, np.float32(0))
            if typical > noise:
                by_d += np.where(own, np.float32(0), by_s).sum() / np.float32(by_s.size)
            by_d = np.where(d[n] > tiny, by_d / (2 * d[n] * weight), np.float32(0))
            smoothed(by_d, taps, spread)
            by_u = np.where(u[n] >= 0, spread, np.float32(0))
            by_square[n] = by_u
            by_mean[n] = -2 * m[n] * by_u
            by_m += 2 * (m[n] - mean[n]) * by_u
        if subtractive:
            smoothed(by_m / weight, taps, spread)
            by_mean[n] += spread
