import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from featbench.datasets.svhn import Svhn, read_digits
from featbench.errors import DataError

LABELS = {"train": (1, 10, 9, 4), "test": (10, 2, 5)}


def digits(part):
    count = len(LABELS[part])
    images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, np.array(LABELS[part], dtype=np.uint8)


def variables(images, labels):
    """X has the images side by side on its last side, y a label in each row."""
    x = np.zeros((32, 32, 3, len(images)), dtype=np.uint8)
    for number, image in enumerate(images):
        x[:, :, :, number] = image
    return {"X": x, "y": np.array(labels, dtype=np.uint8).reshape(-1, 1)}


def write(folder, compressed=True, **replaced):
    """Write both files; `replaced` gives other variables for one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in LABELS:
        content = replaced.get(part, variables(*digits(part)))
        savemat(folder / f"{part}_32x32.mat", content, do_compression=compressed)
    return folder


def element(kind, content, order="<"):
    """The bytes of a data element of MATLAB's version 5: kind, number of bytes, the bytes, up to a multiple of 8."""
    return struct.pack(f"{order}2I", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(name, shape, values, imaginary=None, kind=9, order="<"):
    """The bytes of a variable of MATLAB's version 5 as its documentation has them: flags, sides, name, values."""
    form = kind if imaginary is None else kind | 0x0800
    body = element(6, struct.pack(f"{order}2I", form, 0), order)
    body += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    body += element(1, name.encode(), order) + element(2, values, order)
    return element(14, body if imaginary is None else body + element(2, imaginary, order), order)


def packed(variable):
    """The same variable deflated; such elements are not filled up to a multiple of 8."""
    content = zlib.compress(variable)
    return struct.pack("<2I", 15, len(content)) + content


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
NEW_HEADER = b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM"


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("below", [".", "svhn"])
def test_both_parts_are_read_from_the_folder_or_its_svhn(tmp_path, compressed, below):
    write(tmp_path / below, compressed)
    images = Svhn().load(tmp_path)
    assert images.pixels.dtype == np.uint8
    assert images.pixels.flags.c_contiguous
    assert np.array_equal(images.pixels, np.concatenate([digits("train")[0], digits("test")[0]]))
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [1, 0, 9, 4, 0, 2, 5]
    assert images.classes == tuple("0123456789")
    assert images.test.tolist() == 4 * [False] + 3 * [True]


@pytest.mark.parametrize("row, column, colour, number", [(0, 31, 0, 0), (31, 0, 1, 1), (2, 17, 2, 1)])
@pytest.mark.parametrize("order", "<>")
def test_a_value_lies_where_the_format_says(tmp_path, row, column, colour, number, order):
    values = bytearray(2 * 32 * 32 * 3)
    values[row + 32 * (column + 32 * (colour + 3 * number))] = 200
    content = matrix("X", (32, 32, 3, 2), bytes(values), order=order) + matrix("y", (2, 1), bytes([3, 10]), order=order)
    header = b"written by hand".ljust(124) + struct.pack(f"{order}2H", 0x0100, 0x4D49)
    (tmp_path / "a.mat").write_bytes(header + content)
    images, labels = read_digits(tmp_path / "a.mat")
    assert np.argwhere(images).tolist() == [[number, row, column, colour]]
    assert labels.tolist() == [3, 10]


def test_variables_beside_the_images_and_labels_do_no_harm(tmp_path):
    write(tmp_path, train=variables(*digits("train")) | {"note": "more", "cells": np.array(["a", 1], dtype=object)})
    assert len(Svhn().load(tmp_path).pixels) == 7


GOOD = variables(*digits("train"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": GOOD["X"]}, "holds X, but no variable y"),
        ({"y": GOOD["y"], "x": GOOD["X"]}, "holds x, y, but no variable X"),
        ({}, "holds nothing, but no variable X"),
        (GOOD | {"X": GOOD["X"].astype(float)}, r"variable X holds other than unsigned bytes, \[32, 32, 3, 4\], not"),
        (GOOD | {"X": GOOD["X"].astype(np.int8)}, "variable X holds other than unsigned bytes"),
        (GOOD | {"X": GOOD["X"] > 9}, "variable X holds other than unsigned bytes"),
        (GOOD | {"X": GOOD["X"].astype(complex)}, "variable X holds other than unsigned bytes"),
        (GOOD | {"X": np.array(["a", 1], dtype=object)}, "variable X holds other than unsigned bytes"),
        (GOOD | {"X": {"field": GOOD["X"]}}, "variable X holds other than unsigned bytes"),
        (GOOD | {"X": "text"}, "variable X holds other than unsigned bytes"),
        (GOOD | {"X": GOOD["X"][:, :, 0]}, r"variable X holds unsigned bytes, \[32, 32, 4\], not .* \[32, 32, 3, n\]"),
        (GOOD | {"X": GOOD["X"].transpose(3, 0, 1, 2)}, r"variable X holds unsigned bytes, \[4, 32, 32, 3\], not"),
        (GOOD | {"X": GOOD["X"][:31]}, r"variable X holds unsigned bytes, \[31, 32, 3, 4\], not"),
        (GOOD | {"X": GOOD["X"][..., :0], "y": GOOD["y"][:0]}, r"variable X holds .* \[32, 32, 3, 0\], not"),
        (GOOD | {"y": GOOD["y"].astype(np.int16)}, r"variable y holds other than .*, \[4, 1\], not .*, \[n, 1\]"),
        (GOOD | {"y": GOOD["y"].T}, r"variable y holds unsigned bytes, \[1, 4\], not"),
        (GOOD | {"y": GOOD["y"][:-1]}, "holds 4 images, but 3 labels"),
        (GOOD | {"y": np.repeat(GOOD["y"], 2, axis=0)}, "holds 4 images, but 8 labels"),
        (GOOD | {"y": np.array([[1], [2], [0], [3]], dtype=np.uint8)}, "holds the label 0; labels are 1 to 10"),
        (GOOD | {"y": np.array([[1], [2], [3], [11]], dtype=np.uint8)}, "holds the label 11; labels are 1 to 10"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_variables_that_are_not_those_of_cropped_digits_are_refused(tmp_path, content, message, compressed):
    write(tmp_path, compressed, test=content)
    with pytest.raises(DataError, match=rf"test_32x32\.mat:? {message}"):
        Svhn().load(tmp_path)


def test_complex_values_are_refused_whatever_their_type(tmp_path):
    content = matrix("X", (32, 32, 3, 1), bytes(3072), imaginary=bytes(3072)) + matrix("y", (1, 1), b"\x01")
    (tmp_path / "a.mat").write_bytes(HEADER + content)
    with pytest.raises(DataError, match=r"a\.mat: variable X holds other than unsigned bytes"):
        read_digits(tmp_path / "a.mat")


ONE = matrix("X", (32, 32, 3, 1), bytes(3072))
MARK = matrix("y", (1, 1), b"\x01")
PARTS = [element(6, struct.pack("<2I", 9, 0)), element(5, struct.pack("<2i", 1, 1)), element(1, b"y"), element(2, b"1")]


@pytest.mark.parametrize("pack", [bytes, packed])
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ([ONE, MARK, MARK], "holds two variables y"),
        ([ONE, element(2, b"\x01")], "holds something that is not a variable"),
        ([ONE, element(14, b"")], "holds a variable without flags, sides or name"),
        ([ONE, element(14, b"".join(PARTS[:2]))], "holds a variable without flags, sides or name"),
        ([ONE, element(14, b"".join(PARTS[1:]))], "holds a variable without flags, sides or name"),
        ([ONE, element(14, element(6, b"") + b"".join(PARTS[1:]))], "holds a variable without flags, sides or name"),
        ([ONE, element(14, b"".join(PARTS[:3]))], "variable y holds other than unsigned bytes"),
        ([ONE, element(14, b"".join(PARTS) + b"more")], "truncated, or 4 bytes too long"),
        ([ONE, element(14, b"".join(PARTS[:3]) + struct.pack("<2I", 2, 9))], "truncated: 9 bytes should follow, but 0"),
        ([ONE, element(14, b"".join(PARTS[:3]) + struct.pack("<2H", 2, 5))], "truncated, or 4 bytes too long"),
        ([ONE, element(14, b"".join(PARTS[:3]) + struct.pack("<2H3I", 2, 5, 0, 0, 0))], "truncated: 5 bytes"),
        ([ONE, element(14, PARTS[0] + element(5, bytes(9)) + b"".join(PARTS[2:]))], r"variable y .*, \[0, 0\], not"),
        ([ONE, matrix("y", (1, 1), b"\x01\x02")], r"variable y has 2 bytes, its sides \[1, 1\] ask for 1"),
        ([matrix("X", (32, 32, 3, 1), bytes(3071)), MARK], r"variable X has 3071 bytes, its sides .* ask for 3072"),
        ([matrix("X", (32, 32, 3, 2**31 - 1), bytes(3072)), MARK], r"variable X has 3072 bytes, its sides .* ask for"),
        ([matrix("X", (2**31 - 1,) * 64, bytes(3072)), MARK], "variable X holds unsigned bytes, .* not"),
        ([matrix("X", (1,) * 1000, b"1"), MARK], "variable X holds unsigned bytes, .* not"),
        ([matrix("X", (32, 32, 3, 1), bytes(3072), kind=0x0809), MARK], "variable X holds other than unsigned bytes"),
        ([matrix("X", (32, 32, 3, 1), bytes(3072), kind=1), MARK], "variable X holds other than unsigned bytes"),
    ],
)
def test_malformed_variables_are_refused_without_asking_for_memory(tmp_path, variables, message, pack):
    (tmp_path / "bad.mat").write_bytes(HEADER + b"".join(map(pack, variables)))
    with pytest.raises(DataError, match=rf"bad\.mat: {message}"):
        read_digits(tmp_path / "bad.mat")


def test_deflated_variable_holds_one_variable(tmp_path):
    for content in (packed(ONE + MARK), packed(b""), packed(packed(ONE)), element(15, b"no deflated data")):
        (tmp_path / "bad.mat").write_bytes(HEADER + content)
        with pytest.raises(DataError, match=r"bad\.mat: (holds something that is not a variable|damaged \()"):
            read_digits(tmp_path / "bad.mat")


def bomb(head, megabytes):
    """A deflated variable: its head, and then that many megabytes of zeros."""
    inflated = zlib.compressobj(9)
    zeros = bytes(2**20)
    content = inflated.compress(head) + b"".join(inflated.compress(zeros) for _ in range(megabytes)) + inflated.flush()
    return struct.pack("<2I", 15, len(content)) + content


def head(name, shape, size, kind=9):
    """What a variable of so many bytes starts with, up to its values."""
    start = element(6, struct.pack("<2I", kind, 0)) + element(5, struct.pack(f"<{len(shape)}I", *shape))
    start += element(1, name.encode())
    return struct.pack("<2I", 14, len(start) + 8 + size) + start + struct.pack("<2I", 2, size)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (bomb(head("X", (32, 32, 3, 1), 3072), 100), "more bytes than its sides"),
        (bomb(head("X", (32, 32, 3, 1), 100 * 2**20), 100), "more bytes than its sides"),
        (bomb(head("X", (32, 32, 3, 10), 2**32 - 2**12), 100), "more bytes than its sides"),
        (bomb(head("X", (0, 0), 0), 100), "more bytes than its sides"),
        (bomb(head("X", (2**31, 2**31), 100 * 2**20), 2), "damaged|truncated|more follow|asks? for"),
        (bomb(head("X", (100 * 2**20,), 100 * 2**20, kind=6), 100), "variable X holds other than unsigned bytes"),
        (bomb(head("other", (100 * 2**20,), 100 * 2**20, kind=1), 100), "holds other, but no variable X"),
        (bomb(bytes(8), 100), "without flags, sides or name"),
        (bomb(head("X" * 2**17, (1, 1), 1), 100), "truncated: 131072 bytes should follow"),
        (bomb(head("X", (1,) * 2**15, 1), 100), "truncated: 131072 bytes should follow"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_bomb_inflates_to_what_its_sides_account_for_and_no_further(tmp_path, variable, message, pack):
    (tmp_path / "bomb.mat").write_bytes(pack(HEADER + variable))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"bomb\.mat: .*({message})"):
            read_digits(tmp_path / "bomb.mat")
        assert tracemalloc.get_traced_memory()[1] < 2**27 + 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compressed", [True, False])
def test_file_cut_off_anywhere_is_refused(tmp_path, compressed):
    whole = (write(tmp_path, compressed) / "train_32x32.mat").read_bytes()
    path = tmp_path / "cut.mat"
    for length in [*range(0, 300, 7), *range(300, len(whole), 997), *range(-64, 0, 3)]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.mat: (not a MATLAB|truncated|holds (nothing|X), but no)"):
            read_digits(path)


def test_compressed_file_with_a_flipped_byte_is_refused(tmp_path):
    whole = (write(tmp_path) / "train_32x32.mat").read_bytes()
    path = tmp_path / "flipped.mat"
    for position in [*range(124, 200, 3), *range(200, len(whole), 997)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with pytest.raises(DataError, match=r"flipped\.mat"):
            read_digits(path)


def test_flipped_bits_where_a_plain_file_describes_itself_never_end_in_another_error(tmp_path):
    whole = (write(tmp_path, compressed=False) / "train_32x32.mat").read_bytes()
    path = tmp_path / "flipped.mat"
    refused = 0
    for position in range(124, 200):
        for bits in (0x01, 0x08, 0xFF):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ bits]) + whole[position + 1 :])
            try:
                images, _ = read_digits(path)
                assert np.array_equal(images, digits("train")[0]) or position >= 192
            except DataError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused > 100


