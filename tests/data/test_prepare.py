import io
import threading
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from PIL import Image

from featbench.data.image_files import ImageFiles
from featbench.data.prepare import PackedImages, convert_to_grey, prepare, resize
from featbench.errors import DataError
from featbench.types import Images

sides = st.tuples(st.integers(1, 6), st.integers(1, 6))
grey_images = st.sampled_from([np.uint8, np.float32]).flatmap(
    lambda dtype: st.lists(hn.arrays(dtype, sides, elements=st.integers(0, 255)), min_size=1, max_size=8)
)


def picture(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labelled(pixels, test=None):
    """Images with labels 0, 1, 2, 0, ..."""
    return Images(pixels, np.arange(len(pixels)) % 3, ("a", "b", "c"), test)


def encoded(array, form="png"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def files(tmp_path):
    """Twelve image files of several sizes; returns their paths."""
    paths = [tmp_path / f"{number:02}.png" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(picture(10 + number, 12, *(3,) * (number % 2), seed=number)))
    return paths


# Packed images.


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(grey_images)
def test_packed_images_come_out_as_they_went_in(images):
    packed = PackedImages.pack(images)
    assert len(packed) == len(images)
    assert packed.flat.dtype == images[0].dtype
    assert packed.flat.ndim == 1
    for index, image in enumerate(images):
        assert packed[index].dtype == image.dtype
        assert np.array_equal(packed[index], image)
    again = PackedImages(packed.flat, packed.shapes)
    assert all(np.array_equal(one, other) for one, other in zip(again, images, strict=True))


def test_packed_images_share_the_memory_of_the_flat_array():
    packed = PackedImages.pack([picture(3, 4), picture(5, 2)])
    assert np.shares_memory(packed[1], packed.flat)


def test_a_packed_image_that_is_not_there_is_an_index_error():
    with pytest.raises(IndexError):
        PackedImages.pack([picture(3, 4), picture(5, 2)])[2]


# What is made of an image.


def test_bytes_stay_bytes_and_numbers_become_double_precision():
    for dtype, expected in ((np.uint8, np.uint8), (np.float32, np.float64), (np.float64, np.float64)):
        for shape in ((4, 9, 7), (4, 9, 7, 3)):
            made = prepare(labelled(picture(*shape).astype(dtype)), 5).pixels
            assert made.flat.dtype == expected


def test_integers_other_than_bytes_are_not_wrapped_around():
    pixels = picture(2, 5, 4).astype(np.int64) * 1000 - 5
    assert np.array_equal(prepare(labelled(pixels), None).pixels[1], pixels[1])


def test_an_image_is_made_grey_before_it_is_resized():
    image = picture(30, 20, 3)
    made = prepare(labelled([image]), 12).pixels[0]
    expected = Image.fromarray(image).convert("L").resize((8, 12), Image.Resampling.BICUBIC)
    assert np.array_equal(made, np.asarray(expected))


@pytest.mark.parametrize("size", [None, 9, 40])
def test_images_are_prepared_one_by_one_in_their_order(size, monkeypatch):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 3)
    pixels = [picture(8 + number, 20 - number, seed=number) for number in range(11)]
    prepared = prepare(labelled(pixels, test=np.arange(11) > 6), size)
    assert len(prepared.pixels) == 11
    for made, image in zip(prepared.pixels, pixels, strict=True):
        assert np.array_equal(made, convert_to_grey(image) if size is None else resize(convert_to_grey(image), size))
        assert size is None or max(made.shape) == size
    assert prepared.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
    assert prepared.test.tolist() == [False] * 7 + [True] * 4
    assert (prepared.classes, prepared.left_out) == (("a", "b", "c"), ())


class Slow(ImageFiles):
    """The first images are read last, whoever reads them."""

    threads: ClassVar[set] = set()

    def read(self, index):
        Slow.threads.add(threading.get_ident())
        time.sleep(0.02 * (index < 4))
        return super().read(index)


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_play_no_part_in_the_result(files, monkeypatch, threads):
    alone = prepare(labelled(ImageFiles(files)), 9)
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 2)
    monkeypatch.setattr("os.cpu_count", lambda: threads)
    Slow.threads.clear()
    files[1].write_bytes(b"")
    files[7].write_bytes(b"")
    prepared = prepare(labelled(Slow(files)), 9, skip_bad=True)
    assert len(Slow.threads) <= threads
    assert (len(Slow.threads) > 1) == (threads > 1)
    kept = [index for index in range(12) if index not in (1, 7)]
    assert all(np.array_equal(made, alone.pixels[index]) for made, index in zip(prepared.pixels, kept, strict=True))
    assert [line.split()[0] for line in prepared.left_out] == [str(files[1]), str(files[7])]


