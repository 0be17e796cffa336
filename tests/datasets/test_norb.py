import gzip
import struct

import numpy as np
import pytest

from featbench.datasets.norb import BYTES, INTEGERS, SmallNorb, read_left, read_matrix, read_poses
from featbench.errors import DataError

TRAINING, TESTING = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"
STEMS = tuple(f"{part}-{kind}" for part in (TRAINING, TESTING) for kind in ("dat", "cat", "info"))
CATEGORIES = {TRAINING: (0, 4, 2), TESTING: (1, 3)}
POSES = {TRAINING: ((4, 0, 34, 5), (9, 8, 0, 0), (6, 3, 16, 2)), TESTING: ((0, 1, 2, 3), (5, 7, 32, 1))}


def matrix(array, magic=None):
    """The bytes of a binary matrix: the magic number (55 for bytes, 54 for integers), how many sides, at least three
    sides, the values; all in integers of four bytes, the lowest byte first."""
    kind = 0x55 if array.dtype == np.uint8 else 0x54
    sides = [*array.shape, *(3 - array.ndim) * [1]]
    header = (bytes([kind, 0x4C, 0x3D, 0x1E]) if magic is None else magic) + struct.pack("<i", array.ndim)
    values = array.tobytes() if array.dtype == np.uint8 else struct.pack(f"<{array.size}i", *array.ravel())
    return header + b"".join(struct.pack("<i", side) for side in sides) + values


def pairs(part):
    count = len(CATEGORIES[part])
    return np.random.default_rng(count).integers(0, 256, (count, 2, 96, 96), dtype=np.uint8)


CONTENTS = {
    f"{part}-{kind}": content
    for part in (TRAINING, TESTING)
    for kind, content in (
        ("dat", matrix(pairs(part))),
        ("cat", matrix(np.array(CATEGORIES[part], dtype=np.int32))),
        ("info", matrix(np.array(POSES[part], dtype=np.int32))),
    )
}


def write(folder, compressed=True, replaced=None):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in (CONTENTS | (replaced or {})).items():
        path = folder / (f"{stem}.mat.gz" if compressed else f"{stem}.mat")
        path.write_bytes(gzip.compress(content, 1) if compressed else content)
    return folder


def integers(*rows):
    return matrix(np.array(rows, dtype=np.int32))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("below", [".", "small-norb"])
def test_left_images_are_read_compressed_or_not_from_the_folder_or_its_small_norb(tmp_path, compressed, below):
    write(tmp_path / below, compressed)
    images = SmallNorb().load(tmp_path)
    assert images.pixels.dtype == np.uint8
    assert images.pixels.flags.c_contiguous
    assert np.array_equal(images.pixels, np.concatenate([pairs(TRAINING)[:, 0], pairs(TESTING)[:, 0]]))
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 4, 2, 1, 3]
    assert images.classes == ("animal", "human", "plane", "truck", "car")
    assert images.test.tolist() == 3 * [False] + 2 * [True]


@pytest.mark.parametrize("compressed", [True, False])
def test_poses_are_in_the_order_of_the_images(tmp_path, compressed):
    poses = SmallNorb().poses(write(tmp_path, compressed))
    assert poses.instance.tolist() == [4, 9, 6, 0, 5]
    assert poses.elevation.tolist() == [0, 8, 3, 1, 7]
    assert poses.azimuth.tolist() == [34, 0, 16, 2, 32]
    assert poses.lighting.tolist() == [5, 0, 2, 3, 1]
    assert poses.azimuth.dtype == np.int32


@pytest.mark.parametrize("number, camera, row, column", [(0, 0, 0, 95), (1, 0, 95, 0), (1, 0, 2, 17), (1, 1, 2, 17)])
def test_a_value_lies_where_the_format_says(tmp_path, number, camera, row, column):
    values = bytearray(2 * 2 * 96 * 96)
    values[((number * 2 + camera) * 96 + row) * 96 + column] = 200
    path = tmp_path / "dat"
    path.write_bytes(struct.pack("<6I", 0x1E3D4C55, 4, 2, 2, 96, 96) + values)
    assert np.argwhere(read_left(path)).tolist() == ([[number, row, column]] if camera == 0 else [])