def test_something_after_the_variables_is_refused(tmp_path):
    whole = (write(tmp_path) / "train_32x32.mat").read_bytes()
    for rest in (b"x", b"\xff" * 64, bytes(64)):
        (tmp_path / "more.mat").write_bytes(whole + rest)
        with pytest.raises(DataError, match=r"more\.mat: (truncated|holds something that is not a variable)"):
            read_digits(tmp_path / "more.mat")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NEW_HEADER + b"\x89HDF" + bytes(512), "a MATLAB file of version 7.3"),
        (b"\x89HDF\r\n\x1a\n" + bytes(512), "not a MATLAB file of version 5"),
        (b"\x80\x04cos\nsystem\n(S'true'\ntR." + bytes(200), "not a MATLAB file of version 5"),
        (b"not found\n" * 30, "not a MATLAB file of version 5"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path, content, message):
    (tmp_path / "other.mat").write_bytes(content)
    with pytest.raises(DataError, match=rf"other\.mat: {message}"):
        read_digits(tmp_path / "other.mat")


@pytest.mark.parametrize("part", LABELS)
def test_missing_file_is_named(tmp_path, part):
    file = f"{part}_32x32.mat"
    (write(tmp_path / "svhn") / file).unlink()
    for call in (Svhn().load, Svhn().fingerprint):
        with pytest.raises(DataError, match=f"no {file} or {file}.gz in {tmp_path / 'svhn'} or {tmp_path}, in no"):
            call(tmp_path)


def test_fingerprint_changes_with_either_file(tmp_path):
    write(tmp_path)
    prints = {Svhn().fingerprint(tmp_path)}
    for part in LABELS:
        with (tmp_path / f"{part}_32x32.mat").open("ab") as file:
            file.write(b"x")
        prints.add(Svhn().fingerprint(tmp_path))
    assert len(prints) == 3


def test_real_files_are_those_of_the_data_sets_page(real_files):
    images = Svhn().load(real_files(Svhn()))
    assert images.pixels.shape == (73_257 + 26_032, 32, 32, 3)
    assert images.test.tolist() == 73_257 * [False] + 26_032 * [True]
    assert np.bincount(images.labels).min() > 0
