"""Labels as callers in Python pass them, one of any kind for each image, made indices of classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from featbench.arguments import show
from featbench.errors import DataError, SplitError
from featbench.types import IntArray


def read_labels(given: Any, images: int) -> tuple[NDArray[Any], IntArray]:
    """Return the classes in ascending order, and for each image the index of its class, [images].

    Labels are integers, whole numbers, texts or booleans, [images], in whatever holds them in order. Raises a
    `DataError`, which calls them y, for anything else: another shape or number, missing values, numbers that are not
    whole, kinds that are mixed, one class alone; a `SplitError` for a class of a single image.
    """
    array = _read_array(given)
    if array.ndim != 1:
        raise DataError(f"y has shape {list(array.shape)}, but one label an image is needed, [n]{_advise(array)}")
    labels = _read_values(array)
    if len(labels) != images:
        raise DataError(f"there are {images} images but {len(labels)} labels: y needs one for each image of X")
    classes, indices, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"y has one class alone, {show(classes[0].item())}: labels tell at least two apart")
    if counts.min() < 2:
        rare = classes[counts.argmin()].item()
        raise SplitError(
            f"class {show(rare)} of y has a single image: each class needs one to train and one to validate"
        )
    return classes, indices.astype(np.int64)


def _advise(labels: NDArray[Any]) -> str:
    if labels.ndim != 2:
        return ""
    return ": use y.ravel()" if 1 in labels.shape else ": of one-hot rows use y.argmax(axis=1)"


def _read_array(given: Any) -> NDArray[Any]:
    """Return labels as an array, whatever its shape and its values."""
    if sparse.issparse(given):
        raise DataError("Sparse data was passed for y, but dense data is required: use y.toarray()")
    if isinstance(given, str | bytes | Mapping | set | frozenset | Iterator):
        raise DataError(f"y is a {type(given).__name__}: give a list or an array of labels, in the order of the images")
    if np.ma.is_masked(given):
        raise DataError("y is a masked array, and a masked label is missing: leave out its image")
    try:
        # A list is read as objects first: numpy would make texts of the numbers that stand beside texts.
        return np.asarray(given, dtype=object if isinstance(given, list | tuple) else None)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"y is no array of labels: {error}") from error


def _read_values(array: NDArray[Any]) -> NDArray[Any]:
    """Return labels [n] as values that can be sorted."""
    labels = _read_objects(array) if array.dtype == object else array
    if labels.dtype.kind not in "biufSU":
        raise DataError(f"y holds {labels.dtype}: labels are integers or texts")
    if labels.dtype.kind == "f":
        _require_whole(labels)
    return labels


def _read_objects(labels: NDArray[Any]) -> NDArray[Any]:
    """Return an array of one kind, of numbers or texts, of an array of Python objects."""
    kinds: dict[type, object] = {}
    for place, label in enumerate(labels):
        missing = label is None or type(label).__name__ == "NAType"
        if missing or (isinstance(label, float | np.floating) and math.isnan(label)):
            raise DataError(f"y holds {label} at {place}: a label is missing")
        kinds.setdefault(_find_kind(label), label)
    if len(kinds) > 1:
        examples = " and ".join(show(label) for label in list(kinds.values())[:2])
        raise DataError(f"y mixes kinds of labels, such as {examples}: give all of one kind")
    return np.array(labels.tolist())


def _find_kind(label: object) -> type:
    """Return the kind of labels that one belongs to; numbers, booleans included, are one kind."""
    for kind in (str, bytes):
        if isinstance(label, kind):
            return kind
    if isinstance(label, bool | int | float | np.number | np.bool_):
        return float
    raise DataError(f"y holds {show(label)}: labels are integers or texts")


def _require_whole(labels: NDArray[Any]) -> None:
    """Raise for NaN, infinities and fractions, with their place."""
    for place, label in enumerate(labels):
        if not math.isfinite(label):
            raise DataError(f"y holds {'NaN' if math.isnan(label) else label} at {place}: a label is missing")
        if label != round(label):
            raise DataError(f"y holds {label} at {place}: continuous values are no classes")
