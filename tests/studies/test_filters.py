import numpy as np
import pytest

from featbench.studies.filters import _measure_neighbours, _measure_shape

SIZE = 16


def grid():
    return np.meshgrid(np.arange(SIZE) - SIZE / 2, np.arange(SIZE) - SIZE / 2, indexing="ij")


def gabor(width, frequency=0.25, angle=0.3):
    down, right = grid()
    wave = np.cos(2 * np.pi * frequency * (np.cos(angle) * right + np.sin(angle) * down))
    return np.exp(-(down**2 + right**2) / (2 * width**2)) * wave


def test_area_counts_the_pixels_that_hold_the_energy():
    one_pixel, all_pixels = np.zeros((1, SIZE, SIZE)), np.ones((1, SIZE, SIZE))
    one_pixel[0, 3, 5] = -2
    assert _measure_shape(one_pixel)["area"] == 1 / SIZE**2
    # 230.4 of 256 equal pixels are needed.
    assert _measure_shape(all_pixels)["area"] == 231 / SIZE**2


def test_a_grating_is_oriented_and_what_looks_the_same_in_all_directions_is_not():
    down, right = grid()
    radius = np.hypot(down, right)
    ring = np.cos(radius) * np.exp(-(radius**2) / 18)
    assert _measure_shape(gabor(5)[None])["orientation"] > 0.9
    assert _measure_shape(ring[None])["orientation"] < 0.05


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5])
def test_a_gabor_of_larger_envelope_has_a_narrower_band(angle):
    bands = [_measure_shape(gabor(width, angle=angle)[None])["bandwidth"] for width in (1.5, 2.5, 4)]
    assert bands == sorted(bands, reverse=True)
    # Gaussian of standard deviation 1 / (2π 2.5) cycles around a quarter: log₂ is nearly linear there.
    expected = 2 * np.sqrt(2 * np.log(2)) / (2 * np.pi * np.sqrt(2) * 2.5) / 0.25 / np.log(2)
    assert bands[1] == pytest.approx(expected, rel=0.15)


def test_neighbours_touch_on_a_torus():
    # Filters of one row of the map are the same, those of different rows have nothing in common.
    weight = np.zeros((6, 2, 2))
    for row in range(3):
        weight[2 * row : 2 * row + 2].reshape(2, 4)[:, row] = 1
    found = _measure_neighbours(weight, (3, 2))
    assert found["neighbours"] == pytest.approx(0.5)
    assert found["random pairs"] == pytest.approx(6 / 30)
    assert _measure_neighbours(weight, None)["neighbours"] is None
