import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from featbench.data.image_files import find_image_files, hash_image_folder
from featbench.data.image_reader import read_image
from featbench.errors import DataError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("ending", [".png", ".bmp"])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (1, 1)])
def test_lossless_images_come_back_as_they_were(tmp_path, ending, shape):
    array = pixels(*shape)
    read = read_image(save(tmp_path / f"a{ending}", array))
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


def test_jpeg_images_come_back_nearly_as_they_were(tmp_path):
    row, column = np.mgrid[:40, :30]
    array = (127 + 80 * np.sin(row / 9) * np.cos(column / 7)).astype(np.uint8)
    read = read_image(save(tmp_path / "a.jpg", array, quality=95))
    assert read.shape == (40, 30)
    assert np.abs(read.astype(int) - array).max() <= 6


def test_plain_grey_map_is_read_byte_by_byte(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5\n3 2\n255\n" + bytes([0, 1, 2, 253, 254, 255]))
    assert read_image(tmp_path / "a.pgm").tolist() == [[0, 1, 2], [253, 254, 255]]


def test_sixteen_bits_are_scaled_to_eight_not_cut_off(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    (tmp_path / "a.pgm").write_bytes(b"P5\n16 16\n65535\n" + ramp.astype(">u2").tobytes())
    for name in ("a.png", "a.pgm"):
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8
        assert np.abs(read.astype(int) - np.arange(256).reshape(16, 16)).max() <= 1


def test_black_and_white_is_grey(tmp_path):
    array = pixels(6, 6) > 127
    assert np.array_equal(read_image(save(tmp_path / "a.png", array)), 255 * array.astype(np.uint8))


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(np.full((4, 6, 3), (200, 100, 50), dtype=np.uint8)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    read = read_image(path)
    assert read.shape == (4, 6, 3)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("ending", ["png", "jpeg", "bmp", "ppm"])
def test_cut_off_files_are_refused_by_name(tmp_path, ending):
    buffer = io.BytesIO()
    Image.fromarray(pixels(30, 20, 3)).save(buffer, ending)
    whole = buffer.getvalue()
    path = tmp_path / "cut.png"
    for length in (0, 1, 10, len(whole) // 3, len(whole) * 9 // 10):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.png cannot be read as an image .*damaged"):
            read_image(path)


def test_damaged_contents_never_raise_anything_but_a_data_error(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(pixels(12, 10, 3)).save(buffer, "png")
    whole, refused = buffer.getvalue(), 0
    positions = range(0, len(whole), 3)
    for position in positions:
        (tmp_path / "a.png").write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            read_image(tmp_path / "a.png")
        except DataError:
            refused += 1
    assert refused > 0.8 * len(positions)


def test_text_named_as_an_image_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read as an image"):
        read_image(tmp_path / "a.jpg")


def test_files_of_a_folder_are_found_below_it_sorted_by_path(tmp_path):
    for name in ("b/2.PNG", "a/9.jpg", "b/1.jpeg", "z.bmp", "c/d/e.pgm"):
        save(tmp_path / name, pixels(3, 3), format="png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert [str(path.relative_to(tmp_path)) for path in find_image_files(tmp_path)] == [
        "a/9.jpg",
        "b/1.jpeg",
        "b/2.PNG",
        "c/d/e.pgm",
        "z.bmp",
    ]


def test_folder_is_read_in_that_order(tmp_path):
    arrays = {name: pixels(3, 4 + number, seed=number) for number, name in enumerate(("c.png", "a.png", "b.png"))}
    for name, array in arrays.items():
        save(tmp_path / name, array)
    for read, name in zip(map(read_image, find_image_files(tmp_path)), sorted(arrays), strict=True):
        assert np.array_equal(read, arrays[name])


def test_missing_and_empty_folders_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"no folder of images .*missing"):
        find_image_files(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("x")
    with pytest.raises(DataError, match=r"empty holds no images \(JPEG, PNG"):
        find_image_files(tmp_path / "empty")


def test_fingerprint_changes_with_names_and_contents_and_nothing_else(tmp_path):
    for folder in ("one", "two"):
        for number in range(3):
            save(tmp_path / folder / f"{number}.png", pixels(4, 4, seed=number))
    first = hash_image_folder(tmp_path / "one")
    assert len(first) == len(hashlib.sha256().hexdigest())
    assert hash_image_folder(tmp_path / "two") == first
    (tmp_path / "two" / "notes.txt").write_text("x")
    assert hash_image_folder(tmp_path / "two") == first
    (tmp_path / "two" / "2.png").rename(tmp_path / "two" / "3.png")
    renamed = hash_image_folder(tmp_path / "two")
    save(tmp_path / "one" / "2.png", pixels(4, 4, seed=9))
    changed = hash_image_folder(tmp_path / "one")
    assert len({first, renamed, changed}) == 3
