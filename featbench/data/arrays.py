"""Images as callers in Python pass them: one array, rows of a table, or a list of images of several sizes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from featbench.errors import ArrayTypeError, DataError
from featbench.types import Pixels

FORMS = "[n, height, width], [n, height, width, 3], rows of square images, or a list of images"

MODES = ("1", "L", "I", "I;16", "F", "RGB")
"""Modes of Pillow whose values numpy gives as a viewer shows them; those of a palette are no colours."""


def read_pixels(given: Any, row_shape: Sequence[int] | None = None) -> Sequence[Pixels] | Pixels:
    """Return images as an array [n, height, width(, 3)] of numbers, or as a list of such images of any sizes.

    row_shape: the shape of the image that a row of numbers holds, one side of which may be -1, as in numpy; by default
    rows hold square images. Raises a `DataError`, which calls what was given X, for anything else: other shapes,
    sparse, masked and complex arrays, values that are no numbers (`ArrayTypeError`) or not finite.
    """
    listed = _list_images(given)
    images: Sequence[Pixels] | Pixels = _unfold(_read_array(given, "X"), row_shape) if listed is None else listed
    for index, image in enumerate(images):
        _require_image(image, index)
        _require_finite(image, index)
    return images


def count_values(images: Sequence[Pixels] | Pixels) -> int | None:
    """Return how many values each image has; None where images differ in their shape."""
    shapes = {image.shape for image in images}
    return math.prod(shapes.pop()) if len(shapes) == 1 else None


def _list_images(given: Any) -> list[Pixels] | None:
    """Return the images of a list; None of anything else, a list of rows of numbers included."""
    if isinstance(given, Image.Image):
        raise DataError("X is a single image: give a list of images")
    if hasattr(given, "to_numpy"):
        given = given.to_numpy()
    if isinstance(given, np.ndarray) and not (given.dtype == object and given.ndim == 1):
        return None
    if not isinstance(given, list | tuple | np.ndarray) or len(given) == 0 or all(map(_is_number, given)):
        return None
    found = [_read_array(one, f"X[{index}]") for index, one in enumerate(given)]
    return None if all(one.ndim < 2 for one in found) else found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | complex | np.number)


def _read_array(given: Any, name: str) -> NDArray[Any]:
    """Return an array of real numbers."""
    if sparse.issparse(given):
        raise DataError(f"Sparse data was passed for {name}, but dense data is required: use {name}.toarray()")
    if isinstance(given, str | bytes | os.PathLike):
        raise DataError(f"images come as {FORMS}, but {name} is a text or a path: read files with featbench.read_image")
    if given is None or isinstance(given, Mapping | set | frozenset | Iterator):
        raise DataError(f"{name} is a {type(given).__name__}: images come as {FORMS}")
    if np.ma.is_masked(given):
        raise DataError(f"{name} is a masked array, and masked values are no numbers: fill them")
    if isinstance(given, Image.Image) and given.mode not in MODES:
        raise DataError(f"{name} is an image of Pillow's mode {given.mode}: convert it, to RGB or L")
    try:
        array = np.asarray(given)
        return _read_objects(array, name) if array.dtype == object else _require_real(array, name)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is no array of numbers: {error}") from error


def _read_objects(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the numbers of an array of Python objects."""
    for one in array.flat:
        if isinstance(one, str | bytes):
            raise ArrayTypeError(f"{name} holds text: images come as {FORMS}")
        if isinstance(one, complex):
            raise DataError(f"Complex data not supported: {name} holds {one}")
    try:
        return array.astype(np.float64)
    except TypeError as error:
        raise ArrayTypeError(f"{name} holds what is no number: {error}") from error


def _require_real(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype.kind == "c":
        raise DataError(f"Complex data not supported: {name} holds {array.dtype}; give its real part, or its size")
    if array.dtype.kind not in "buif":
        raise ArrayTypeError(f"{name} holds {array.dtype}: give numbers")
    return array


def _unfold(array: NDArray[Any], row_shape: Sequence[int] | None) -> NDArray[Any]:
    """Return images [n, ...] of an array whose rows may hold images."""
    if array.shape[:1] == (0,):
        raise DataError(f"X holds no images: Found array with 0 sample(s) (shape={array.shape})")
    if array.ndim not in (2, 3, 4):
        advice = ". Reshape your data: X[np.newaxis] is a single row" if array.ndim == 1 else ""
        raise DataError(f"images X come as {FORMS}, not {list(array.shape)}{advice}")
    if array.ndim > 2:
        return array
    count, values = array.shape
    if values == 0:
        raise DataError(f"Found array with 0 feature(s) (shape={array.shape}) while a minimum of 1 is required.")
    if row_shape is None:
        side = math.isqrt(values)
        if side * side != values:
            raise DataError(
                f"rows of {values} values are not square images: give [n, height, width], or say by "
                "image_shape=(height, width) what a row is"
            )
        return array.reshape(count, side, side)
    try:
        return array.reshape(count, *row_shape)
    except ValueError:
        raise DataError(f"rows of {values} values are not images of image_shape={tuple(row_shape)}") from None


def _require_image(image: Pixels, index: int) -> None:
    """Raise unless an image is grey or RGB."""
    shape = image.shape
    if len(shape) in (2, 3) and 0 not in shape and shape[2:] in ((), (3,)):
        return
    hint = ""
    if len(shape) == 3 and shape[0] in (1, 3):
        hint = ": move its channels to the end"
    elif len(shape) == 3 and shape[2] in (1, 2, 4):
        hint = ": take away the axis of a single channel, and compose transparency on a ground"
    forms = "[height, width] grey or [height, width, 3] RGB"
    raise DataError(f"X: image {index} has shape {list(shape)}, but images are {forms}{hint}")


def _require_finite(image: Pixels, index: int) -> None:
    """Raise for NaN and infinities, with their place."""
    if image.dtype.kind != "f" or np.isfinite(image).all():
        return
    place = tuple(int(one) for one in np.argwhere(~np.isfinite(image))[0])
    value = "NaN" if np.isnan(image[place]) else str(image[place])
    words = zip(("row", "column", "channel")[: len(place)], place, strict=True)
    where = ", ".join(f"{word} {number}" for word, number in words)
    raise DataError(f"X: image {index} holds values that are not finite, {value} at {where}")
