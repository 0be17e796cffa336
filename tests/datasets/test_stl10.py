import numpy as np
import pytest

from featbench.datasets.stl10 import Stl10
from featbench.errors import DataError

NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
LABELS = {"train": (1, 10, 4), "test": (7, 2)}
LABELLED = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")


def photographs(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def binary(images):
    """The bytes of a file of images: of each image one colour after the other, of each colour one column after the
    other, from the top down."""
    return b"".join(
        image[:, column, colour].tobytes() for image in images for colour in range(3) for column in range(96)
    )


CONTENTS = {
    "train_X.bin": binary(photographs(3, 0)),
    "train_y.bin": bytes(LABELS["train"]),
    "test_X.bin": binary(photographs(2, 1)),
    "test_y.bin": bytes(LABELS["test"]),
    "unlabeled_X.bin": binary(photographs(4, 2)),
    "class_names.txt": "".join(f"{name}\n" for name in NAMES).encode(),
}


def write(folder, replaced=None):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (CONTENTS | (replaced or {})).items():
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize("below", [".", "stl10_binary"])
def test_labelled_parts_are_read_from_the_archives_folder_or_the_data_folder(tmp_path, below):
    write(tmp_path / below)
    images = Stl10().load(tmp_path)
    assert images.pixels.dtype == np.uint8
    assert images.pixels.flags.c_contiguous
    assert np.array_equal(images.pixels, np.concatenate([photographs(3, 0), photographs(2, 1)]))
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 9, 3, 6, 1]
    assert images.classes == NAMES
    assert images.test.tolist() == 3 * [False] + 2 * [True]


@pytest.mark.parametrize("row, column, colour", [(0, 0, 0), (0, 95, 0), (95, 0, 1), (2, 17, 2)])
def test_a_value_lies_where_the_format_says(tmp_path, row, column, colour):
    image = bytearray(3 * 96 * 96)
    image[9216 * colour + 96 * column + row] = 200
    write(tmp_path, {"train_X.bin": bytes(image), "train_y.bin": b"\x01", "unlabeled_X.bin": bytes(image)})
    for found in (Stl10().load(tmp_path).pixels[0], Stl10().pool(tmp_path)[0]):
        assert np.argwhere(found).tolist() == [[row, column, colour]]


def test_pool_gives_the_unlabelled_images_one_by_one_or_by_slices(tmp_path):
    write(tmp_path)
    expected = photographs(4, 2)
    pool = Stl10().pool(tmp_path)
    assert len(pool) == 4
    assert np.array_equal(np.stack(list(pool)), expected)
    assert np.array_equal(pool[-1], expected[3])
    assert np.array_equal(pool[np.int64(2)], expected[2])
    assert pool[1].dtype == np.uint8
    assert pool[1].flags.c_contiguous
    assert len(pool[1:3]) == 2
    assert np.array_equal(np.stack(list(pool[1:3])), expected[1:3])
    assert np.array_equal(pool[::-2][1], expected[1])
    assert len(pool[4:]) == 0
    for index in (4, -5):
        with pytest.raises(IndexError):
            pool[index]


def test_images_of_the_pool_do_not_change_the_file(tmp_path):
    write(tmp_path)
    image = Stl10().pool(tmp_path)[0]
    image[:] = 0
    assert (tmp_path / "unlabeled_X.bin").read_bytes() == CONTENTS["unlabeled_X.bin"]
    assert np.array_equal(Stl10().pool(tmp_path)[0], photographs(4, 2)[0])


def test_pool_of_any_size_is_not_read_as_a_whole(tmp_path):
    write(tmp_path)
    with (tmp_path / "unlabeled_X.bin").open("r+b") as file:
        file.truncate(10**6 * 3 * 96 * 96)
    pool = Stl10().pool(tmp_path)
    assert len(pool) == 10**6
    assert np.array_equal(pool[3], photographs(4, 2)[3])
    assert not pool[-1].any()
    assert len(pool[5:]) == 10**6 - 5


