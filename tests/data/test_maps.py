import math
import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featbench.data import maps as module
from featbench.data.maps import Maps, Preprocessing, find_map_shape, make_maps, pad_to_square, preprocess, standardise
from featbench.data.prepare import PackedImages, resize
from featbench.errors import DataError
from featbench.system.hashing import content_hash

PLAIN = Preprocessing(standardise=False)
CALTECH = Preprocessing(151, True, 1.0, True)


def picture(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width, channels=3):
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / (9 + c)) * np.cos(x / (7 + 2 * c)) for c in range(channels)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def cubic(x):
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def written_resampling(values, count):
    """Antialiased bicubic resampling (a = -1/2) of the columns of `values` to `count` rows."""
    ratio = len(values) / count
    stretch = max(ratio, 1.0)
    rows = []
    for row in range(count):
        centre = (row + 0.5) * ratio
        low = max(0, int(centre - 2 * stretch + 0.5))
        high = min(len(values), int(centre + 2 * stretch + 0.5))
        weights = [cubic((k + 0.5 - centre) / stretch) for k in range(low, high)]
        rows.append(sum(w * values[low + i] for i, w in enumerate(weights)) / sum(weights))
    return np.array(rows)


def written_standardisation(image):
    values = image.astype(np.float64).ravel().tolist()
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return (image - mean) / deviation


def test_grey_images_become_maps_as_they_are():
    pixels = picture(3, 5, 4)
    maps = preprocess(pixels, PLAIN)
    assert maps.dtype == torch.float32
    assert torch.equal(maps, torch.from_numpy(pixels.astype(np.float32)).unsqueeze(1))


def test_colour_becomes_grey_by_the_weights_of_itu_601():
    pixels = picture(2, 5, 4, 3).astype(np.float64)
    expected = 0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2]
    np.testing.assert_allclose(preprocess(pixels, PLAIN)[:, 0], expected, rtol=1e-6)


def test_grey_agrees_with_pillow_within_a_level():
    pixels = picture(1, 20, 30, 3)
    pillow = np.asarray(Image.fromarray(pixels[0]).convert("L"), dtype=np.float32)
    assert np.abs(preprocess(pixels, PLAIN)[0, 0].numpy() - pillow).max() <= 1


def test_standardisation_equals_the_written_loops():
    pixels = picture(3, 7, 6)
    maps = preprocess(pixels, Preprocessing())
    for image, result in zip(pixels, maps, strict=True):
        np.testing.assert_allclose(result[0], written_standardisation(image), atol=1e-5)


def test_standardisation_in_double_precision():
    pixels = picture(1, 9, 5).astype(np.float64)
    result = standardise(torch.from_numpy(pixels)[None])
    np.testing.assert_allclose(result[0, 0], written_standardisation(pixels[0]), atol=1e-12)


@pytest.mark.parametrize("value", [0, 1, 77, 255, 0.1, 12345.678, -3e-4])
def test_constant_image_becomes_zeros(value):
    maps = preprocess(np.full((2, 33, 17), value, dtype=np.float32), Preprocessing())
    assert torch.equal(maps, torch.zeros(2, 1, 33, 17))


def test_weak_contrast_on_a_bright_image_is_no_constant():
    pixels = np.full((1, 8, 8), 200.0)
    pixels[0, :4] = 201
    maps = preprocess(pixels, Preprocessing())
    np.testing.assert_allclose(maps.abs(), torch.ones(1, 1, 8, 8), atol=1e-4)


@pytest.mark.parametrize(("height", "width", "longest"), [(40, 60, 21), (60, 40, 21), (13, 11, 30), (300, 200, 151)])
def test_resizing_equals_written_bicubic_resampling(height, width, longest):
    grey = smooth(height, width, 1)[..., 0].astype(np.float32)
    scale = longest / max(height, width)
    rows = written_resampling(grey.astype(np.float64), round(height * scale))
    expected = written_resampling(rows.T, round(width * scale)).T
    result = resize(grey, longest)
    assert result.shape == expected.shape
    assert max(result.shape) == longest
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_resizing_agrees_with_pillow_on_bytes_within_rounding():
    image = smooth(90, 60, 1)[..., 0]
    pillow = Image.fromarray(image).resize((34, 51), Image.Resampling.BICUBIC)
    assert np.abs(resize(image.astype(np.float32), 51) - np.asarray(pillow, dtype=np.float32)).max() <= 1


