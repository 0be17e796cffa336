"""Images of other numbers than bytes: checked, and kept in double precision, whatever their scale and offset.

Features must not depend on the unit of an image. Single precision has seven digits, and squares overflow from 1e19:
temperatures in kelvin, photon counts or values of 1e-30 would become constant, infinite or zero on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.errors import DataError

KINDS = "buif"
"""Kinds of numpy's types that are real numbers: booleans, integers without and with a sign, floating point."""

LARGEST_INTEGER = 2**53
"""Up to here double precision has every integer."""

LARGEST = 2.0**1020
"""A sixteenth of double precision's largest number: resizing goes beyond the values of an image, but not 16 times."""

SINGLE, CONTRAST = (1e-30, 1e18), 1e-6
"""Between these sizes, and with a contrast of this much of the largest value, single precision does without rescaling:
squares, and their sums, neither vanish nor overflow."""


def read_numbers(image: NDArray[Any], index: int) -> NDArray[np.float64]:
    """Return an image of numbers of any type in double precision; `index` names it in errors.

    Raises a `DataError` for values that are not real numbers, not finite (with the place of the first), or that double
    precision cannot tell apart.
    """
    if image.dtype.kind not in KINDS:
        raise DataError(f"image {index} holds values of type {image.dtype}: give real numbers")
    with np.errstate(over="ignore"):
        values = image.astype(np.float64)
    bad = np.argwhere(~(np.abs(values) <= LARGEST))
    if len(bad):
        value = image[tuple(bad[0])]
        what = "too large" if np.isfinite(value) else "not finite"
        raise DataError(f"image {index} holds values that are {what}, the first {value!s} at {_describe_place(bad[0])}")
    if image.dtype.kind in "iu" and np.abs(values).max() > LARGEST_INTEGER:
        raise DataError(
            f"image {index} holds integers beyond 2^53, which double precision cannot tell apart: subtract an offset"
        )
    return values


def _describe_place(place: NDArray[np.int64]) -> str:
    """Return a position in an image in words, counted from 0."""
    words = ("row", "column", "channel")[: len(place)]
    return ", ".join(f"{word} {number}" for word, number in zip(words, place, strict=True))


def rescale(images: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Return each of some images [n, …] from 0 upward and below 2, with its least value and the exponent it had.

    The image is 2^exponent · (result + least). The result is rounded to a unit in the last place of the largest value,
    and not at all on a large offset.
    """
    axes = tuple(range(1, images.ndim))
    _, exponents = np.frexp(np.abs(images).max(axis=axes, keepdims=True))
    scaled = np.ldexp(images, -exponents)
    least = scaled.min(axis=axes, keepdims=True)
    return scaled - least, least, exponents


def round_to_single(images: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return images [n, …] in single precision, as they are; `indices` name them in errors.

    Raises a `DataError` if that loses the contrast of an image.
    """
    axes = tuple(range(1, images.ndim))
    largest, least = images.max(axis=axes), images.min(axis=axes)
    sizes = np.maximum(np.abs(largest), np.abs(least))
    contrasts = largest - least
    out_of_range = (sizes > SINGLE[1]) | ((sizes > 0) & (sizes < SINGLE[0]))
    for place in np.flatnonzero(out_of_range | ((contrasts > 0) & (contrasts < CONTRAST * sizes)))[:1]:
        raise DataError(
            f"image {indices[place]} has values from {least[place]:g} to {largest[place]:g}, which single precision "
            f"cannot hold or tell apart: standardise images, or give them in another unit"
        )
    return images.astype(np.float32)
