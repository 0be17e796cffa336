import io

import numpy as np
import pytest
from PIL import Image

from featbench.report.filters import BACKGROUND, GAP, TILE, draw_filters, filters_png


def tiles(picture, rows, columns):
    """Cut a picture of filters into its tiles; what lies between them must be background."""
    pixels = np.asarray(picture).astype(int)
    height = (pixels.shape[0] - GAP) // rows - GAP
    width = (pixels.shape[1] - GAP) // columns - GAP
    assert pixels.shape == (GAP + rows * (height + GAP), GAP + columns * (width + GAP))
    cut, rest = [], np.ones(pixels.shape, dtype=bool)
    for row in range(rows):
        for column in range(columns):
            place = np.s_[
                GAP + row * (height + GAP) : (row + 1) * (height + GAP),
                GAP + column * (width + GAP) : (column + 1) * (width + GAP),
            ]
            cut.append(pixels[place])
            rest[place] = False
    assert (pixels[rest] == BACKGROUND).all()
    return cut


def shrink(tile, size):
    """Return one pixel for each weight; all pixels of a weight must be alike."""
    zoom = tile.shape[0] // size
    assert tile.shape == (size * zoom, size * zoom)
    blocks = tile.reshape(size, zoom, size, zoom)
    assert (blocks == blocks[:, :1, :, :1]).all()
    return blocks[:, 0, :, 0]


def test_each_filter_is_scaled_by_its_own_largest_magnitude():
    weight = np.zeros((2, 1, 2, 2))
    weight[0, 0] = [[1, -1], [0, 0.5]]
    weight[1, 0] = [[0.01, 0], [0.02, -0.01]]
    first, second = (shrink(tile, 2) for tile in tiles(draw_filters(weight), 1, 2))
    assert first[0].tolist() == [255, 0]
    assert abs(first[1, 0] - 127.5) <= 0.5
    assert first[1, 1] == 191
    assert second[1, 0] == 255
    assert second[0, 0] == 191
    assert second[1, 1] == 64


def test_zero_is_mid_grey_and_blank_filters_are_drawn():
    (tile,) = tiles(draw_filters(np.zeros((1, 1, 3, 3))), 1, 1)
    assert set(np.unique(tile)) <= {127, 128}


@pytest.mark.parametrize("filters, rows, columns", [(1, 1, 1), (2, 1, 2), (4, 2, 2), (5, 2, 3), (64, 8, 8)])
def test_filters_on_one_map_fill_a_grid_row_by_row(filters, rows, columns):
    weight = np.zeros((filters, 1, 3, 3))
    # Each filter has its own pattern: its number in bits.
    for number in range(filters):
        weight[number, 0] = 1 - 2 * ((number >> np.arange(9)) & 1).reshape(3, 3)
    cut = tiles(draw_filters(weight), rows, columns) if filters == rows * columns else None
    picture = np.asarray(draw_filters(weight))
    side = (picture.shape[1] - GAP) // columns - GAP
    assert picture.shape[0] == GAP + rows * (side + GAP)
    for number in range(filters):
        row, column = divmod(number, columns)
        top, left = GAP + row * (side + GAP), GAP + column * (side + GAP)
        shades = shrink(picture[top : top + side, left : left + side].astype(int), 3)
        assert np.array_equal(shades > 127, weight[number, 0] > 0)
        assert cut is None or np.array_equal(shrink(cut[number], 3), shades)


def test_filters_on_several_maps_take_a_row_each():
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(3, 5, 4, 4))
    cut = tiles(draw_filters(weight), 3, 5)
    for number, tile in enumerate(cut):
        filter_, map_ = divmod(number, 5)
        # One scale for all maps of a filter.
        expected = 127.5 + 127.5 * weight[filter_, map_] / np.abs(weight[filter_]).max()
        assert np.abs(shrink(tile, 4) - expected).max() <= 0.5


@pytest.mark.parametrize("size", [1, 3, 5, 9, 16])
def test_small_filters_are_enlarged_by_whole_pixels(size):
    (tile,) = tiles(draw_filters(np.ones((1, 1, size, size))), 1, 1)
    assert tile.shape[0] % size == 0
    assert TILE <= tile.shape[0] < TILE + size


def test_filters_larger_than_a_tile_keep_their_size():
    (tile,) = tiles(draw_filters(np.ones((1, 1, 50, 50))), 1, 1)
    assert tile.shape == (50, 50)


def test_the_png_file_is_the_drawing():
    weight = np.random.default_rng(0).normal(size=(6, 1, 5, 5)).astype(np.float32)
    data = filters_png(weight)
    assert data.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(data)) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(draw_filters(weight)))
    assert filters_png(weight) == data


@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (1, 6), (6, 1)])
def test_filters_on_one_map_fill_the_grid_that_is_given(grid):
    weight = np.random.default_rng(0).normal(size=(6, 1, 4, 4))
    cut = tiles(draw_filters(weight, grid), *grid)
    for number, tile in enumerate(cut):
        expected = 127.5 + 127.5 * weight[number, 0] / np.abs(weight[number]).max()
        assert np.abs(shrink(tile, 4) - expected).max() <= 0.5


def test_filters_on_red_green_and_blue_are_drawn_in_colour():
    weight = np.random.default_rng(0).normal(size=(5, 3, 4, 4))
    weight[4] = 0
    picture = draw_filters(weight, colour=True)
    assert picture.mode == "RGB"
    bands = [tiles(picture.getchannel(band), 2, 3) for band in "RGB"]
    for number in range(4):
        expected = 127.5 + 127.5 * weight[number] / np.abs(weight[number]).max()
        drawn = np.stack([shrink(band[number], 4) for band in bands])
        assert np.abs(drawn - expected).max() <= 0.5
    assert all(set(np.unique(band[4])) <= {127, 128} for band in bands)
    assert all((band[5] == BACKGROUND).all() for band in bands)


def test_filters_in_colour_fill_the_grid_that_is_given():
    weight = np.random.default_rng(0).normal(size=(6, 3, 4, 4))
    picture = draw_filters(weight, (1, 6), colour=True)
    assert len(tiles(picture.getchannel("G"), 1, 6)) == 6
    with Image.open(io.BytesIO(filters_png(weight, (1, 6), colour=True))) as file:
        assert np.array_equal(np.asarray(file), np.asarray(picture))


def test_a_filter_of_three_equal_maps_is_as_grey_as_that_of_one():
    weight = np.random.default_rng(0).normal(size=(6, 1, 5, 5))
    grey, colour = draw_filters(weight), draw_filters(weight.repeat(3, axis=1), colour=True)
    assert all(np.array_equal(np.asarray(colour.getchannel(band)), np.asarray(grey)) for band in "RGB")


def test_three_maps_of_a_later_stage_are_no_colours():
    weight = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    assert draw_filters(weight).mode == "L"
    with pytest.raises(ValueError, match="filters in colour see 3 maps, not 2"):
        draw_filters(weight[:, :2], colour=True)
