"""Compiled loops for N's local mean and divisor on a CPU, and the way back through them.

They compute what `LocalNormalisation.statistics` says. For each image, with the means μ and mean squares q of its maps:

    B x = (w ∗ x) / (w ∗ 1)              blur with the window w, divided by its weight over the pixels that exist
    m = B μ                              local mean
    u = max(q - 2 m μ + m², 0)           mean square of y - m over maps
    d = sqrt(max(B u, TINY))             local deviation
    s = max(d, mean of d, noise)         divisor; noise = NOISE sqrt(mean of q)
    r = 1 / s

The maps themselves do not appear, so these loops touch two images where autograd would touch K. They cost little beside
`host_passes`. They are written as array expressions, and compiled so that a dozen small operations, each with the
overhead of a call to torch and a node in autograd's graph, become one call.

There is no fast-math here: nothing is gained from it on single images.

Importing this module compiles nothing, but loads the compiler: it is imported where it is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from featbench.refinement.host_arrays import Array, LocalStatistics, Moments, Window
from featbench.stages.normalization import ROUNDING, TINY

NOISE = np.float32(ROUNDING * np.sqrt(np.finfo(np.float32).eps))
"""The least divisor, as a part of the root of q's mean: what lies below is rounding error of a constant image."""

compiled: Any = njit(nogil=True, cache=True)


@compiled  # type: ignore[untyped-decorator]
def smooth(x: Array, taps: Array, out: Array) -> None:
    """Correlate an image [h, w] with a separable, symmetric window; beyond the border it is zero.

    Since the window is symmetric and the border zero, the operation is its own adjoint: the same loop takes a gradient
    back through it.
    """
    height, width = x.shape
    margin = len(taps) // 2
    across = np.zeros_like(x)
    # Shifted rows are added up, tap by tap: the inner loop is contiguous and free of branches at the border.
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
def compute_statistics(moments: Moments, window: Window, out: LocalStatistics) -> None:
    """Fill m, u (not yet clamped), d and r; without subtraction m is 0, without division r is 1."""
    mean, mean_square = moments
    taps, weight, subtractive, divisive = window
    m, u, d, r = out
    for n in range(len(mean)):
        m[n] = 0
        if subtractive:
            smooth(mean[n], taps, m[n])
            m[n] /= weight
        r[n] = 1
        if divisive:
            # Kept with its sign: where rounding made u negative, the clamp lets no gradient through.
            u[n] = mean_square[n] + m[n] * (m[n] - 2 * mean[n])
            smooth(np.maximum(u[n], np.float32(0)), taps, d[n])
            d[n] = np.sqrt(np.maximum(d[n] / weight, np.float32(TINY)))
            least = max(np.float32(d[n].mean()), NOISE * np.float32(np.sqrt(mean_square[n].mean())))
            r[n] = 1 / np.maximum(d[n], least)


@compiled  # type: ignore[untyped-decorator]
def backpropagate_statistics(
    moments: Moments, window: Window, found: LocalStatistics, by_reciprocal: Array, by_shift: Array, out: Moments
) -> None:
    """Fill the gradients by μ and q, given those by r and by the shift m r that is subtracted after pooling."""
    mean, mean_square = moments
    taps, weight, subtractive, divisive = window
    m, u, d, r = found
    by_mean, by_mean_square = out
    tiny = np.float32(np.sqrt(TINY))
    spread = np.empty_like(weight)
    for n in range(len(mean)):
        by_mean[n] = 0
        by_mean_square[n] = 0
        by_m = by_shift[n] * r[n]
        if divisive:
            # r = 1/s and shift = m r: ∂/∂s = -r² (by_r + by_shift m).
            by_s = -(by_reciprocal[n] + by_shift[n] * m[n]) * r[n] * r[n]
            # s = max(d, mean of d, noise) sends each pixel's gradient to the largest of the three: to the pixel's own
            # d, evenly to all d of the image, or, for the noise, nowhere (`LocalNormalisation` detaches it).
            typical = np.float32(d[n].mean())
            noise = NOISE * np.float32(np.sqrt(mean_square[n].mean()))
            own = d[n] > max(typical, noise)
            by_d = np.where(own, by_s, np.float32(0))
            if typical > noise:
                by_d += np.where(own, np.float32(0), by_s).sum() / np.float32(by_s.size)
            # d = sqrt(B u): ∂/∂(B u) = by_d / 2d, and 0 where d is clamped.
            by_d = np.where(d[n] > tiny, by_d / (2 * d[n] * weight), np.float32(0))
            smooth(by_d, taps, spread)
            by_u = np.where(u[n] >= 0, spread, np.float32(0))  # at 0 the gradient passes, as in torch's clamp
            # u = q - 2mμ + m².
            by_mean_square[n] = by_u
            by_mean[n] = -2 * m[n] * by_u
            by_m += 2 * (m[n] - mean[n]) * by_u
        if subtractive:
            # m = (w ∗ μ) / weight: divide first, then the adjoint of w, which is w.
            smooth(by_m / weight, taps, spread)
            by_mean[n] += spread