def test_image_of_the_right_size_is_not_resampled():
    grey = picture(21, 13).astype(np.float32)
    assert np.array_equal(resize(grey, 21), grey)


def test_resized_image_is_an_array_of_its_own():
    # torch warns, once a program, of memory that it must not write to.
    grey = smooth(40, 30, 1)[..., 0].astype(np.float32)
    assert resize(grey, 20).flags.writeable


def test_extreme_image_keeps_at_least_one_pixel():
    assert resize(np.ones((1000, 2), dtype=np.float32), 50).shape == (50, 1)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(4, 7, 1, 0), (7, 4, 0, 1), (5, 5, 0, 0), (1, 6, 2, 0)])
def test_padding_puts_the_image_into_the_middle_of_zeros(height, width, top, left):
    maps = 1 + torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    padded = pad_to_square(maps)
    side = max(height, width)
    assert padded.shape == (2, 1, side, side)
    assert torch.equal(padded[:, :, top : top + height, left : left + width], maps)
    assert int((padded != 0).sum()) == maps.numel()


def test_preprocessing_of_caltech_equals_its_steps_in_double_precision():
    image = smooth(90, 60)
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    rows = written_resampling(grey, 30)
    x = written_standardisation(written_resampling(rows.T, 20).T)
    profile = np.exp(-((np.arange(9) - 4.0) ** 2) / (2 * 1.591**2))
    window = np.outer(profile, profile) / profile.sum() ** 2
    lcn = np.zeros((22, 12))
    for j in range(22):
        for k in range(12):
            part = x[j : j + 9, k : k + 9]
            mean = (window * part).sum()
            lcn[j, k] = (part[4, 4] - mean) / max(1.0, math.sqrt((window * part**2).sum() - mean**2))
    maps = preprocess([image.astype(np.float32)], Preprocessing(30, True, 1.0, True))
    assert maps.shape == (1, 1, 22, 22)
    np.testing.assert_allclose(maps[0, 0, :, 5:17], lcn, atol=1e-4)
    assert not maps[0, 0, :, :5].any()
    assert not maps[0, 0, :, 17:].any()


def test_bytes_are_normalised_in_full_precision_after_they_are_resized():
    image = smooth(90, 60)
    prepared = make_maps([image], Preprocessing(size=30)).pixels[0]
    assert prepared.dtype == np.uint8
    grey = written_resampling(image.astype(np.float64) @ [0.299, 0.587, 0.114], 30)
    assert np.abs(prepared - written_resampling(grey.T, 20).T).max() <= 1.5
    maps = preprocess([image], Preprocessing(size=30))
    np.testing.assert_allclose(maps[0, 0], written_standardisation(prepared), atol=1e-5)


def test_caltech_images_of_any_size_become_143_pixels_square():
    images = [smooth(300, 200), smooth(120, 151), picture(151, 151), smooth(60, 80, 1)[..., 0]]
    assert preprocess(images, CALTECH).shape == (4, 1, 143, 143)


def test_list_and_array_give_the_same():
    pixels = picture(5, 12, 10, 3)
    for preprocessing in (Preprocessing(), Preprocessing(lcn=1.0, pad=True), Preprocessing(size=9)):
        together, listed = preprocess(pixels, preprocessing), preprocess(list(pixels), preprocessing)
        np.testing.assert_allclose(together, listed, atol=1e-5)


def test_chunks_leave_no_trace(monkeypatch):
    pixels = picture(7, 6, 5)
    whole = preprocess(pixels, Preprocessing())
    monkeypatch.setattr(module, "CHUNK", 3)
    np.testing.assert_allclose(preprocess(pixels, Preprocessing()), whole, atol=1e-6)


