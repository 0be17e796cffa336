import math

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.normalization_kernels import compute_moments
from featbench.cuda.triton_operations import TritonOperations
from featbench.operations.reference import Reference, Responses
from featbench.stages.normalization import LocalNormalisation

HALVES = {"subtractive": {"divisive": False}, "divisive": {"subtractive": False}, "both": {}}


def normed(y, norm):
    """What N of the reference finds in float64."""
    return Reference().statistics(Responses(y.double()), norm)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("halves", HALVES)
@pytest.mark.parametrize(
    ("n", "maps", "height", "width", "size"),
    [(1, 3, 17, 16, 9), (1, 1, 5, 6, 5), (2, 65, 4, 3, 9), (1, 130, 7, 1, 3), (1, 2, 1, 1, 1)],
)
def test_statistics_are_those_of_the_reference(randn, error, n, maps, height, width, size, halves, zeros):
    y = (0.5 + randn(n, maps, height, width)).contiguous(memory_format=torch.channels_last)
    norm = LocalNormalisation(size, zeros=zeros, **HALVES[halves])
    ours = TritonOperations().statistics(Responses(y), norm)
    # σ of a single map is a difference of numbers that are nearly equal; its error is measured by their size.
    spread = y.double().square().mean().sqrt() / math.sqrt(n * height * width)
    for found, expected in zip(ours, normed(y, norm), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.dtype == torch.float32
            distance = torch.linalg.vector_norm(found.double() - expected)
            assert distance <= 1e-5 * torch.linalg.vector_norm(expected) + (1e-4 * spread if maps < 3 else 0)


def test_moments_that_are_given_are_used(randn, error):
    y, norm = randn(2, 4, 9, 8), LocalNormalisation(5)
    mean, square = y.mean(dim=1, keepdim=True), y.square().mean(dim=1, keepdim=True)
    for found, expected in zip(
        TritonOperations().statistics(Responses(torch.zeros_like(y), mean, square), norm), normed(y, norm), strict=True
    ):
        assert error(found, expected) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("last", [True, False])
def test_moments_of_maps_of_any_type_and_order(randn, error, dtype, last):
    y = randn(2, 70, 6, 7).to(dtype)
    y = y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    mean, square = compute_moments(y)
    assert error(mean, y.double().mean(dim=1, keepdim=True)) <= 1e-6
    assert error(square, y.double().square().mean(dim=1, keepdim=True)) <= 1e-6


def test_a_blank_image_is_divided_by_no_rounding_error(device):
    y = torch.stack([torch.full((3, 10, 11), 0.7), torch.zeros(3, 10, 11)]).to(device)
    shift, scale = TritonOperations().statistics(Responses(y), LocalNormalisation())
    assert torch.allclose(shift[0], torch.full_like(shift[0], 0.7), rtol=1e-6)
    assert ((y - shift) / scale).abs().max() <= 0.02
    assert torch.equal(shift[1], torch.zeros_like(shift[1]))
    assert (scale > 0).all()


def test_an_image_gives_the_same_bits_in_every_batch(randn):
    y, norm, ours = randn(3, 5, 18, 17), LocalNormalisation(5), TritonOperations()
    together = ours.statistics(Responses(y), norm)
    for i in range(3):
        alone = ours.statistics(Responses(y[i : i + 1]), norm)
        assert all(torch.equal(one[0], all_of_them[i]) for one, all_of_them in zip(alone, together, strict=True))


def test_a_nan_is_not_hidden(randn):
    y = randn(1, 3, 12, 12)
    y[0, 1, 6, 6] = math.nan
    _, scale = TritonOperations().statistics(Responses(y), LocalNormalisation(5, subtractive=False))
    assert scale.isnan().all()
