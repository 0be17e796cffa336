"""Images as callers in Python pass them: which forms give the same images, and what is refused in which words."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

from featbench.data.arrays import count_values, read_pixels
from featbench.errors import ArrayTypeError, DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
ROWS = IMAGES.reshape(5, 16)
WHOLE = IMAGES.astype(float)


def with_value(value, place=(3, 2, 1)):
    images = WHOLE.copy()
    images[place] = value
    return images


def listed(images):
    """Return images as a 1-D array of objects."""
    found = np.empty(len(images), dtype=object)
    found[:] = list(images)
    return found


@pytest.mark.parametrize(
    "given",
    [
        IMAGES,
        ROWS,
        list(IMAGES),
        tuple(IMAGES),
        IMAGES.tolist(),
        ROWS.tolist(),
        listed(IMAGES),
        pd.Series(list(IMAGES)),
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS).astype("Int64"),
        IMAGES.astype(object),
        IMAGES.astype(np.int64),
        IMAGES.astype(np.uint16),
        IMAGES.astype(np.float16),
        IMAGES.astype(np.longdouble),
        np.asfortranarray(IMAGES),
        np.ma.masked_greater(IMAGES, 255),
        torch.tensor(IMAGES),
        [torch.tensor(image) for image in IMAGES],
        [Image.fromarray(image) for image in IMAGES],
        [Image.fromarray(image).convert("I") for image in IMAGES],
        [Image.fromarray(image).convert("F") for image in IMAGES],
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_same_images_come_in_many_forms(given):
    found = read_pixels(given)
    assert np.array_equal(np.stack([np.asarray(image, dtype=float) for image in found]), WHOLE)
    assert count_values(found) == 16


def test_bytes_stay_bytes():
    for given in (IMAGES, ROWS, list(IMAGES), [Image.fromarray(image) for image in IMAGES]):
        assert {image.dtype for image in read_pixels(given)} == {np.dtype(np.uint8)}


def test_colours_and_sizes_may_differ_in_a_list():
    given = [np.zeros((3, 5)), np.ones((7, 2, 3), dtype=np.uint8), [[1, 2], [3, 4]]]
    found = read_pixels(given)
    assert [image.shape for image in found] == [(3, 5), (7, 2, 3), (2, 2)]
    assert count_values(found) is None


@pytest.mark.parametrize(
    ("row_shape", "shape"),
    [
        ((2, 12), (2, 12)),
        ((4, -1), (4, 6)),
        ((-1, 3), (8, 3)),
        ((1, -1), (1, 24)),
        ((2, 4, 3), (2, 4, 3)),
        ([24, 1], (24, 1)),
    ],
)
def test_rows_are_images_of_the_shape_that_is_given(row_shape, shape):
    rows = np.arange(72.0).reshape(3, 24)
    found = read_pixels(rows, row_shape)
    assert found.shape == (3, *shape)
    assert np.array_equal(found.reshape(3, -1), rows)


def test_the_shape_of_rows_does_not_matter_to_images():
    assert np.array_equal(read_pixels(IMAGES, (2, 8)), IMAGES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(64), "not [64]. Reshape your data"),
        (np.array(3.0), "images X come as"),
        (7, "images X come as"),
        (np.zeros((1, 2, 3, 4, 3)), "not [1, 2, 3, 4, 3]"),
        (np.zeros((0, 8, 8)), "X holds no images"),
        ([], "X holds no images"),
        (np.zeros((3, 0)), "0 feature(s) (shape=(3, 0)) while a minimum of 1 is required"),
        (np.zeros((3, 0, 5)), "image 0 has shape [0, 5]"),
        (np.zeros((3, 63)), "rows of 63 values are not square images"),
        (np.zeros((2, 8, 8, 4)), "image 0 has shape [8, 8, 4], but images are [height, width] grey"),
        (np.zeros((2, 8, 8, 1)), "take away the axis of a single channel"),
        (np.zeros((2, 3, 8, 8)), "move its channels to the end"),
        ([np.zeros((8, 8)), np.zeros(8)], "image 1 has shape [8]"),
        ([np.zeros((8, 8)), np.zeros((8, 8, 2))], "image 1 has shape [8, 8, 2]"),
        ([[1, 2], [1]], "X is no array of numbers"),
        ([np.zeros((8, 8)), None], "X[1] is a NoneType"),
        (None, "X is a NoneType"),
        ({"a": IMAGES}, "X is a dict"),
        ({1, 2}, "X is a set"),
        (iter(IMAGES), "X is a"),
        ("a.png", "X is a text or a path: read files with featbench.read_image"),
        (Path("a.png"), "X is a text or a path"),
        ([Path("a.png"), Path("b.png")], "X[0] is a text or a path"),
        (np.array(["a.png"], dtype=object), "X[0] is a text or a path"),
        (sparse.csr_matrix(ROWS), "Sparse data was passed for X, but dense data is required"),
        (sparse.dok_array(ROWS), "Sparse data was passed for X, but dense data is required"),
        ([sparse.coo_array(image) for image in IMAGES], "Sparse data was passed for X[0]"),
        (WHOLE + 1j, "Complex data not supported: X holds complex128"),
        ((WHOLE + 1j).astype(object), "Complex data not supported: X holds"),
        ([WHOLE[0] + 1j], "Complex data not supported: X[0] holds complex128"),
        (np.ma.masked_less(IMAGES, 100), "X is a masked array"),
        ([Image.fromarray(image).convert("P") for image in IMAGES], "X[0] is an image of Pillow's mode P"),
        ([Image.fromarray(image).convert("RGBA") for image in IMAGES], "X[0] is an image of Pillow's mode RGBA"),
        ([Image.new("CMYK", (4, 4))], "X[0] is an image of Pillow's mode CMYK"),
        ([Image.new("HSV", (4, 4))], "X[0] is an image of Pillow's mode HSV"),
        (Image.fromarray(IMAGES[0]), "X is a single image: give a list of images"),
        (torch.ones(2, 4, 4, requires_grad=True), "X is no array of numbers: Can't call numpy() on Tensor"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_what_are_no_images_is_refused(given, message):
    with pytest.raises(DataError, match=re.escape(message)):
        read_pixels(given)


@pytest.mark.parametrize(
    "given",
    [
        IMAGES.astype(str),
        IMAGES.astype("S"),
        IMAGES.astype(str).astype(object),
        [IMAGES[0], IMAGES[0].astype(str)],
        IMAGES.astype("datetime64[s]"),
        np.zeros((2, 4, 4), dtype=[("a", float)]),
        np.array([[{}]], dtype=object),
        pd.DataFrame(ROWS).astype("Int64").replace(int(ROWS[0, 0]), pd.NA),
        pd.DataFrame(ROWS).astype(str),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_are_no_numbers_is_a_type_error_too(given):
    with pytest.raises(ArrayTypeError, match="holds") as caught:
        read_pixels(given)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (with_value(np.nan), "image 3 holds values that are not finite, NaN at row 2, column 1"),
        (with_value(np.inf), "image 3 holds values that are not finite, inf at row 2, column 1"),
        (with_value(-np.inf), "image 3 holds values that are not finite, -inf at row 2, column 1"),
        (with_value(np.nan).astype(np.float16), "image 3 .* NaN at row 2, column 1"),
        (with_value(np.nan).astype(object), "image 3 .* NaN at row 2, column 1"),
        (with_value(np.nan).reshape(5, 16), "image 3 .* NaN at row 2, column 1"),
        (pd.DataFrame(with_value(np.nan).reshape(5, 16)), "image 3 .* NaN at row 2, column 1"),
        (list(with_value(np.nan)), "image 3 .* NaN at row 2, column 1"),
        (with_value(np.nan, (0, 0, 0)), "image 0 .* NaN at row 0, column 0$"),
        (np.repeat(with_value(np.nan)[..., None], 3, -1), "image 3 .* NaN at row 2, column 1, channel 0"),
        (with_value(np.nan, (slice(2, None), 3)), "image 2 .* NaN at row 3, column 0"),
        ([np.zeros((2, 2)), np.full((2, 3, 3), np.inf)], "image 1 .* inf at row 0, column 0"),
    ],
)
def test_values_that_are_not_finite_are_refused_with_their_place(given, message):
    with pytest.raises(DataError, match=message):
        read_pixels(given)


def test_rows_that_do_not_fit_their_shape_are_refused():
    for shape in ((3, 5), (5, -1), (2, 4, 3)):
        with pytest.raises(DataError, match=re.escape(f"rows of 16 values are not images of image_shape={shape}")):
            read_pixels(ROWS, shape)


def test_what_is_given_stays_as_it_is():
    given = [WHOLE.copy(), IMAGES.copy()]
    for images in given:
        images.flags.writeable = False
        read_pixels(images)
    assert np.array_equal(given[0], WHOLE)
