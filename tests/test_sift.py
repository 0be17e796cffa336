import math

import numpy as np
import pytest
import torch

from featbench.sift import LENGTH, cell_weights, dense_sift, normalise, oriented_gradients


def plain_descriptor(image, top, left, size):
    """One descriptor by loops over pixels, cells and orientations, as Lowe's paper describes it."""
    down, right = np.gradient(image)
    histogram = np.zeros((4, 4, 8))
    side = size / 4
    for y in range(size):
        for x in range(size):
            dy, dx = down[top + y, left + x], right[top + y, left + x]
            window = math.exp(-((y + 0.5 - size / 2) ** 2 + (x + 0.5 - size / 2) ** 2) / (2 * (size / 2) ** 2))
            angle = (math.atan2(dy, dx) % (2 * math.pi)) / (math.pi / 4)
            for row in range(4):
                for column in range(4):
                    a = max(0, 1 - abs((y + 0.5) / side - (row + 0.5)))
                    b = max(0, 1 - abs((x + 0.5) / side - (column + 0.5)))
                    for orientation in range(8):
                        apart = min(abs(angle - orientation), 8 - abs(angle - orientation))
                        histogram[row, column, orientation] += a * b * max(0, 1 - apart) * window * math.hypot(dy, dx)
    flat = histogram.ravel()
    flat = np.minimum(flat / np.linalg.norm(flat), 0.2)
    return flat / np.linalg.norm(flat)


@pytest.mark.parametrize("size, step", [(16, 8), (16, 3), (8, 5), (12, 7)])
def test_descriptors_are_those_of_a_plain_loop(size, step):
    images = np.random.default_rng(0).normal(size=(2, 25, 31))
    found = dense_sift(torch.from_numpy(images).float(), size, step).numpy()
    tops, lefts = range(0, 25 - size + 1, step), range(0, 31 - size + 1, step)
    assert found.shape == (2, len(tops), len(lefts), LENGTH)
    for n, image in enumerate(images):
        for row, top in enumerate(tops):
            for column, left in enumerate(lefts):
                expected = plain_descriptor(image, top, left, size)
                assert np.abs(found[n, row, column] - expected).max() < 1e-5


@pytest.mark.parametrize("direction", range(8))
def test_a_ramp_lights_its_own_orientation_alone(direction):
    angle = direction * math.pi / 4
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    maps = oriented_gradients((math.cos(angle) * x + math.sin(angle) * y)[None])
    expected = torch.zeros(8)
    expected[direction] = 1
    assert torch.allclose(maps, expected.view(1, 8, 1, 1).expand_as(maps), atol=1e-4)


def test_a_gradient_between_two_orientations_is_shared():
    angle = 0.25 * math.pi / 4
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    maps = oriented_gradients((math.cos(angle) * x + math.sin(angle) * y)[None])
    assert maps[0, :, 2, 2].tolist() == pytest.approx([0.75, 0.25, 0, 0, 0, 0, 0, 0], abs=1e-5)


def test_contrast_and_brightness_change_nothing():
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 20, 20))).float()
    assert torch.allclose(dense_sift(image), dense_sift(3 * image - 7), atol=1e-5)


def test_blank_patches_are_zero_and_faint_ones_may_keep_their_norm():
    blank = dense_sift(torch.full((1, 16, 16), 3.0))
    assert (blank == 0).all()
    faint = 1e-4 * torch.from_numpy(np.random.default_rng(1).normal(size=(1, 16, 16))).float()
    assert dense_sift(faint).norm() == pytest.approx(1, abs=1e-5)
    assert 0 < dense_sift(faint, floor=1.0).norm() < 0.01
    assert dense_sift(1e6 * faint, floor=1.0).norm() == pytest.approx(1, abs=1e-5)


def test_a_dominant_number_is_clipped_once():
    given = torch.zeros(128)
    given[:2] = torch.tensor([3.0, 0.3])
    found = normalise(given)
    kept = 0.3 / math.hypot(3, 0.3)
    assert found[:2].tolist() == pytest.approx([0.2 / math.hypot(0.2, kept), kept / math.hypot(0.2, kept)])


def test_the_weights_fall_off_from_the_cells_centres():
    weights = cell_weights(16).double()
    gaussian = torch.exp(-0.5 * ((torch.arange(16) + 0.5 - 8) / 8) ** 2).double()
    # Between the outer centres every pixel is shared out fully.
    assert torch.allclose(weights.sum(dim=0)[2:14], gaussian[2:14], atol=1e-6)
    assert torch.allclose(weights, weights.flip(0, 1))


@pytest.mark.parametrize("size", [3, 17, 40])
def test_patches_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match=f"patches of {size}×{size} do not fit images of 16×20"):
        dense_sift(torch.zeros(1, 16, 20), size)
