"""Images that stay in colour, from raw pixels to maps: channels are carried, and grey images are as they were."""

import numpy as np
import pytest
import torch
from PIL import Image

from featbench.data.image_files import ImageFiles
from featbench.data.maps import JoinedMaps, Maps, Preprocessing, find_map_shape, make_maps, preprocess
from featbench.data.prepare import PackedImages, convert_to_rgb, prepare, resize
from featbench.errors import DataError
from featbench.stages.normalization import local_contrast_normalise
from featbench.types import Images

COLOUR = Preprocessing(standardise=False, channels=3)


def noise(*shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)
    return values if dtype == np.uint8 else values.astype(dtype) / 255


def labelled(pixels):
    return Images(pixels, np.zeros(len(pixels), dtype=np.int64), ("a",))


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_an_image_has_one_channel_or_three(channels):
    with pytest.raises(ValueError, match=f"channels must be 1 .grey. or 3 .RGB., not {channels}"):
        Preprocessing(channels=channels)


def test_images_are_grey_unless_colour_is_asked_for():
    assert Preprocessing().channels == 1
    assert Preprocessing(151, True, 1.0, True) == Preprocessing(151, True, 1.0, True, 1)
    image = noise(5, 7, 3)
    assert prepare(labelled([image]), None).pixels.channels == 1
    assert np.array_equal(prepare(labelled([image]), None).pixels[0], np.asarray(Image.fromarray(image).convert("L")))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_colours_are_kept_as_they_come(dtype):
    image = noise(5, 7, 3, dtype=dtype)
    prepared = prepare(labelled([image]), None, channels=3).pixels
    assert prepared.channels == 3
    assert prepared.flat.dtype == (np.uint8 if dtype == np.uint8 else np.float64)
    assert np.array_equal(prepared[0], image.astype(prepared.flat.dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_grey_image_gets_three_equal_channels(dtype):
    image = noise(5, 7, dtype=dtype)
    coloured = convert_to_rgb(image)
    assert coloured.shape == (5, 7, 3)
    assert all(np.array_equal(coloured[:, :, band], image) for band in range(3))


def test_images_of_several_sizes_are_packed_in_colour():
    images = [noise(3, 4, 3), noise(5, 2, 3, seed=1)]
    packed = PackedImages.pack(images)
    assert (packed.channels, packed.shapes.tolist(), len(packed.flat)) == (3, [[3, 4], [5, 2]], 36 + 30)
    again = PackedImages(packed.flat, packed.shapes, packed.channels)
    assert all(np.array_equal(image, packed[i]) and np.array_equal(image, again[i]) for i, image in enumerate(images))


def test_grey_and_coloured_images_are_not_packed_together():
    with pytest.raises(ValueError, match="inhomogeneous"):
        PackedImages.pack([noise(3, 4), noise(3, 4, 3)])


@pytest.mark.parametrize("longest", [5, 23])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_channel_is_resized_as_a_grey_image_is(dtype, longest):
    image = noise(9, 14, 3, dtype=dtype)
    resized = resize(image, longest)
    assert resized.dtype == (np.uint8 if dtype == np.uint8 else np.float64)
    expected = np.stack([resize(np.ascontiguousarray(image[:, :, band]), longest) for band in range(3)], axis=2)
    assert np.array_equal(resized, expected)


def test_the_least_side_is_that_of_the_image_and_not_its_channels():
    image = noise(9, 14, 3)
    assert prepare(labelled([image]), None, channels=3, least=9).pixels[0].shape == (9, 14, 3)
    with pytest.raises(DataError, match="image 0 comes to 9×14 pixels, but 10×10 are needed at least"):
        prepare(labelled([image]), None, channels=3, least=10)


@pytest.mark.parametrize("bad", [np.full((3, 3), np.nan), np.full((3, 3, 3), np.inf)])
def test_values_that_are_not_finite_are_refused_in_colour_too(bad):
    with pytest.raises(DataError, match="image 1 holds values that are not finite"):
        prepare(labelled([np.zeros((3, 3, 3)), bad]), None, channels=3)


@pytest.mark.parametrize("shape", [(3, 3, 4), (3, 3, 1), (3,), (0, 3, 3)])
def test_what_is_neither_grey_nor_rgb_is_refused(shape):
    with pytest.raises(DataError, match=r"expected \[height, width\] grey or \[height, width, 3\] RGB"):
        convert_to_rgb(np.zeros(shape, dtype=np.uint8))


def test_image_files_keep_their_colours(tmp_path):
    image = noise(6, 8, 3)
    Image.fromarray(image).save(tmp_path / "colour.png")
    Image.fromarray(image[:, :, 0]).save(tmp_path / "grey.png")
    files = ImageFiles([tmp_path / "colour.png", tmp_path / "grey.png"])
    maps = make_maps(files, COLOUR)[:]
    assert np.array_equal(maps[0].numpy(), image.transpose(2, 0, 1).astype(np.float32))
    assert all(np.array_equal(maps[1, band].numpy(), image[:, :, 0].astype(np.float32)) for band in range(3))


def test_maps_are_red_green_and_blue():
    image = np.zeros((4, 5, 3), dtype=np.uint8)
    image[:, :, 0], image[:, :, 2] = 10, 30
    maps = make_maps([image, image], COLOUR)
    assert (maps.shape, maps.least, find_map_shape(maps)) == ((3, 4, 5), (3, 4, 5), (3, 4, 5))
    assert maps[:].shape == (2, 3, 4, 5)
    assert maps[:].dtype == torch.float32
    assert maps[:].is_contiguous()
    assert [float(band.unique()) for band in maps[:][0]] == [10, 0, 30]


def test_the_channels_of_an_image_share_one_mean_and_one_deviation():
    image = noise(8, 9, 3)
    values = image.astype(np.float64)
    expected = (values - values.mean()) / values.std()
    maps = preprocess([image], Preprocessing(channels=3))[0].permute(1, 2, 0).numpy()
    assert np.abs(maps - expected).max() < 1e-5
    # The channels themselves have other means: which of two colours is the brighter one stays.
    assert np.ptp(maps.mean(axis=(0, 1))) > 1e-3


def test_an_image_of_one_colour_is_not_blank_and_one_of_grey_is():
    red = np.zeros((4, 4, 3), dtype=np.uint8)
    red[:, :, 0] = 200
    maps = preprocess([red, np.full((4, 4, 3), 77, dtype=np.uint8)], Preprocessing(channels=3))
    # One value in three is 200, the others are 0: in units of their deviation √2 and -1/√2.
    assert torch.allclose(maps[0, 0], torch.tensor(2**0.5))
    assert torch.allclose(maps[0, 1:], torch.tensor(-(0.5**0.5)))
    assert (maps[1] == 0).all()


def test_each_channel_is_locally_normalised_by_itself():
    image = noise(15, 12, 3)
    maps = preprocess([image], Preprocessing(standardise=False, lcn=1.0, channels=3))
    raw = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    for band in range(3):
        alone = local_contrast_normalise(raw[band][None, None].clone(), 1.0)
        assert torch.equal(maps[:, band : band + 1], alone)


def test_the_shorter_side_is_padded_in_every_channel():
    maps = preprocess([np.full((4, 6, 3), 9, dtype=np.uint8)], Preprocessing(None, False, None, True, 3))
    assert maps.shape == (1, 3, 6, 6)
    assert (maps[:, :, 1:5] == 9).all()
    assert (maps[:, :, [0, 5]] == 0).all()


@pytest.mark.parametrize("lcn", [None, 1.0])
@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_three_equal_channels_come_to_three_times_the_grey_maps(dtype, standardise, lcn):
    grey = noise(21, 17, dtype=dtype)
    given = Preprocessing(15, standardise, lcn, pad=True)
    expected = preprocess([grey], given)
    for image in (grey, convert_to_rgb(grey)):
        maps = preprocess([image], Preprocessing(15, standardise, lcn, True, 3))
        assert maps.shape == (1, 3, *expected.shape[2:])
        if standardise:  # a mean of three times as many values is summed in another order
            assert torch.allclose(maps, expected.expand_as(maps), atol=2e-5)
        else:
            assert torch.equal(maps, expected.expand_as(maps))


def test_maps_of_several_sizes_are_joined_in_colour():
    first, second = make_maps([noise(6, 7, 3)], COLOUR), make_maps([noise(8, 9), noise(8, 9, 3)], COLOUR)
    joined = JoinedMaps(first, second)
    assert joined[np.array([1, 2])].shape == (2, 3, 8, 9)
    assert torch.equal(joined[np.array([0])], first[:])


def test_maps_refuse_images_that_were_prepared_for_other_channels():
    with pytest.raises(ValueError, match="images of 1 channels were prepared, not of 3"):
        Maps(PackedImages.pack([noise(4, 4)]), Preprocessing(channels=3))


def test_opponent_colours_equal_the_written_formulas_in_double_precision():
    image = noise(9, 7, 3)
    maps = preprocess([image], Preprocessing(channels=3, opponent=True))[0].numpy()
    values = image.astype(np.float64)
    red, green, blue = ((values - values.mean()) / values.std()).transpose(2, 0, 1)
    assert np.allclose(maps[0], (red - green) / np.sqrt(2), atol=1e-6)
    assert np.allclose(maps[1], (red + green - 2 * blue) / np.sqrt(6), atol=1e-6)
    assert np.allclose(maps[2], (red + green + blue) / np.sqrt(3), atol=1e-6)


def test_opponent_colours_keep_distances_between_images():
    pixels = noise(2, 6, 5, 3)
    rgb, opponent = (preprocess(pixels, Preprocessing(channels=3, opponent=turned)) for turned in (False, True))
    assert torch.allclose((rgb[0] - rgb[1]).norm(), (opponent[0] - opponent[1]).norm())


def test_a_grey_image_has_no_opponent_colours_but_its_intensity():
    maps = preprocess([noise(6, 5)], Preprocessing(channels=3, opponent=True))[0]
    assert maps[:2].abs().max() < 1e-6
    assert maps[2].std() > 1


def test_opponent_colours_need_three_channels():
    with pytest.raises(ValueError, match="opponent colours are made of three channels"):
        Preprocessing(opponent=True)
    names = [
        Preprocessing(channels=channels, opponent=turned).colour
        for channels, turned in ((1, False), (3, False), (3, True))
    ]
    assert names == ["grey", "rgb", "opponent"]
