"""The arrays that the compiled loops of training on a CPU take and fill, by name.

They stand apart from the loops so that naming them does not load the compiler.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


# Named tuples and not dataclasses: numba takes them as they are, and passes their fields as separate arguments. A call
# costs 2 µs more than one with the arrays in a row, and computes the same bits.


class TanhMaps(NamedTuple):
    """The maps y = g t of a filter bank, or y = |g t| if `rectified`, as the loops compute them from t.

    values: t = tanh(w ∗ x + b), [n, h, w, K], maps last in memory. gain: g, [K].
    """

    values: Array
    gain: Array
    rectified: bool


class Moments(NamedTuple):
    """Mean μ and mean square q of y over its maps, [n, h, w] each, or the gradients by them."""

    mean: Array
    mean_square: Array


class Window(NamedTuple):
    """The local window of N, and which of its halves there are.

    taps: its profile along one axis, [size]. weight: what a sum over it is divided by at each pixel, [h, w].
    """

    taps: Array
    weight: Array
    subtractive: bool
    divisive: bool


class LocalStatistics(NamedTuple):
    """What N computes at each pixel, [n, h, w] each; symbols as in `host_statistics`.

    mean: m. squared_deviation: u before it is clamped at 0. deviation: d. reciprocal: r = 1/s.
    """

    mean: Array
    squared_deviation: Array
    deviation: Array
    reciprocal: Array