def test_one_image_is_preprocessed_as_in_a_set():
    pixels = picture(3, 20, 20)
    preprocessing = Preprocessing(size=15, lcn=1.0)
    np.testing.assert_allclose(
        preprocess(pixels[1:2], preprocessing), preprocess(pixels, preprocessing)[1:2], atol=1e-5
    )


@pytest.mark.parametrize("preprocessing", [Preprocessing(), CALTECH])
def test_pixels_of_the_data_set_are_left_alone_and_nothing_is_warned_about(preprocessing):
    images = [picture(40, 30), picture(30, 40)] if preprocessing.pad else picture(2, 40, 30)
    before = [image.copy() for image in images]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess(images, preprocessing)
    for image, kept in zip(images, before, strict=True):
        assert np.array_equal(image, kept)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixel_that_is_not_finite_is_refused_with_the_image_named(bad, monkeypatch):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 2)
    pixels = picture(5, 6, 6).astype(np.float64)
    pixels[3, 2, 2] = bad
    for images in (pixels, list(pixels)):
        with pytest.raises(DataError, match="image 3 holds values that are not finite"):
            preprocess(images, Preprocessing())


def test_image_with_an_alpha_channel_is_refused_with_its_shape():
    with pytest.raises(DataError, match=r"image 1 has shape \[6, 6, 4\]; expected \[height, width\]"):
        preprocess([picture(6, 6), picture(6, 6, 4)], Preprocessing())


def test_images_of_several_sizes_are_refused_with_the_sizes():
    with pytest.raises(DataError, match=r"2 sizes \(6×6, 6×7"):
        preprocess([picture(6, 6), picture(6, 7)], Preprocessing())


def test_image_smaller_than_the_contrast_window_is_refused():
    with pytest.raises(DataError, match="image 1 comes to 8×20 pixels, but 9×9 are needed at least"):
        preprocess([picture(20, 20), picture(8, 20)], Preprocessing(lcn=1.0))


@pytest.mark.parametrize("images", [[], np.zeros((0, 5, 5))])
def test_no_images_are_refused(images):
    with pytest.raises(DataError, match="no images"):
        preprocess(images, Preprocessing())


# Maps, computed when they are asked for.

MIXED = [picture(*sides, seed=seed) for seed, sides in enumerate([(20, 14), (14, 20), (20, 14), (10, 20), (20, 20)])]
SQUARE = Preprocessing(size=18, lcn=1.0, pad=True)


@pytest.mark.parametrize("which", [slice(1, 4), slice(None), np.array([4, 0, 3, 0]), np.array([2])])
def test_maps_of_several_sizes_are_those_of_each_image_alone_in_the_order_asked_for(which):
    maps = make_maps([*MIXED, picture(18, 10, 3)], SQUARE)
    chosen = np.arange(6)[which]
    got = maps[which]
    assert got.dtype == torch.float32
    alone = torch.cat([preprocess([[*MIXED, picture(18, 10, 3)][index]], SQUARE) for index in chosen])
    np.testing.assert_allclose(got, alone, atol=1e-5)


@settings(derandomize=True, deadline=None, database=None, max_examples=30)
@given(st.data())
def test_maps_of_a_selection_are_the_selected_maps(data):
    maps = make_maps(MIXED, SQUARE)
    indices = st.lists(st.integers(0, 4), min_size=1, max_size=9).map(np.array)
    first = data.draw(indices)
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=9).map(np.array))
    chosen = maps.select(first)
    assert len(chosen) == len(first)
    assert chosen.shape == maps.shape
    np.testing.assert_allclose(chosen[:], maps[first], atol=1e-5)
    np.testing.assert_allclose(chosen.select(second)[:], maps[first[second]], atol=1e-5)
    np.testing.assert_allclose(chosen[second], maps[first[second]], atol=1e-5)


@pytest.mark.parametrize("preprocessing", [Preprocessing(), Preprocessing(lcn=1.0), Preprocessing(pad=True), SQUARE])
def test_sizes_are_known_before_maps_are_computed(preprocessing, monkeypatch):
    maps = make_maps(MIXED, preprocessing)
    expected = {tuple(maps[index : index + 1].shape[2:]) for index in range(len(MIXED))}
    monkeypatch.setattr(module, "_normalise", None)
    assert maps.sizes == expected