def test_integers_are_little_endian_and_sides_that_are_too_many_are_skipped(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes.fromhex("544c3d1e 01000000 02000000 01000000 09000000 01020000 feffffff"))
    assert read_matrix(path, INTEGERS, 1).tolist() == [513, -2]
    path.write_bytes(bytes.fromhex("544c3d1e 02000000 01000000 02000000 01000000 07000000 00010000"))
    assert read_matrix(path, INTEGERS, 2).tolist() == [[7, 256]]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (matrix(np.ones((2, 1, 3, 4), dtype=np.int32)), "0x1e3d4c54 and 4"),
        (matrix(np.ones((2, 3, 4), dtype=np.uint8)), "0x1e3d4c55 and 3"),
        (matrix(np.ones((1, 1, 1, 1, 9), dtype=np.uint8)), "0x1e3d4c55 and 5"),
        (matrix(np.ones((1, 1, 1, 9), dtype=np.uint8), magic=bytes.fromhex("514c3d1e")), "0x1e3d4c51 and 4"),
        (matrix(np.ones((1, 1, 1, 9), dtype=np.uint8), magic=bytes.fromhex("1e3d4c55")), "0x554c3d1e and 4"),
        (b"MATLAB 5.0 MAT-file".ljust(128), "0x4c54414d and 891306561"),
    ],
)
def test_matrix_of_another_kind_is_refused_with_both_magic_numbers(tmp_path, content, found):
    path = tmp_path / "other"
    path.write_bytes(content)
    expected = rf"other is not a binary matrix of bytes with 4 sides: it starts with {found}, not 0x1e3d4c55 and 4"
    with pytest.raises(DataError, match=expected):
        read_matrix(path, BYTES, 4)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-1], r"truncated: 67 bytes, its header \[3, 4\] asks for 68"),
        (lambda raw: raw[:20], r"truncated: 20 bytes, its header \[3, 4\] asks for 68"),
        (lambda raw: raw[:19], r"truncated: 19 bytes, its header alone has 20"),
        (lambda raw: b"", r"truncated: 0 bytes, its header alone has 20"),
        (lambda raw: raw + b"\0", r"too long: its header \[3, 4\] asks for 68 bytes, and more"),
        (lambda raw: raw[:8] + bytes(4) + raw[12:], r"too long: its header \[0, 4\] asks for 20 bytes, and more"),
        (lambda raw: raw[:8] + bytes(4) + raw[12:20], r"empty: its header \[0, 4\] asks for nothing"),
    ],
)
def test_length_that_the_header_does_not_ask_for_is_refused(tmp_path, change, message, compressed):
    path = tmp_path / "info"
    raw = change(integers(*POSES[TRAINING]))
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    with pytest.raises(DataError, match=rf"info is {message}"):
        read_poses(path)


@pytest.mark.parametrize("side", [2**32 - 1, 2**31])
def test_huge_header_is_refused_without_asking_for_the_memory(tmp_path, side):
    path = tmp_path / "dat"
    path.write_bytes(struct.pack("<6I", 0x1E3D4C55, 4, side, side, side, side) + b"abc")
    with pytest.raises(DataError, match=r"dat is damaged: its header .* no more than 1073741824 are read"):
        read_left(path)


def test_huge_number_of_sides_is_refused(tmp_path):
    path = tmp_path / "cat"
    path.write_bytes(struct.pack("<6I", 0x1E3D4C54, 2**32 - 1, 1, 1, 1, 0))
    with pytest.raises(DataError, match=r"cat is not a binary matrix .* and 4294967295, not"):
        read_matrix(path, INTEGERS, 1)


@pytest.mark.parametrize("stem", STEMS)
def test_damaged_compressed_file_is_named(tmp_path, stem):
    path = write(tmp_path) / f"{stem}.mat.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{stem}\.mat\.gz cannot be read .* damaged or truncated"):
        SmallNorb().load(tmp_path)


@pytest.mark.parametrize("shape", [(3, 1, 96, 96), (3, 96, 96, 2), (3, 2, 108, 108)])
def test_images_that_are_no_small_stereo_pairs_are_refused(tmp_path, shape):
    stem = f"{TRAINING}-dat"
    write(tmp_path, replaced={stem: matrix(np.zeros(shape, dtype=np.uint8))})
    with pytest.raises(DataError, match=rf"{stem}\.mat\.gz holds images of \[{shape[1]}, .* \[2, 96, 96\]"):
        SmallNorb().load(tmp_path)


