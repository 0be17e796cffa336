"""Pictures of confusion matrices and contact sheets, read back."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from featbench.report.confusion_picture import draw_confusions_png
from featbench.report.contact_sheet import SIDE, Tile, draw_contact_sheet_png


def decode(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def count_pixels(pixels, test):
    red, green, blue = pixels.transpose(2, 0, 1)
    return int(test(red, green, blue).sum())


@pytest.mark.parametrize("classes", [2, 3, 10, 30, 31, 102])
def test_a_matrix_has_a_blue_diagonal_and_grows_with_its_classes(classes):
    pixels = decode(draw_confusions_png(np.diag(np.full(classes, 7)), [f"class {k}" for k in range(classes)]))
    blue = count_pixels(pixels, lambda r, g, b: (b > 90) & (r < 40))
    assert blue > 60 * classes
    assert count_pixels(pixels, lambda r, g, b: r > b + 60) == 0
    assert max(pixels.shape[:2]) < 2400
    # A cell is 0.15 inches wide at least: a name's letters fit beside it.
    assert pixels.shape[1] > classes * 13


@pytest.mark.parametrize("classes", [151, 1000])
def test_the_matrix_of_many_classes_is_no_larger(classes):
    pixels = decode(draw_confusions_png(np.diag(np.full(classes, 7)), [f"class {k}" for k in range(classes)]))
    assert max(pixels.shape[:2]) < 2400
    assert count_pixels(pixels, lambda r, g, b: (b > 90) & (r < 40)) > classes


def test_wrong_predictions_are_orange():
    pixels = decode(draw_confusions_png(np.array([[0, 4], [4, 0]]), ["a", "b"]))
    assert count_pixels(pixels, lambda r, g, b: r > b + 60) > 1000
    assert count_pixels(pixels, lambda r, g, b: b > r + 60) == 0


@pytest.mark.parametrize(
    "name", ["$x^2$", "$", "\\frac{", "日本語", "😀", "a\nb", "\udcfc", "", "x" * 300, "<b>", "%", "שלום"]
)
def test_any_name_can_be_drawn_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = draw_confusions_png(np.eye(2, dtype=int), [name, "b"])
        sheet = draw_contact_sheet_png(name, [Tile(Image.new("RGB", (9, 9)), ((name, (0, 0, 0)),))])
    assert max(decode(matrix).shape) < 800
    assert decode(sheet).shape[1] < 5 * (SIDE + 20)


def test_a_class_without_tests_is_a_white_row():
    pixels = decode(draw_confusions_png(np.array([[3, 0], [0, 0]]), ["a", "b"]))
    assert count_pixels(pixels, lambda r, g, b: r > b + 60) == 0


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 96])
def test_a_sheet_holds_every_picture(count):
    tiles = [Tile(Image.new("RGB", (SIDE, 50), (255, 0, 0)), (("x", (0, 0, 0)),)) for _ in range(count)]
    pixels = decode(draw_contact_sheet_png("title", tiles))
    red = count_pixels(pixels, lambda r, g, b: (r == 255) & (g == 0) & (b == 0))
    assert red == count * SIDE * 50


def test_a_picture_lies_in_the_middle_of_its_square():
    pixels = decode(draw_contact_sheet_png("t", [Tile(Image.new("RGB", (4, SIDE), (255, 0, 0)), ())]))
    rows, columns = np.nonzero((pixels == (255, 0, 0)).all(axis=2))
    assert np.ptp(rows) + 1 == SIDE
    assert np.ptp(columns) + 1 == 4
    assert columns.min() == 12 + (SIDE - 4) // 2
