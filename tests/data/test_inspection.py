import numpy as np
import pytest
from PIL import Image

from featbench.data.image_files import ImageFiles
from featbench.data.inspection import describe_traits, find_traits
from featbench.data.prepare import prepare
from featbench.types import Images

BLANK = "images of one value all over, from which nothing can be learned"
SMALL = "images with a side of less than 8 pixels"
WITHIN = "the same image several times in a class, so that it may train and test"
ACROSS = "the same image in several classes, of which one at most is right"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def describe(*pixels, labels=None, remarks=()):
    traits = [find_traits(one, one, remarks) for one in pixels]
    given = np.arange(len(pixels)) % 2 if labels is None else np.array(labels)
    return describe_traits(traits, given, [f"{number}" for number in range(len(pixels))])


def test_nothing_is_said_of_ordinary_images():
    assert describe(noise(9, 8), noise(9, 8, seed=1), noise(8, 9, 3), noise(8, 8)) == []


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3)])
def test_blank_images_are_named(shape, value):
    assert describe(noise(*shape), np.full(shape, value, np.uint8)) == [f"{BLANK}: 1 (1)"]


def test_an_image_of_one_colour_is_blank_and_one_odd_pixel_is_not():
    red = np.full((9, 9, 3), (200, 3, 9), dtype=np.uint8)
    odd = red.copy()
    odd[4, 4, 1] = 4
    assert describe(red, odd) == [f"{BLANK}: 1 (0)"]


@pytest.mark.parametrize(("shape", "small"), [((8, 8), False), ((7, 40), True), ((40, 7), True), ((1, 1, 3), True)])
def test_small_images_are_named(shape, small):
    ordinary = noise(9, 9)
    lines = [line for line in describe(ordinary, noise(*shape, seed=2)) if line.startswith(SMALL)]
    assert lines == [f"{SMALL}: 1 (1)"] * small


@pytest.mark.parametrize(
    ("labels", "lines"),
    [
        ([0, 0, 1, 1], [f"{WITHIN}: 1 (0 = 1)"]),
        ([0, 1, 0, 1], [f"{ACROSS}: 1 (0 = 1)"]),
        ([0, 1, 1, 2], [f"{ACROSS}: 1 (0 = 1)"]),
        ([0, 0, 0, 0], []),
    ],
)
def test_copies_are_named_within_classes_and_across_them(labels, lines):
    image = noise(9, 9)
    assert describe(image, image.copy(), noise(9, 9, seed=1), noise(9, 9, seed=2), labels=labels) == lines


def test_copies_of_several_images_make_groups():
    images = [noise(9, 9, seed=seed) for seed in (0, 1, 0, 1, 0)]
    assert describe(*images, noise(9, 9, seed=5), labels=[0, 0, 0, 1, 0, 1]) == [
        f"{WITHIN}: 1 (0 = 2 = 4)",
        f"{ACROSS}: 1 (1 = 3)",
    ]


def test_the_same_bytes_in_another_shape_are_another_image():
    image = noise(8, 9)
    assert describe(image, image.reshape(9, 8), image.reshape(8, 3, 3), labels=[0, 1, 0]) == [f"{SMALL}: 1 (2)"]


def test_remarks_on_reading_are_gathered():
    assert describe(noise(9, 9), noise(9, 9, seed=1), remarks=("several pages",)) == [
        "images with several pages: 2 (0, 1)"
    ]


def test_long_lists_are_cut():
    lines = describe(*(np.full((9, 9), value, np.uint8) for value in range(8)))
    assert lines == [f"{BLANK}: 8 (0, 1, 2, 3, 4, …)"]


def test_copies_in_other_formats_and_bad_images_among_them(tmp_path):
    array = noise(20, 30)
    names = ["0.png", "1.bmp", "2.png", "3.png", "4.tif"]
    for name, one in zip(names, (array, array, noise(20, 30, seed=1), noise(20, 30, seed=2), array), strict=True):
        Image.fromarray(one).save(tmp_path / name)
    (tmp_path / "2.png").write_bytes(b"")
    images = Images(
        ImageFiles([tmp_path / name for name in names]), np.array([0, 0, 0, 1, 1]), ("a", "b"), names=[*"vwxyz"]
    )
    for channels in (1, 3):
        prepared = prepare(images, 12, channels=channels, skip_bad=True)
        assert prepared.warnings == (f"{ACROSS}: 1 (v = w = z)",)
        assert prepared.positions.tolist() == [0, 1, 3, 4]


def test_images_that_have_no_files_are_not_remarked_on():
    blank = np.zeros((4, 9, 9), dtype=np.uint8)
    assert prepare(Images(blank, np.array([0, 0, 1, 1]), ("a", "b")), None).warnings == ()