def test_shape_is_that_of_all_maps_or_refused():
    assert make_maps(MIXED, SQUARE).shape == find_map_shape(make_maps(MIXED, SQUARE)) == (1, 10, 10)
    assert find_map_shape(torch.zeros(3, 2, 5, 4)) == (2, 5, 4)
    maps = make_maps(MIXED, Preprocessing())
    with pytest.raises(DataError, match=r"the images have 4 sizes \(10×20, 14×20, 20×14, 20×20…\)"):
        maps.shape  # noqa: B018
    assert maps.select(np.array([0, 2])).shape == (1, 20, 14)


def test_maps_are_computed_when_they_are_asked_for_and_no_others(monkeypatch):
    computed = []
    original = module._normalise
    monkeypatch.setattr(module, "_normalise", lambda grey, *how: computed.append(len(grey)) or original(grey, *how))
    maps = make_maps(picture(9, 6, 6), Preprocessing())
    chosen = maps.select(np.array([1, 5, 7]))
    assert computed == []
    chosen[1:]
    assert computed == [2]


def test_maps_need_no_more_than_packed_images_for_their_pixels():
    flat = picture(2 * 3 + 4 * 5)
    maps = Maps(PackedImages(flat, np.array([[2, 3], [4, 5]])), PLAIN)
    assert maps[1:2][0, 0].tolist() == flat[6:].reshape(4, 5).tolist()


@pytest.mark.parametrize(
    ("preprocessing", "sizes"),
    [
        (Preprocessing(), [(12, 20), (30, 11), (12, 20)]),
        (Preprocessing(lcn=1.0), [(4, 12), (22, 3), (4, 12)]),
        (Preprocessing(lcn=1.0, pad=True), [(12, 12), (22, 22), (12, 12)]),
        (Preprocessing(size=20, pad=True), [(20, 20)] * 3),
    ],
)
def test_sizes_are_those_that_come_out(preprocessing, sizes):
    generator = np.random.default_rng(0)
    maps = make_maps([generator.random(shape) for shape in ((12, 20), (30, 11), (12, 20))], preprocessing)
    assert [tuple(size) for size in maps.image_sizes] == sizes
    assert maps.sizes == set(sizes)
    assert [tuple(maps[i : i + 1].shape[2:]) for i in range(3)] == sizes
    assert maps.least == (1, min(height for height, _ in sizes), min(width for _, width in sizes))
    assert find_map_shape(maps) == maps.least
    chosen = maps.select(np.array([1]))
    assert [tuple(size) for size in chosen.image_sizes] == sizes[1:2]
    assert chosen.least == chosen.shape == (1, *sizes[1])


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ({"size": np.int64(16)}, {"size": 16}),
        ({"size": np.array(16)}, {"size": 16}),
        ({"lcn": 1}, {"lcn": 1.0}),
        ({"lcn": np.float32(0.5)}, {"lcn": 0.5}),
        ({"pad": np.True_}, {"pad": True}),
        ({"channels": np.uint8(3)}, {"channels": 3}),
    ],
)
def test_a_preprocessing_holds_plain_values_so_that_equal_ones_have_one_key(written, plain):
    found, expected = asdict(Preprocessing(**written)), asdict(Preprocessing(**plain))
    assert found == expected
    assert content_hash(found) == content_hash(expected)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("size", (0, -1, 16.0, "16", True, np.nan, [16])),
        ("lcn", (-1e-9, -1.0, np.nan, np.inf, "1", True, 10**400)),
        ("standardise", ("no", 1, None)),
        ("pad", (1, "yes", None)),
        ("channels", (2, 0, "rgb", 1.0, None, True)),
        ("opponent", (1, "yes", True)),
    ],
)
def test_a_preprocessing_out_of_range_is_a_value_error_that_names_the_field(field, values):
    for value in values:
        with pytest.raises(ValueError, match=field):
            Preprocessing(**{field: value})