@pytest.mark.parametrize("part", [TRAINING, TESTING])
@pytest.mark.parametrize("label", [-1, 5, 2**31 - 1])
def test_category_outside_the_classes_is_refused(tmp_path, part, label):
    write(tmp_path, replaced={f"{part}-cat": integers(*CATEGORIES[part][:-1], label)})
    with pytest.raises(DataError, match=rf"{part}-cat\.mat\.gz holds the label {label}; labels are 0 to 4"):
        SmallNorb().load(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, -1, "the instance -1; it is 0 to 9"),
        (0, 10, "the instance 10; it is 0 to 9"),
        (1, 9, "the elevation 9; it is 0 to 8"),
        (2, 36, "the azimuth 36; it is 0 to 34 in steps of 2"),
        (2, 3, "the azimuth 3; it is 0 to 34 in steps of 2"),
        (3, 6, "the lighting 6; it is 0 to 5"),
    ],
)
def test_pose_out_of_range_is_refused(tmp_path, column, value, message):
    pose = list(POSES[TESTING][1])
    pose[column] = value
    write(tmp_path, replaced={f"{TESTING}-info": integers(POSES[TESTING][0], pose)})
    for call in (SmallNorb().load, SmallNorb().poses):
        with pytest.raises(DataError, match=rf"{TESTING}-info\.mat\.gz holds {message}"):
            call(tmp_path)


def test_poses_of_other_than_four_numbers_are_refused(tmp_path):
    write(tmp_path, replaced={f"{TRAINING}-info": integers((1, 2, 4), (1, 2, 4), (1, 2, 4))})
    with pytest.raises(DataError, match=r"training-info\.mat\.gz holds 3 numbers an image, not 4: instance, elevation"):
        SmallNorb().poses(tmp_path)


@pytest.mark.parametrize("part", [TRAINING, TESTING])
@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize(("kind", "called"), [("cat", "labels"), ("info", "poses")])
def test_counts_that_differ_are_refused_with_both_files(tmp_path, part, more, kind, called):
    count = len(CATEGORIES[part])
    rows = (count + more) * [0 if kind == "cat" else (0, 0, 0, 0)]
    write(tmp_path, replaced={f"{part}-{kind}": integers(*rows)})
    with pytest.raises(
        DataError,
        match=rf"{part}-dat\.mat\.gz holds {count} images, but .*{part}-{kind}\.mat\.gz holds {count + more} {called}",
    ):
        SmallNorb().load(tmp_path)


@pytest.mark.parametrize("stem", STEMS)
def test_missing_file_is_named(tmp_path, stem):
    (write(tmp_path / "small-norb") / f"{stem}.mat.gz").unlink()
    for call in (SmallNorb().load, SmallNorb().poses, SmallNorb().fingerprint):
        with pytest.raises(
            DataError, match=f"no {stem}.mat.gz or {stem}.mat in {tmp_path / 'small-norb'}, .* or {tmp_path}, in"
        ):
            call(tmp_path)


def test_fingerprint_changes_with_any_of_the_files(tmp_path):
    prints = {SmallNorb().fingerprint(write(tmp_path)), SmallNorb().fingerprint(write(tmp_path))}
    assert len(prints) == 1
    for stem in STEMS:
        prints.add(SmallNorb().fingerprint(write(tmp_path, replaced={stem: b"x"})))
    assert len(prints) == 7


def test_real_files_are_those_of_the_data_sets_page(real_files):
    folder = real_files(SmallNorb())
    images, poses = SmallNorb().load(folder), SmallNorb().poses(folder)
    assert images.pixels.shape == (48_600, 96, 96)
    assert images.test.tolist() == 24_300 * [False] + 24_300 * [True]
    assert np.bincount(images.labels[:24_300]).tolist() == 5 * [4_860]
    assert np.bincount(images.labels[24_300:]).tolist() == 5 * [4_860]
    assert set(poses.instance[:24_300].tolist()) == {4, 6, 7, 8, 9}
    assert set(poses.instance[24_300:].tolist()) == {0, 1, 2, 3, 5}
