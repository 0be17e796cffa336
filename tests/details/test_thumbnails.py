"""Small pictures of images: in colour, turned as a viewer turns them, whatever range their values have."""

import numpy as np
import pytest
from helpers.pages import read_page
from PIL import Image, ImageOps

from featbench.data.image_files import ImageFiles
from featbench.details.thumbnails import SMALL, make_thumbnails
from featbench.report.contact_sheet import SIDE
from featbench.types import Images


def show(*pixels, names=None):
    """Return the thumbnails of images, as arrays."""
    images = Images(list(pixels), np.zeros(len(pixels), dtype=np.int64), ("a",), names=names)
    return [np.asarray(one.image).astype(int) for one in make_thumbnails(images, range(len(pixels)))]


def photograph(height, width, colour=(200, 40, 90)):
    """A picture of one colour with its upper left quarter white."""
    pixels = np.full((height, width, 3), colour, dtype=np.uint8)
    pixels[: height // 2, : width // 2] = 255
    return pixels


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (SIDE, SIDE), (1000, 1000), (145, 30)])
def test_a_large_image_is_shrunk_with_its_sides_in_proportion(size):
    (shown,) = show(photograph(*size), names=["x"])
    scale = min(1, SIDE / max(size))
    assert shown.shape == (round(size[0] * scale), round(size[1] * scale), 3)
    assert abs(shown[-1, -1] - (200, 40, 90)).max() <= 1
    assert abs(shown[0, 0] - 255).max() <= 1


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 2), (8, 8), (SMALL, SMALL)])
def test_thin_and_small_images_have_a_thumbnail(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    images = Images([pixels], np.zeros(1, dtype=np.int64), ("a",), names=["x"])
    (thumbnail,) = make_thumbnails(images, [0])
    assert max(thumbnail.enlarge().size) <= SIDE
    assert min(thumbnail.enlarge().size) >= 1
    assert thumbnail.is_small == (max(size) <= SMALL)
    if thumbnail.is_small:
        assert np.array_equal(np.asarray(thumbnail.image), pixels)
        assert np.array_equal(np.asarray(thumbnail.enlarge())[:: SIDE // max(size), :: SIDE // max(size)], pixels)


@pytest.mark.parametrize("dtype, scale", [("float32", 1), ("float64", 1e-9), ("float32", 1e6), ("uint8", 1)])
def test_values_of_no_file_are_stretched_over_all_images_shown(dtype, scale):
    dark, bright = np.array([[0, 4], [2, 2]]), np.array([[8, 8], [16, 4]])
    shown = show((scale * dark).astype(dtype), (scale * bright).astype(dtype))
    for channel in range(3):
        assert np.allclose(shown[0][:, :, channel], dark * 255 / 16, atol=0.6)
        assert np.allclose(shown[1][:, :, channel], bright * 255 / 16, atol=0.6)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e9])
def test_constant_values_of_no_file_are_black(value):
    (shown,) = show(np.full((4, 4), value))
    assert shown.max() == 0


def test_bytes_of_a_file_are_shown_as_they_are():
    dark = np.full((4, 4), 7, dtype=np.uint8)
    assert show(dark, names=["x"])[0].max() == 7


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_the_page_shows_a_photograph_as_a_viewer_does(tmp_path, orientation, form, compare_row, explain_row):
    root, exif = tmp_path / "photographs", Image.Exif()
    exif[0x0112] = orientation
    for kind, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        (root / kind).mkdir(parents=True)
        for number in range(6):
            image = Image.fromarray(photograph(90, 60, colour))
            image.save(root / kind / f"{number}.{form}", exif=exif, **({"quality": 95} if form == "jpeg" else {}))
    compare_row(root, draws=2)
    page = read_page(explain_row("chance") / "index.html")
    shown = next(image["alt"] for image in page.images if image["alt"].startswith(("red/", "blue/")))
    file = shown.partition(":")[0]
    pixels = np.asarray(page.decode_image(f"{file}:").convert("RGB")).astype(int)
    with Image.open(root / file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    assert pixels.shape == expected.shape
    assert abs(pixels - expected).mean() < 6


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "I;16", "1"])
def test_every_kind_of_file_has_a_thumbnail_in_colour(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode in ("CMYK", "I;16") else "x.png")
    if mode == "I;16":
        Image.fromarray(np.arange(0, 64000, 10, dtype=np.uint16).reshape(80, 80)).save(path)
    else:
        Image.fromarray(photograph(80, 80)).convert(mode).save(path)
    images = Images(ImageFiles([path]), np.zeros(1, dtype=np.int64), ("a",), names=["x"])
    (thumbnail,) = make_thumbnails(images, [0])
    assert thumbnail.image.mode == "RGB"
    expected = Image.fromarray(images.pixels[0]).convert("RGB")
    assert np.array_equal(np.asarray(thumbnail.image), np.asarray(expected))