def test_labelled_part_does_without_the_unlabelled_file(tmp_path):
    whole = Stl10().fingerprint(write(tmp_path))
    (tmp_path / "unlabeled_X.bin").unlink()
    assert Stl10().fingerprint(tmp_path) == whole
    assert [path.name for path in Stl10().files(tmp_path)] == list(LABELLED)
    assert len(Stl10().load(tmp_path).pixels) == 5
    with pytest.raises(DataError, match=rf"no unlabeled_X\.bin in {tmp_path / 'stl10_binary'}, "):
        Stl10().pool(tmp_path)


@pytest.mark.parametrize("change", [-1, 1, -27647, 9216])
@pytest.mark.parametrize("file", ["train_X.bin", "test_X.bin", "unlabeled_X.bin"])
def test_file_that_ends_within_an_image_is_refused(tmp_path, file, change):
    content = CONTENTS[file][:change] if change < 0 else CONTENTS[file] + bytes(change)
    write(tmp_path, {file: content})
    call = Stl10().pool if file.startswith("unlabeled") else Stl10().load
    with pytest.raises(DataError, match=rf"{file} has {len(content)} bytes, which is not a multiple of 27648"):
        call(tmp_path)


@pytest.mark.parametrize("file", CONTENTS)
def test_empty_file_is_refused(tmp_path, file):
    write(tmp_path, {file: b""})
    call = Stl10().pool if file.startswith("unlabeled") else Stl10().load
    with pytest.raises(DataError, match=rf"{file} (is empty|holds 0 names)"):
        call(tmp_path)


@pytest.mark.parametrize("part", LABELS)
@pytest.mark.parametrize("label", [0, 11, 255])
def test_label_outside_the_classes_is_refused(tmp_path, part, label):
    write(tmp_path, {f"{part}_y.bin": bytes([*LABELS[part][:-1], label])})
    with pytest.raises(DataError, match=rf"{part}_y\.bin holds the label {label}; labels are 1 to 10"):
        Stl10().load(tmp_path)


@pytest.mark.parametrize("part", LABELS)
@pytest.mark.parametrize("more", [-1, 1])
def test_counts_that_differ_are_refused_with_both_files(tmp_path, part, more):
    count = len(LABELS[part])
    write(tmp_path, {f"{part}_y.bin": bytes((count + more) * [1])})
    with pytest.raises(
        DataError, match=rf"{part}_X\.bin holds {count} images, but .*{part}_y\.bin holds {count + more} labels"
    ):
        Stl10().load(tmp_path)


def test_names_that_are_too_many_are_refused(tmp_path):
    write(tmp_path, {"class_names.txt": CONTENTS["class_names.txt"] + b"zebra\n"})
    with pytest.raises(DataError, match=r"class_names\.txt holds 11 names"):
        Stl10().load(tmp_path)


@pytest.mark.parametrize("file", LABELLED)
def test_missing_file_is_named(tmp_path, file):
    (write(tmp_path / "stl10_binary") / file).unlink()
    for call in (Stl10().load, Stl10().fingerprint):
        with pytest.raises(DataError, match=f"no {file} in {tmp_path / 'stl10_binary'}, .* or {tmp_path}, in no"):
            call(tmp_path)


def test_fingerprint_changes_with_any_of_the_labelled_files(tmp_path):
    prints = {Stl10().fingerprint(write(tmp_path)), Stl10().fingerprint(write(tmp_path))}
    assert len(prints) == 1
    for file in LABELLED:
        prints.add(Stl10().fingerprint(write(tmp_path, {file: b"x"})))
    assert len(prints) == 6


def test_real_files_are_those_of_the_data_sets_page(real_files):
    images = Stl10().load(real_files(Stl10()))
    assert images.pixels.shape == (13_000, 96, 96, 3)
    assert images.test.tolist() == 5_000 * [False] + 8_000 * [True]
    assert np.bincount(images.labels[:5_000]).tolist() == 10 * [500]
    assert np.bincount(images.labels[5_000:]).tolist() == 10 * [800]
    assert images.classes == NAMES
    assert len(Stl10().pool(real_files(Stl10()))) == 100_000
