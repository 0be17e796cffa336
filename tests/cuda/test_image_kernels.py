import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.image_kernels import normalise_images
from featbench.data.maps import Preprocessing, preprocess
from featbench.data.prepare import PackedImages
from featbench.errors import UsageError


def noise(*shapes):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, size=shape, dtype=np.uint8) for shape in shapes]


def normalised(device, images, size, standardise=True, lcn=None):
    packed = PackedImages.pack(images)
    offsets = np.concatenate([[0], np.cumsum(packed.shapes.prod(axis=1))[:-1]])
    flat = torch.from_numpy(packed.flat).to(device)
    return normalise_images(flat, offsets, packed.shapes, size, standardise=standardise, lcn=lcn)


def close(ours, theirs, bound=1e-5):
    assert ours.dtype == torch.float32
    assert ours.shape == theirs.shape
    difference = torch.linalg.vector_norm(ours.cpu() - theirs)
    return difference <= bound * torch.linalg.vector_norm(theirs)


@pytest.mark.parametrize("lcn", [None, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("standardise", [True, False])
def test_images_of_several_sizes_are_those_of_preprocessing(device, lcn, standardise):
    images = noise((20, 13), (9, 20), (20, 20), (20, 10))
    side = 20 if lcn is None else 12
    ours = normalised(device, images, (side, side), standardise, lcn)
    for image, found in zip(images, ours, strict=True):
        expected = preprocess([image], Preprocessing(standardise=standardise, lcn=lcn, pad=True))
        assert close(found[None], expected)
    outside = ours[1] == 0 if lcn is None else ours[1, :, :5] == 0
    assert outside.any()


@pytest.mark.parametrize("lcn", [None, 1.0])
def test_images_of_one_size_need_no_padding(device, lcn):
    images = noise((21, 18), (21, 18))
    expected = preprocess(images, Preprocessing(lcn=lcn))
    assert close(normalised(device, images, tuple(expected.shape[2:]), lcn=lcn), expected)


def test_one_image_of_nine_pixels_a_side(device):
    images = noise((9, 9))
    assert close(normalised(device, images, (1, 1), lcn=1.0), preprocess(images, Preprocessing(lcn=1.0)))


@pytest.mark.parametrize("value", [0, 1, 77, 255])
@pytest.mark.parametrize("lcn", [None, 1.0])
def test_a_blank_image_becomes_zeros(device, value, lcn):
    ours = normalised(device, [np.full((15, 11), value, dtype=np.uint8)], (15, 15), lcn=lcn)
    assert torch.equal(ours, torch.zeros_like(ours))


def test_faint_contrast_on_a_bright_ground(device):
    """Mean and variance are exact, whatever the bytes: here in float64."""
    image = np.full((40, 41), 254, dtype=np.uint8)
    image[3, 5] = 255
    wide = torch.from_numpy(image.astype(np.float64))[None, None]
    expected = (wide - wide.mean()) / wide.std(correction=0)
    assert close(normalised(device, [image], (40, 41)), expected.float(), bound=1e-4)


def test_some_of_the_packed_images_in_any_order(device):
    packed = PackedImages.pack(noise((12, 9), (10, 10), (9, 12)))
    offsets = np.concatenate([[0], np.cumsum(packed.shapes.prod(axis=1))[:-1]])
    flat = torch.from_numpy(packed.flat).to(device)

    def made(chosen):
        return normalise_images(flat, offsets[chosen], packed.shapes[chosen], (4, 4), standardise=True, lcn=1.0)

    every = made([0, 1, 2])
    assert torch.equal(made([2, 0]), every[[2, 0]])
    assert torch.equal(made([1]), every[[1]])


def test_no_images_give_no_maps(device):
    flat, shapes = torch.zeros(0, dtype=torch.uint8, device=device), np.empty((0, 2), dtype=np.int64)
    assert normalise_images(flat, shapes[:, 0], shapes, (7, 8), standardise=True, lcn=1.0).shape == (0, 1, 7, 8)


def test_images_that_cannot_be_normalised_are_named(device):
    flat = torch.zeros(200, dtype=torch.uint8, device=device)

    def refused(match, flat=flat, offsets=(0, 100), shapes=((10, 10), (10, 10)), size=(10, 10), lcn=None):
        with pytest.raises(UsageError, match=match):
            normalise_images(flat, np.array(offsets), np.array(shapes), size, standardise=True, lcn=lcn)

    refused("bytes in one row, not torch.float32", flat=flat.float())
    refused("bytes in one row", flat=flat.view(2, 100))
    refused("2 images need as many heights and widths", shapes=((10, 10),))
    refused("image 1, 10×11 from byte 100, lies outside the 200 bytes", shapes=((10, 10), (10, 11)))
    refused("image 0, 10×10 from byte -1", offsets=(-1, 100))
    refused("image 0 has 10×10 pixels, and 1×1 to 9×10", size=(9, 10))
    refused("image 1 has 8×12 pixels, and 9×9 to 18×18", shapes=((10, 10), (8, 12)), lcn=1.0)
    refused("image 1 has 0×12 pixels", shapes=((10, 10), (0, 12)))
