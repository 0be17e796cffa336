import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.autograd import gradcheck

from featbench.stages.normalization import LocalNormalisation, gaussian_window, local_contrast_normalise

PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
SHAPES = [(2, 3, 13, 11), (1, 1, 9, 9), (2, 4, 5, 3), (1, 2, 1, 1), (1, 64, 12, 15)]
KINDS = {"N": (True, True), "Nsub": (True, False), "Ndiv": (False, True)}

reproducible = settings(derandomize=True, deadline=None, database=None, max_examples=30)


def module(kind, size=9, zeros=False):
    subtractive, divisive = KINDS[kind]
    return LocalNormalisation(size, subtractive=subtractive, divisive=divisive, zeros=zeros)


def written_window(size):
    sigma, middle = 1.591 * size / 9, size // 2
    window = [
        [math.exp(-((p - middle) ** 2 + (q - middle) ** 2) / (2 * sigma**2)) for q in range(size)] for p in range(size)
    ]
    total = sum(map(sum, window))
    return [[weight / total for weight in row] for row in window]


def weighted_mean(image, window, zeros=False):
    maps, height, width = image.shape
    middle = len(window) // 2
    out = np.zeros((height, width))
    for j in range(height):
        for k in range(width):
            total = weight = 0.0
            for p, row in enumerate(window):
                for q, w in enumerate(row):
                    y, x = j + p - middle, k + q - middle
                    if 0 <= y < height and 0 <= x < width:
                        total += w * image[:, y, x].sum() / maps
                        weight += w
            out[j, k] = total if zeros else total / weight
    return out


def written_normalisation(images, kind, size=9, zeros=False):
    subtractive, divisive = KINDS[kind]
    window = written_window(size)
    out = []
    for image in images:
        v = image - weighted_mean(image, window, zeros) if subtractive else image
        if divisive:
            sigma = np.sqrt(weighted_mean(v**2, window, zeros))
            v = v / np.maximum(sigma.mean(), sigma)
        out.append(v)
    return np.stack(out)


def written_lcn(image, constant):
    window = written_window(9)
    height, width = image.shape
    out = np.zeros((height - 8, width - 8))
    for j in range(height - 8):
        for k in range(width - 8):
            mean = sum(window[p][q] * image[j + p, k + q] for p in range(9) for q in range(9))
            square = sum(window[p][q] * image[j + p, k + q] ** 2 for p in range(9) for q in range(9))
            out[j, k] = (image[j + 4, k + 4] - mean) / max(constant, math.sqrt(max(square - mean**2, 0)))
    return out


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


@pytest.mark.parametrize("size", [1, 5, 9, 13])
def test_window_is_the_gaussian_as_written(size):
    np.testing.assert_allclose(gaussian_window(size, torch.float64), written_window(size), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_normalisation_equals_the_written_loops(shape, kind, dtype, tolerance):
    x = sample(*shape, dtype=dtype)
    expected = written_normalisation(x.double().numpy(), kind)
    result = module(kind)(x)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_other_windows_equal_the_written_loops(kind, size):
    x = sample(2, 3, 8, 6)
    np.testing.assert_allclose(module(kind, size)(x), written_normalisation(x.numpy(), kind, size), atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "size"), [*((shape, 9) for shape in SHAPES[:4]), ((2, 3, 8, 6), 5)])
def test_zeros_beyond_the_border_equal_the_written_loops(shape, size, kind, dtype, tolerance):
    # An offset, for which it matters what lies beyond the border.
    x = sample(*shape, dtype=dtype) + 2
    expected = written_normalisation(x.double().numpy(), kind, size, zeros=True)
    result = module(kind, size, zeros=True)(x)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=10 * tolerance, atol=10 * tolerance)
    assert float((result - module(kind, size)(x)).abs().max()) > 1e-3


