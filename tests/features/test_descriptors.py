import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import featbench.features.descriptors as module
from featbench.datasets.caltech101 import FOLDER, PARENTS
from featbench.features.descriptors import HOG, SIFT, dense_hog, dense_sift
from featbench.stages.oriented_gradients import compute_cell_weights, normalise

REAL = Path(os.environ.get("FEATBENCH_DATA") or "nowhere")
CALTECH = next((REAL / parent / FOLDER for parent in PARENTS if (REAL / parent / FOLDER).is_dir()), None)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def begins(side, size, step):
    """Where patches begin along a side: the grid leaves as much on the left as on the right, or a pixel less."""
    return range((side - size) % step // 2, side - size + 1, step)


def plain_descriptor(image, top, left, size, cells, orientations, span, first):
    """One descriptor by loops over pixels, cells and orientations, as Lowe's paper describes it."""
    down, right = np.gradient(image)
    histogram = np.zeros((cells, cells, orientations))
    side, middle = size / cells, size / 2
    for y in range(size):
        for x in range(size):
            dy, dx = down[top + y, left + x], right[top + y, left + x]
            window = math.exp(-((y + 0.5 - middle) ** 2 + (x + 0.5 - middle) ** 2) / (2 * middle**2))
            position = (math.atan2(-dy, dx) % span) / span * orientations - first
            for row in range(cells):
                a = max(0, 1 - abs((y + 0.5) / side - (row + 0.5)))
                for column in range(cells):
                    b = max(0, 1 - abs((x + 0.5) / side - (column + 0.5)))
                    for k in range(orientations):
                        apart = abs(position - k) % orientations
                        share = max(0, 1 - min(apart, orientations - apart))
                        histogram[row, column, k] += a * b * share * window * math.hypot(dy, dx)
    flat = histogram.ravel()
    flat = np.minimum(flat / np.linalg.norm(flat), 0.2)
    return flat / np.linalg.norm(flat)


def check_plain(images, found, size, step, tolerance, *how):
    tops, lefts = begins(images.shape[1], size, step), begins(images.shape[2], size, step)
    assert found.shape[:3] == (len(images), len(tops), len(lefts))
    for n, image in enumerate(images.double().numpy()):
        for row, top in enumerate(tops):
            for column, left in enumerate(lefts):
                expected = plain_descriptor(image, top, left, size, *how)
                np.testing.assert_allclose(found[n, row, column].numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize(("size", "step"), [(16, 8), (16, 5), (8, 5), (10, 7), (4, 9)])
def test_descriptors_are_those_of_a_plain_loop(size, step, dtype, tolerance):
    images = noise(2, 18, 21, dtype=dtype)
    check_plain(images, dense_sift(images, size, step), size, step, tolerance, 4, 8, 2 * math.pi, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("cell", [8, 3])
def test_hog_is_that_of_a_plain_loop(cell, dtype, tolerance):
    images = noise(2, 18, 25, dtype=dtype)
    check_plain(images, dense_hog(images, cell), 2 * cell, cell, tolerance, 2, 9, math.pi, 0.5)


def ramp(degrees, side=40):
    """Grey values that rise in one direction, counter-clockwise from the right."""
    y, x = np.mgrid[:side, :side]
    angle = math.radians(degrees)
    return math.cos(angle) * x - math.sin(angle) * y


@pytest.mark.parametrize("direction", range(8))
def test_a_ramp_lights_its_own_orientation_alone(direction):
    found = dense_sift(torch.from_numpy(ramp(45 * direction))[None]).unflatten(-1, (4, 4, 8))
    assert (found[..., direction] > 0.1).all()
    assert found[..., [k for k in range(8) if k != direction]].abs().max() < 1e-12


@pytest.mark.parametrize("turned", [0, 180])
@pytest.mark.parametrize("direction", range(9))
def test_opposite_ramps_light_one_orientation_of_hog(direction, turned):
    found = dense_hog(torch.from_numpy(ramp(10 + 20 * direction + turned))[None]).unflatten(-1, (2, 2, 9))
    assert (found[..., direction] > 0.1).all()
    assert found[..., [k for k in range(9) if k != direction]].abs().max() < 1e-12


def test_a_gradient_between_two_orientations_is_shared():
    image = torch.from_numpy(ramp(0.25 * 45, side=5)).unsqueeze(1)
    assert SIFT.compute_oriented_gradients(image)[2, 0, :, 2].tolist() == pytest.approx([0.75, 0.25, 0, 0, 0, 0, 0, 0])


def test_a_quarter_turn_of_the_image_permutes_cells_and_orientations():
    image = noise(1, 40, 32, dtype=torch.float64)
    found = dense_sift(image).unflatten(-1, (4, 4, 8))
    turned = dense_sift(image.rot90(1, (1, 2))).unflatten(-1, (4, 4, 8))
    assert torch.allclose(turned, found.rot90(1, (1, 2)).rot90(1, (3, 4)).roll(2, -1), atol=1e-12)


def greys():
    """Real photographs, uint8 [height, width]."""
    pictures = [Image.fromarray(pixels).convert("L").reduce(2) for pixels in load_sample_images().images]
    if CALTECH is not None:
        pictures += [Image.open(file).convert("L") for file in sorted(CALTECH.rglob("*.jpg"))[300::1500]]
    return [np.array(picture) for picture in pictures]


def opencv_sift(grey, size, step):
    """OpenCV's upright descriptors of one scale, at the pixels right below the centres of our patches."""
    tops, lefts = (begins(side, size, step) for side in grey.shape)
    middle = size // 2
    # OpenCV's cells are 3/2 of a keypoint's size. An angle of 0 keeps patches upright; an octave of 0, this scale.
    places = [
        cv2.KeyPoint(float(left + middle), float(top + middle), size / 6, 0, 0, 0) for top in tops for left in lefts
    ]
    kept, found = cv2.SIFT_create(nOctaveLayers=1, sigma=0.5).compute(grey, places)
    assert len(kept) == len(places)
    return found.reshape(len(tops), len(lefts), 128)


def opencv_hog(grey, gaussian):
    """OpenCV's blocks [rows, columns, 36] in our order, of the pixels that our grid covers."""
    (top, height), (left, width) = ((side % 8 // 2, side // 8 * 8) for side in grey.shape)
    window = np.ascontiguousarray(grey[top : top + height, left : left + width])
    hog = cv2.HOGDescriptor(
        (width, height), (16, 16), (8, 8), (8, 8), 9, 1, gaussian, cv2.HOGDescriptor_L2Hys, 0.2, False
    )
    # Columns come first there, of blocks and of cells; angles are clockwise.
    blocks = hog.compute(window).reshape(width // 8 - 1, height // 8 - 1, 2, 2, 9)
    return blocks.transpose(1, 0, 3, 2, 4)[..., ::-1].reshape(height // 8 - 1, width // 8 - 1, 36)


def correlations(ours, theirs):
    """The correlation of each pair of descriptors, without the blank ones."""
    length = ours.shape[-1]
    pairs = [x.reshape(-1, length).astype(np.float64) for x in (ours.numpy(), theirs)]
    textured = pairs[0].any(axis=1) & pairs[1].any(axis=1)
    a, b = (x[textured] - x[textured].mean(axis=1, keepdims=True) for x in pairs)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# OpenCV centres a patch on a pixel, and ours lie between pixels where the side is even.
@pytest.mark.parametrize(("size", "mean", "low"), [(16, 0.95, 0.88), (17, 0.98, 0.94), (32, 0.97, 0.91)])
@pytest.mark.parametrize("step", [8, 4])
def test_real_images_have_the_descriptors_of_opencv(size, step, mean, low):
    images = [torch.from_numpy(grey).float() for grey in greys()]
    found = [
        correlations(dense_sift(image[None], size, step)[0], opencv_sift(grey, size, step))
        for image, grey in zip(images, greys(), strict=True)
    ]
    assert np.concatenate(found).mean() >= mean
    assert np.percentile(np.concatenate(found), 5) >= low


@pytest.mark.parametrize("direction", range(8))
def test_orientations_have_the_order_of_opencv(direction):
    grey = np.round(128 + 3 * (ramp(45 * direction) - ramp(45 * direction).mean())).astype(np.uint8)
    theirs, ours = opencv_sift(grey, 16, 8), dense_sift(torch.from_numpy(grey).float()[None])[0].numpy()
    assert theirs.reshape(-1, 8).sum(axis=0).argmax() == ours.reshape(-1, 8).sum(axis=0).argmax() == direction


# The Gaussian of half a block's side is that of Dalal and Triggs; -1 stands for OpenCV's own, of a quarter.
@pytest.mark.parametrize(("gaussian", "mean", "low"), [(8, 0.99, 0.97), (-1, 0.94, 0.85)])
def test_real_images_have_the_hog_of_opencv(gaussian, mean, low):
    found = [
        correlations(dense_hog(torch.from_numpy(grey).float()[None])[0], opencv_hog(grey, gaussian)) for grey in greys()
    ]
    assert np.concatenate(found).mean() >= mean
    assert np.percentile(np.concatenate(found), 5) >= low


@pytest.mark.parametrize("describe", [dense_sift, dense_hog])
def test_contrast_and_brightness_change_nothing(describe):
    image = noise(1, 20, 20)
    assert torch.allclose(describe(image), describe(3 * image - 7), atol=1e-5)


@pytest.mark.parametrize("describe", [dense_sift, dense_hog])
@pytest.mark.parametrize("level", [0.0, 200.0, 1e6])
def test_blank_patches_are_zero(describe, level):
    images = torch.full((2, 40, 40), level)
    images[1, :, 30:] = level / 2 + 1
    found = describe(images)
    assert (found[0] == 0).all()
    assert (found[1, :, :2] == 0).all()
    assert found[1, :, -1].norm(dim=-1).tolist() == pytest.approx([1] * found.shape[1])


def test_patches_that_are_blank_but_for_rounding_are_zero():
    image = 200 * (1 + 1e-7 * noise(1, 24, 24))
    assert (image != 200).any()
    assert (dense_sift(image) == 0).all()
    image[0, 12, 12] += 1  # one grey level is more than rounding
    assert torch.allclose(dense_sift(image).norm(dim=-1), torch.ones(1, 2, 2))


def test_faint_patches_keep_their_norm_in_units_of_the_floor():
    image = noise(1, 16, 16)
    unit = dense_sift(image)
    assert unit.norm() == pytest.approx(1, abs=1e-6)
    # The norm before normalisation is where the floor begins to matter.
    norm = float(SIFT.pool(SIFT.compute_oriented_gradients(image.transpose(0, 1)), 16, 8).norm())
    assert torch.equal(dense_sift(image, floor=0.99 * norm), unit)
    for floor in (1.0001 * norm, 2 * norm, 100 * norm):
        assert torch.allclose(dense_sift(image, floor=floor), unit * norm / floor, atol=1e-6)


def test_a_dominant_number_is_clipped_once():
    given = torch.zeros(128)
    given[:2] = torch.tensor([3.0, 0.3])
    kept = 0.3 / math.hypot(3, 0.3)
    expected = [0.2 / math.hypot(0.2, kept), kept / math.hypot(0.2, kept)]
    assert normalise(given)[:2].tolist() == pytest.approx(expected)


def test_the_weights_fall_off_from_the_cells_centres():
    weights = compute_cell_weights(16, 4)
    gaussian = torch.exp(-0.5 * ((torch.arange(16) + 0.5 - 8) / 8) ** 2).double()
    # Between the outer centres every pixel is shared out fully.
    assert torch.allclose(weights.sum(dim=0)[2:14], gaussian[2:14], atol=1e-6)
    assert torch.allclose(weights, weights.flip(0, 1))


@pytest.mark.parametrize("describe", [dense_sift, dense_hog])
@pytest.mark.parametrize("block", [1, 10_000, 2**20])
def test_an_image_has_the_same_descriptors_in_any_batch(describe, block, monkeypatch):
    images = noise(5, 33, 47)
    alone = torch.cat([describe(image[None]) for image in images])
    monkeypatch.setattr(module, "BLOCK_VALUES", {"cpu": block})
    assert torch.allclose(describe(images), alone, atol=1e-6)
    assert torch.allclose(describe(images.flip(0)).flip(0), alone, atol=1e-6)


def test_images_are_left_as_they_are():
    images = noise(2, 20, 20)
    before = images.clone()
    dense_sift(images)
    dense_hog(images.transpose(1, 2))
    assert torch.equal(images, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("describe", [dense_sift, dense_hog])
def test_a_gpu_gives_the_same_descriptors(describe):
    images = noise(3, 40, 56)
    assert torch.allclose(describe(images.cuda()).cpu(), describe(images), atol=1e-5)


@pytest.mark.parametrize("size", [17, 40])
def test_patches_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match=f"patches of {size}×{size} do not fit images of 16×20"):
        dense_sift(torch.zeros(1, 16, 20), size)


@pytest.mark.parametrize(("size", "step"), [(3, 8), (16, 0)])
def test_sizes_and_steps_that_make_no_grid_are_refused(size, step):
    with pytest.raises(ValueError, match=f"size ≥ 4 and step ≥ 1 are needed, not {size} and {step}"):
        dense_sift(torch.zeros(1, 16, 20), size, step)


def test_lengths():
    assert (SIFT.length, HOG.length) == (128, 36)