def test_progress_counts_the_images_up_to_all_of_them(monkeypatch):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 4)
    told = []
    prepare(labelled(picture(10, 5, 5)), None, progress=lambda *step: told.append(step))
    assert told == [("reading images", done, 10) for done in (4, 8, 10)]


# Images that cannot be used.

BAD = {
    "truncated": encoded(picture(60, 60), "jpeg")[:400],
    "text": b"not an image",
    "empty": b"",
    "header alone": encoded(picture(60, 60))[:20],
    "another format": b"II*\0" + bytes(20),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_read_is_named_and_not_left_out(files, case):
    path = files[5].with_suffix(".jpg")
    path.write_bytes(BAD[case])
    files[5] = path
    with pytest.raises(DataError, match=r"05\.jpg cannot be read as an image") as caught:
        prepare(labelled(ImageFiles(files)), 9)
    assert str(path) in str(caught.value)
    prepared = prepare(labelled(ImageFiles(files)), 9, skip_bad=True)
    (line,) = prepared.left_out
    assert str(path) in line
    whole = [index for index in range(12) if index != 5]
    assert prepared.positions.tolist() == whole
    assert prepared.labels.tolist() == [index % 3 for index in whole]
    expected = [resize(convert_to_grey(ImageFiles(files)[index]), 9) for index in whole]
    assert all(np.array_equal(made, image) for made, image in zip(prepared.pixels, expected, strict=True))


def test_a_file_that_is_gone_is_named(files):
    files[3].unlink()
    with pytest.raises(DataError, match=r"03\.png cannot be read"):
        prepare(labelled(ImageFiles(files)), None)


def test_a_readable_image_with_the_ending_of_another_format_is_read(files):
    expected = prepare(labelled(ImageFiles(files[:1])), None).pixels[0]
    wrong = files[0].rename(files[0].with_suffix(".jpg"))
    assert np.array_equal(prepare(labelled(ImageFiles([wrong])), None).pixels[0], expected)


def test_all_bad_files_are_named_at_once_with_what_can_be_done(files, monkeypatch):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 2)
    for index in (1, 6, 11):
        files[index].write_bytes(b"bad")
    with pytest.raises(DataError) as caught:
        prepare(labelled(ImageFiles(files)), 9)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 of 12 images cannot be used: mend or remove them, or leave them out with --skip-bad")
    assert [line.split()[0] for line in lines[1:]] == [str(files[index]) for index in (1, 6, 11)]


def test_of_many_bad_files_the_first_are_named(tmp_path):
    paths = [tmp_path / f"{number:02}.png" for number in range(30)]
    for path in paths[1:]:
        path.write_bytes(b"bad")
    paths[0].write_bytes(encoded(picture(5, 5)))
    with pytest.raises(DataError) as caught:
        prepare(labelled(ImageFiles(paths)), None)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("29 of 30 images")
    assert [line.split()[0] for line in lines[1:]] == [*map(str, paths[1:21]), "…"]


def test_images_that_are_all_bad_are_said_to_be_so(files):
    for path in files:
        path.write_bytes(b"bad")
    with pytest.raises(DataError, match=r"none of the 12 images can be used; the first: .*00\.png"):
        prepare(labelled(ImageFiles(files)), None)


def test_own_test_images_stay_with_the_images_that_are_left(files):
    files[2].write_bytes(b"bad")
    test = np.arange(12) % 2 == 0
    prepared = prepare(labelled(ImageFiles(files), test), None, skip_bad=True)
    assert prepared.test.tolist() == [bool(index % 2 == 0) for index in range(12) if index != 2]