def test_zeros_beyond_the_border_equal_a_convolution_that_pads_with_zeros():
    x = (sample(1, 5, 31, 27) + 1).numpy()
    window = np.array(written_window(9))
    v = x[0] - ndimage.correlate(x[0].mean(axis=0), window, mode="constant")
    sigma = np.sqrt(ndimage.correlate((v**2).mean(axis=0), window, mode="constant"))
    result = LocalNormalisation(zeros=True)(torch.from_numpy(x))[0]
    np.testing.assert_allclose(result, v / np.maximum(sigma.mean(), sigma), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_normalisation_with_zeros_beyond_the_border(kind):
    x = (sample(2, 2, 6, 5) + 1).requires_grad_()
    assert gradcheck(module(kind, 5, zeros=True), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rectified_maps_with_blank_regions_equal_the_written_loops(dtype):
    x = sample(1, 4, 24, 18, dtype=dtype).clamp_min(0)
    x[:, :, :, 6:] = 0
    expected = written_normalisation(x.double().numpy(), "N")
    # In float64 too: the smallest deviation that counts, 1e-6, enters the mean over the blank region.
    np.testing.assert_allclose(LocalNormalisation()(x), expected, rtol=1e-5, atol=1e-5)


def test_normalisation_equals_scipys_correlation_divided_by_that_of_ones():
    x = sample(1, 5, 31, 27).numpy()
    window = np.array(written_window(9))

    def blur(image):
        ones = ndimage.correlate(np.ones_like(image), window, mode="constant")
        return ndimage.correlate(image, window, mode="constant") / ones

    v = x[0] - blur(x[0].mean(axis=0))
    sigma = np.sqrt(blur((v**2).mean(axis=0)))
    result = LocalNormalisation()(torch.from_numpy(x))[0]
    np.testing.assert_allclose(result, v / np.maximum(sigma.mean(), sigma), atol=1e-10)


@reproducible
@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_normalisation_does_not_see_a_positive_scale(scale, seed):
    x = sample(1, 3, 10, 12, seed=seed)
    np.testing.assert_allclose(LocalNormalisation()(scale * x), LocalNormalisation()(x), atol=1e-9)


@reproducible
@given(st.floats(-10, 10), st.integers(0, 1000))
def test_normalisation_does_not_see_an_offset_shared_by_all_maps(offset, seed):
    x = sample(1, 3, 10, 12, seed=seed)
    np.testing.assert_allclose(LocalNormalisation()(x + offset), LocalNormalisation()(x), atol=1e-9)


def test_normalisation_is_its_divisive_half_after_its_subtractive_half():
    x = sample(2, 3, 14, 10)
    np.testing.assert_allclose(module("N")(x), module("Ndiv")(module("Nsub")(x)), atol=1e-12)


def test_threshold_is_the_mean_deviation_of_each_image_alone():
    loud, quiet = sample(1, 2, 12, 12), 1e-3 * sample(1, 2, 12, 12, seed=1)
    both = LocalNormalisation()(torch.cat([loud, quiet]))
    np.testing.assert_allclose(both[:1], LocalNormalisation()(loud), atol=1e-12)
    np.testing.assert_allclose(both[1:], LocalNormalisation()(quiet), atol=1e-12)


def test_normalisation_turns_with_the_image():
    x = sample(1, 3, 12, 12)
    np.testing.assert_allclose(LocalNormalisation()(x.rot90(1, (2, 3))), LocalNormalisation()(x).rot90(1, (2, 3)))


def test_normalisation_has_no_parameters_and_stores_no_window():
    assert list(LocalNormalisation().parameters()) == []
    assert LocalNormalisation().state_dict() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_normalisation(kind):
    x = sample(2, 2, 6, 5).requires_grad_()
    assert gradcheck(module(kind, 5), x)


@pytest.mark.parametrize("maps", [1, 64])
@pytest.mark.parametrize("side", [1, 4, 9, 20])
@pytest.mark.parametrize("value", [-1.0, 0.1, 0.3, 1.0, 5.0, 255.0, 1e4])
def test_constant_image_has_next_to_no_contrast(value, side, maps):
    # Rounding must not be blown up to the size of a signal, whose root mean square would be near 1.
    x = torch.full((1, maps, side, side), value)
    assert float(LocalNormalisation()(x).abs().max()) < 0.02
    assert float(LocalNormalisation()(x.double()).abs().max()) < 1e-6


def test_blank_image_stays_blank():
    assert torch.equal(LocalNormalisation()(torch.zeros(1, 3, 10, 10)), torch.zeros(1, 3, 10, 10))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 12, 12), (2, 3, 7, 5), (1, 2, 1, 1), (1, 4, 1, 20)])
@pytest.mark.parametrize("content", ["blank", "constant", "half blank", "one pixel", "random"])
def test_values_and_gradients_are_finite(kind, shape, content):
    x = {
        "blank": torch.zeros(shape),
        "constant": torch.full(shape, 0.3),
        "half blank": sample(*shape, dtype=torch.float32),
        "one pixel": torch.zeros(shape),
        "random": sample(*shape, dtype=torch.float32),
    }[content]
    if content == "half blank":
        x[..., shape[3] // 2 :] = 0
    if content == "one pixel":
        x[0, 0, 0, 0] = 1
    x.requires_grad_()
    y = module(kind)(x)
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_contrast_normalisation_equals_the_written_loops(scale, dtype, tolerance):
    x = (scale * sample(2, 1, 15, 12, seed=3)).to(dtype)
    expected = [written_lcn(image[0].double().numpy(), 1.0) for image in x]
    result = local_contrast_normalise(x)
    assert result.shape == (2, 1, 7, 4)
    np.testing.assert_allclose(result[:, 0], expected, rtol=tolerance, atol=tolerance)


def test_contrast_normalisation_equals_scipys_correlation_inside():
    x = 2 * sample(1, 1, 21, 30, seed=4)
    window = np.array(written_window(9))
    image = x[0, 0].numpy()
    mean = ndimage.correlate(image, window)[4:-4, 4:-4]
    deviation = np.sqrt(ndimage.correlate(image**2, window)[4:-4, 4:-4] - mean**2)
    expected = (image[4:-4, 4:-4] - mean) / np.maximum(0.5, deviation)
    np.testing.assert_allclose(local_contrast_normalise(x, 0.5)[0, 0], expected, atol=1e-10)


def test_weak_contrast_is_centred_but_not_raised():
    x = 1e-2 * sample(1, 1, 12, 12)
    centred = local_contrast_normalise(x, 1.0)
    np.testing.assert_allclose(local_contrast_normalise(x / 2, 1.0), centred / 2, atol=1e-12)


def test_gradient_of_contrast_normalisation():
    x = 1.5 * sample(1, 1, 10, 11)
    assert gradcheck(local_contrast_normalise, x.requires_grad_())


@pytest.mark.parametrize("value", [0.0, 0.3, 255.0])
def test_contrast_of_a_constant_image_is_nil_with_finite_gradients(value):
    x = torch.full((1, 1, 11, 9), value, requires_grad=True)
    y = local_contrast_normalise(x)
    y.sum().backward()
    assert float(y.detach().abs().max()) < 1e-4
    assert torch.isfinite(x.grad).all()
