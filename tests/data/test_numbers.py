import math

import numpy as np
import pytest
import torch

from featbench import Extractor
from featbench.data.dataset import check_images
from featbench.data.maps import Preprocessing, preprocess
from featbench.data.numbers import rescale, round_to_single
from featbench.data.prepare import prepare, resize
from featbench.errors import DataError
from featbench.types import Images

PLAIN = Preprocessing(standardise=False)
WAYS = {
    "standardised": Preprocessing(),
    "resized": Preprocessing(size=9),
    "enlarged": Preprocessing(size=31),
    "with LCN": Preprocessing(lcn=1.0),
    "padded": Preprocessing(size=12, pad=True),
    "in colour": Preprocessing(channels=3, size=13),
    "opponent": Preprocessing(channels=3, opponent=True),
}
ways = pytest.mark.parametrize("preprocessing", WAYS.values(), ids=WAYS)
SCALES = (1e-300, 1e-100, 1e-40, 1e-30, 1e-8, 1e-3, 7.0, 1e5, 1e18, 1e30, 1e38, 1e100, 1e300)


def picture(*shape, seed=0):
    """Images of whole numbers from 0 to 255, in double precision."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float64)


def written(image):
    """Zero mean and unit variance, by sums that are exact but for one rounding."""
    values = image.ravel().tolist()
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return (image - mean) / deviation


# Scale and offset make no difference.


@ways
@pytest.mark.parametrize("scale", SCALES)
def test_the_unit_of_an_image_makes_no_difference(preprocessing, scale):
    images = picture(3, 17, 14, 3)
    plain = preprocess(images, preprocessing)
    # Less the brightest image's 255, so that the largest scale does not leave double precision.
    other = preprocess(images / 256 * scale, preprocessing)
    assert plain.dtype == other.dtype == torch.float32
    torch.testing.assert_close(other, plain, rtol=1e-5, atol=1e-5)


@ways
@pytest.mark.parametrize("offset", [1e3, 1e6, -1e6, 1e8, 1e10, -1e12, 1e12])
def test_an_offset_makes_no_difference(preprocessing, offset):
    images = picture(3, 17, 14, 3)
    plain = preprocess(images, preprocessing)
    torch.testing.assert_close(preprocess(images + offset, preprocessing), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e-3, 1e8), (1e-6, 1e5), (1e-30, 1e-18), (1e30, 1e40), (1e-300, 1e-290), (1e290, -1e300)]
)
def test_weak_contrast_on_a_large_offset_keeps_what_double_precision_has_of_it(scale, offset):
    given = picture(1, 9, 8)[0] * scale + offset
    # The truth is that of the numbers as they were given, less an exact offset and in a unit in which sums are safe.
    truth = written(np.ldexp(given - given.min(), -int(np.frexp(np.ptp(given))[1])))
    np.testing.assert_allclose(preprocess(given[None], Preprocessing())[0, 0], truth, atol=1e-5)


@pytest.mark.parametrize("dtype", "?bBhHiIlLefdg")
def test_numbers_of_every_real_type_give_their_own_maps(dtype):
    given = (picture(2, 8, 7) > 100).astype(np.float64) if dtype == "?" else picture(2, 8, 7) // 2
    maps = preprocess(given.astype(dtype), Preprocessing())
    for image, made in zip(given, maps, strict=True):
        np.testing.assert_allclose(made[0], written(image), atol=1e-5)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u2", "i4", "f4", "f8"])
def test_the_order_of_bytes_makes_no_difference(order, kind):
    given = picture(2, 8, 7)
    assert torch.equal(preprocess(given.astype(f"{order}{kind}"), Preprocessing()), preprocess(given, Preprocessing()))


def test_bytes_are_computed_as_before():
    images = picture(4, 17, 14).astype(np.uint8)
    values = torch.from_numpy(images.astype(np.float32)).unsqueeze(1)
    centred = values - values.mean(dim=(1, 2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    assert torch.equal(preprocess(images, Preprocessing()), centred / deviation)


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1.0, 1e25, 1e200])
def test_features_do_not_depend_on_the_unit(scale):
    images = picture(6, 20, 20)
    extractor = Extractor("8F5-Rabs-N5-PA4/4", device="cpu").fit(images)
    features = extractor.transform(images)
    assert np.ptp(features) > 0.1
    np.testing.assert_allclose(extractor.transform(images * scale + 1000 * scale), features, atol=1e-4)


# Constant images.


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-320, 1e-40, -0.1, 1 / 3, 7.0, 12345.678, 1e20, -1e300])
@pytest.mark.parametrize("preprocessing", [WAYS[way] for way in ("standardised", "resized", "with LCN", "in colour")])
def test_a_constant_image_becomes_zeros_and_nothing_else_does(value, preprocessing):
    images = np.stack([np.full((13, 11, 3), value), picture(13, 11, 3)])
    constant, other = preprocess(images, preprocessing)
    assert torch.equal(constant, torch.zeros_like(constant))
    assert other.std() > 0.1


# Refusals.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize(
    ("place", "words"),
    [((0, 0), "row 0, column 0"), ((3, 5), "row 3, column 5"), ((2, 1, 2), "row 2, column 1, channel 2")],
)
@pytest.mark.parametrize("preprocessing", [PLAIN, WAYS["in colour"]])
def test_what_is_not_finite_is_named_with_its_place(bad, dtype, place, words, preprocessing):
    images = [picture(5, 6, 3)[..., : 3 if len(place) == 3 else None].astype(dtype) for _ in range(4)]
    if len(place) == 2:
        images = [image[:, :, 0] for image in images]
    images[2][place] = bad
    with pytest.raises(DataError, match=f"image 2 holds values that are not finite, the first {bad} at {words}"):
        preprocess(images, preprocessing)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (picture(4, 4) + 0j, "values of type complex128: give real numbers"),
        (picture(4, 4).astype(np.complex64), "values of type complex64"),
        (picture(4, 4).astype(object), "values of type object"),
        (picture(4, 4).astype(str), "values of type <U"),
        (picture(4, 4).astype("S5"), "values of type |S5"),
        (picture(4, 4).astype("M8[s]"), r"values of type datetime64\[s\]"),
        (picture(4, 4).astype("m8[s]"), r"values of type timedelta64\[s\]"),
        (picture(4, 4).astype([("a", "f8")]), "values of type"),
        (np.full((4, 4), 1.7e308), r"too large, the first 1.7e\+308 at row 0, column 0"),
        (np.full((4, 4), np.longdouble(1e308) * 10), r"too large, the first 1\.0\d*e\+309 at row 0, column 0"),
        (np.arange(16).reshape(4, 4) + 2**60, r"integers beyond 2\^53"),
        (np.arange(16, dtype=np.uint64).reshape(4, 4) + np.uint64(2**63), r"integers beyond 2\^53"),
        (-np.arange(16).reshape(4, 4) - 2**54, r"integers beyond 2\^53"),
    ],
)
def test_what_double_precision_cannot_hold_is_refused(image, words):
    images = Images([picture(4, 4), image], np.zeros(2, dtype=np.int64), ("a",))
    with pytest.raises(DataError, match=f"image 1 holds {words}" if "values of" in words else f"image 1 .*{words}"):
        prepare(check_images("set", images), None)


@pytest.mark.parametrize(
    "image",
    [
        *(picture(12, 12) * scale for scale in (1e-300, 1e-40, 1e30, 1e300)),
        *(picture(12, 12) + offset for offset in (1e9, -1e9, 1e12, 1e15)),
        picture(12, 12) * 1e-3 + 1e8,
        np.full((12, 12), 1e40),
        np.full((12, 12), 1e-40),
    ],
)
def test_without_standardising_what_single_precision_cannot_hold_is_refused(image):
    with pytest.raises(DataError, match=r"image 1 has values from .* to .*, which single precision cannot .* standard"):
        preprocess([picture(12, 12), image], PLAIN)


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1.0, 1e6, 1e15])
def test_without_standardising_values_stay_as_they_are(scale):
    images = picture(2, 7, 9) * scale
    np.testing.assert_allclose(preprocess(images, PLAIN)[:, 0], images, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, -1e12])
def test_local_contrast_normalisation_alone_takes_an_offset_away(offset):
    images = picture(2, 14, 15)
    made, plain = (preprocess(given, Preprocessing(standardise=False, lcn=1.0)) for given in (images + offset, images))
    torch.testing.assert_close(made, plain, rtol=1e-3, atol=1e-3)


# The steps.


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("offset", [0.0, 3.0, -1e9])
def test_rescaling_is_undone_but_for_rounding(scale, offset):
    images = (picture(3, 6, 5) + offset) / 2**31 * scale
    scaled, least, exponents = rescale(images)
    assert (scaled.min(axis=(1, 2)) == 0).all()
    assert (scaled < 2).all()
    np.testing.assert_allclose(np.ldexp(scaled + least, exponents), images, rtol=0, atol=np.abs(images).max() * 2**-52)


@pytest.mark.parametrize("scale", SCALES)
def test_resizing_is_that_of_a_plain_image_in_every_unit(scale):
    image = picture(20, 16)
    plain = resize(image, 9)
    np.testing.assert_allclose(resize(image / 256 * scale, 9) * 256 / scale, plain, atol=1e-4)
    # The truth is Pillow's own resizing of single precision, where that is safe.
    np.testing.assert_allclose(plain, resize(image.astype(np.float32), 9), atol=1e-4)


def test_rounding_keeps_what_single_precision_has():
    images = picture(2, 3, 3)
    assert np.array_equal(round_to_single(images, np.arange(2)), images.astype(np.float32))
    images[1] += 1e20
    with pytest.raises(DataError, match="image 7 has values"):
        round_to_single(images, np.array([3, 7]))