def test_an_image_with_a_side_shorter_than_is_needed_after_resizing_is_named_with_it(files):
    # 12 pixels wide, 10 to 21 high.
    made = prepare(labelled(ImageFiles(files)), 12, least=7)
    assert min(min(image.shape) for image in made.pixels) == 7
    with pytest.raises(DataError) as caught:
        prepare(labelled(ImageFiles(files)), 12, least=8)
    assert f"{files[10]} comes to 12×7 pixels, but 8×8 are needed at least" in str(caught.value)
    assert str(files[9]) not in str(caught.value)
    prepared = prepare(labelled(ImageFiles(files)), 12, least=8, skip_bad=True)
    assert len(prepared.pixels) == 12 - len(prepared.left_out) == 10


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4), np.nan), "image 1 holds values that are not finite"),
        (np.zeros((4, 4, 4)), r"image 1 has shape \[4, 4, 4\]"),
        (np.zeros((0, 4)), r"image 1 has shape \[0, 4\]"),
        (np.zeros(4), r"image 1 has shape \[4\]"),
    ],
)
def test_arrays_that_are_no_images_are_named_by_their_number(image, message):
    given = labelled([picture(4, 4), image, picture(4, 4)])
    with pytest.raises(DataError, match=message):
        prepare(given, None)
    assert prepare(given, None, skip_bad=True).labels.tolist() == [0, 2]


class Broken(list):
    """Images of which the second cannot be had."""

    def __init__(self, images, error):
        super().__init__(images)
        self.error = error

    def __getitem__(self, index):
        if index == 1:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "error",
    [
        *(ZeroDivisionError("by zero"), ValueError("ragged"), KeyError("x"), OSError("gone"), MemoryError("too large")),
        *(RuntimeError("decoder"), UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), EOFError("end"), StopIteration()),
        *(AssertionError(), RecursionError("deep")),
    ],
    ids=repr,
)
def test_whatever_a_data_sets_own_code_raises_names_the_image_and_can_be_left_out(error):
    images = labelled(Broken(list(picture(3, 4, 4)), error))
    with pytest.raises(DataError, match=f"^image 1 cannot be read: {type(error).__name__}: .*--skip-bad-images"):
        prepare(images, None)
    made = prepare(images, None, skip_bad=True)
    assert (len(made.pixels), len(made.left_out)) == (2, 1)


def test_lists_are_images_and_ragged_ones_and_masked_ones_are_not():
    rows = [[1, 2], [3, 4.5]]
    assert prepare(labelled([rows, rows]), None).pixels[1].tolist() == rows
    with pytest.raises(DataError, match=r"image 1 cannot be read: ValueError: .*inhomogeneous"):
        prepare(labelled([rows, [[1, 2], [3]]]), None)
    with pytest.raises(DataError, match="image 1 has masked values"):
        prepare(labelled([rows, np.ma.masked_equal(np.array(rows), 3)]), None)


def test_images_that_were_given_are_left_alone():
    given = labelled(picture(3, 8, 8), test=np.array([True, False, True]))
    before = replace(given, pixels=given.pixels.copy(), labels=given.labels.copy(), test=given.test.copy())
    prepare(given, 5)
    for name in ("pixels", "labels", "test"):
        assert np.array_equal(getattr(given, name), getattr(before, name))


def test_a_set_of_bad_images_alone_is_refused_even_where_they_may_be_left_out():
    odd = Images([np.zeros((2, 2, 4))] * 3, np.zeros(3, dtype=np.int64), ("a",))
    with pytest.raises(DataError, match="none of the 3 images can be used"):
        prepare(odd, None, skip_bad=True)


def test_a_single_bad_image_comes_with_what_can_be_done():
    images = Images([np.zeros((2, 2)), np.full((2, 2), np.nan)], np.zeros(2, dtype=np.int64), ("a",))
    with pytest.raises(DataError, match=r"image 1 holds values that are not finite, .* --skip-bad-images"):
        prepare(images, None)
