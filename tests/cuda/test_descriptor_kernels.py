import math

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.triton_operations import TritonOperations
from featbench.features.descriptors import HOG, SIFT
from featbench.operations.reference import Reference
from featbench.stages.oriented_gradients import Histograms


@pytest.mark.parametrize(
    ("kind", "n", "height", "width", "size", "step"),
    [
        (SIFT, 2, 17, 22, 16, 5),
        (SIFT, 1, 6, 7, 4, 1),
        (HOG, 2, 18, 17, 16, 8),
        (HOG, 1, 9, 10, 5, 3),
        (Histograms(3, 6, signed=True), 1, 21, 20, 19, 1),  # no power of two, more pixels than a block's least
        (Histograms(1, 4, signed=False), 1, 6, 7, 2, 2),
        (Histograms(2, 5, signed=True, first=0.5), 1, 7, 7, 7, 1),
        (Histograms(1, 8, signed=True), 1, 2, 2, 1, 1),
    ],
)
def test_descriptors_are_those_of_the_reference(randn, error, kind, n, height, width, size, step):
    images = randn(n, height, width)
    ours = TritonOperations().descriptors(images, kind, size, step)
    assert ours.shape[-1] == kind.length
    assert error(ours, Reference().descriptors(images.double(), kind, size, step)) <= 1e-5


@pytest.mark.parametrize("kind", [SIFT, HOG])
def test_a_ramp_of_every_direction(device, kind):
    """Directions on the bins and between them, and along both axes, where a quotient is zero or has no value."""
    angles = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    rows, columns = torch.meshgrid(torch.arange(8.0).double(), torch.arange(8.0).double(), indexing="ij")
    ramps = torch.cos(angles)[:, None, None] * columns - torch.sin(angles)[:, None, None] * rows
    ours = TritonOperations().descriptors(ramps.float().to(device), kind, 8, 1).cpu().double()
    histogram = ours.view(32, kind.cells**2, kind.orientations).sum(dim=1)
    turn = 2 * math.pi if kind.signed else math.pi
    position = (angles % turn) / turn * kind.orientations - kind.first
    apart = (position[:, None] - torch.arange(kind.orientations)).abs()
    expected = (1 - torch.minimum(apart, kind.orientations - apart)).clamp_min(0)
    assert torch.allclose(histogram / histogram.sum(dim=1, keepdim=True), expected, atol=2e-6)


@pytest.mark.parametrize("kind", [SIFT, HOG])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7])
def test_a_blank_image_has_no_gradients(device, kind, value):
    ours = TritonOperations().descriptors(torch.full((1, 16, 17), value, device=device), kind, 16, 1)
    assert torch.equal(ours, torch.zeros_like(ours))


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_contrasts_that_square_to_nothing_or_infinity(randn, error, scale):
    images = scale * 10 * randn(1, 9, 9)
    ours = TritonOperations().descriptors(images, SIFT, 8, 1)
    assert error(ours, Reference().descriptors(images.double(), SIFT, 8, 1)) <= 1e-5


def test_an_image_gives_the_same_bits_in_every_batch(randn):
    images, ours = randn(3, 12, 9), TritonOperations()
    together = ours.descriptors(images, SIFT, 8, 4)
    assert all(torch.equal(ours.descriptors(images[i : i + 1], SIFT, 8, 4)[0], together[i]) for i in range(3))


def test_images_may_lie_in_memory_as_they_like(randn):
    images, ours = randn(2, 14, 12)[:, ::2, ::2], TritonOperations()
    assert torch.equal(ours.descriptors(images, HOG, 4, 2), ours.descriptors(images.contiguous(), HOG, 4, 2))


def test_patches_that_do_not_fit_are_refused(randn):
    with pytest.raises(ValueError, match="do not fit"):
        TritonOperations().descriptors(randn(1, 9, 20), SIFT, 16, 8)
