import gzip
import struct

import numpy as np
import pytest

from featbench.datasets.mnist import IMAGES, LABELS, Mnist, read_idx
from featbench.errors import DataError
from featbench.registry import Registry

FILES = {
    "train-images-idx3-ubyte": 0,
    "train-labels-idx1-ubyte": 0,
    "t10k-images-idx3-ubyte": 1,
    "t10k-labels-idx1-ubyte": 1,
}


def idx(array, magic=None):
    """The bytes of an idx file: 0, 0, 8 for unsigned bytes, the number of sides, each side in 4 bytes, the values."""
    header = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return header + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.astype(np.uint8).tobytes()


def digits(count, seed, side=5):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, side, side)), np.arange(count) % 10


def write(folder, compressed=True, **replaced):
    """Write the four files; `replaced` gives other bytes for some of them, by the stem with underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, part in FILES.items():
        images, labels = digits((12, 7)[part], part)
        raw = idx(images if "images" in stem else labels)
        raw = replaced.get(stem.replace("-", "_"), raw)
        (folder / (f"{stem}.gz" if compressed else stem)).write_bytes(gzip.compress(raw) if compressed else raw)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("below", [".", "mnist"])
def test_files_are_read_compressed_or_not_from_the_folder_or_its_mnist(tmp_path, compressed, below):
    write(tmp_path / below, compressed)
    images = Mnist().load(tmp_path)
    (train, train_labels), (test, test_labels) = digits(12, 0), digits(7, 1)
    assert images.pixels.dtype == np.uint8
    assert images.labels.dtype == np.int64
    assert np.array_equal(images.pixels, np.concatenate([train, test]))
    assert np.array_equal(images.labels, np.concatenate([train_labels, test_labels]))
    assert images.classes == tuple("0123456789")
    assert images.test.tolist() == 12 * [False] + 7 * [True]


def test_values_are_in_the_order_of_the_format(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes([1, 2, 3, 250, 251, 252]))
    assert read_idx(path, IMAGES).tolist() == [[[1, 2, 3], [250, 251, 252]]]
    path.write_bytes(struct.pack(">II", 2049, 2) + bytes([9, 4]))
    assert read_idx(path, LABELS).tolist() == [9, 4]


def test_compressed_and_plain_files_may_be_mixed(tmp_path):
    write(tmp_path / "mnist")
    stem = "t10k-labels-idx1-ubyte"
    (tmp_path / "mnist" / f"{stem}.gz").unlink()
    (tmp_path / stem).write_bytes(idx(np.full(7, 3)))
    assert Mnist().load(tmp_path).labels[12:].tolist() == 7 * [3]


def test_file_of_another_kind_is_refused_with_both_magic_numbers(tmp_path):
    path = tmp_path / "swapped"
    path.write_bytes(idx(np.zeros((3, 5, 5))))
    with pytest.raises(DataError, match=r"swapped is not an idx file of 1-sided .* 0x00000803, not 0x00000801"):
        read_idx(path, LABELS)
    path.write_bytes(idx(np.zeros((2, 2, 2)), magic=bytes([0, 0, 13, 3])))
    with pytest.raises(DataError, match=r"swapped is not an idx file of 3-sided .* 0x00000d03"):
        read_idx(path, IMAGES)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-1], r"truncated: 90 bytes, its header \[3, 5, 5\] asks for 91"),
        (lambda raw: raw[:16], r"truncated: 16 bytes, its header \[3, 5, 5\] asks for 91"),
        (lambda raw: raw[:15], r"truncated: 15 bytes, its header alone has 16"),
        (lambda raw: b"", r"truncated: 0 bytes, its header alone has 16"),
        (lambda raw: raw + b"\0", r"too long: 92 bytes, its header \[3, 5, 5\] asks for 91"),
    ],
)
def test_length_that_the_header_does_not_ask_for_is_refused(tmp_path, change, message, compressed):
    path = tmp_path / "images"
    raw = change(idx(np.ones((3, 5, 5))))
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    with pytest.raises(DataError, match=rf"images is {message}"):
        read_idx(path, IMAGES)


def test_huge_header_is_refused_without_asking_for_the_memory(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(struct.pack(">IIII", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"abc")
    with pytest.raises(DataError, match="images is truncated: 19 bytes"):
        read_idx(path, IMAGES)


def test_compressed_file_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    whole = gzip.compress(idx(digits(12, 0)[0]))
    for length in [2, 3, 9, 10, 11, *range(20, len(whole), 17), len(whole) - 8, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"images\.gz .*(damaged or truncated|no idx file|is truncated)"):
            read_idx(path, IMAGES)


def test_compressed_file_with_a_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    whole = gzip.compress(idx(digits(12, 0)[0]), mtime=0)
    # The ten bytes of the gzip header hold nothing that the data depend on but the method and the flags.
    for position in [2, 3, *range(10, len(whole), 4), *range(len(whole) - 8, len(whole))]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with pytest.raises(DataError, match=r"images\.gz"):
            read_idx(path, IMAGES)


def test_something_after_the_compressed_data_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(np.ones((3, 5, 5)))) + b"rest")
    with pytest.raises(DataError, match=r"images\.gz cannot be read"):
        read_idx(path, IMAGES)


def test_label_that_is_no_digit_is_refused(tmp_path):
    labels = digits(12, 0)[1]
    labels[5] = 10
    write(tmp_path, train_labels_idx1_ubyte=idx(labels))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz holds the label 10; labels are 0 to 9"):
        Mnist().load(tmp_path)


@pytest.mark.parametrize("count", [6, 8])
def test_counts_that_differ_are_refused_with_both_files(tmp_path, count):
    write(tmp_path, t10k_labels_idx1_ubyte=idx(np.zeros(count)))
    with pytest.raises(
        DataError,
        match=rf"t10k-images-idx3-ubyte\.gz holds 7 images, but .*t10k-labels-idx1-ubyte\.gz holds {count} labels",
    ):
        Mnist().load(tmp_path)


def test_images_of_two_sizes_are_refused_with_both_files(tmp_path):
    write(tmp_path, t10k_images_idx3_ubyte=idx(digits(7, 1, side=6)[0]))
    with pytest.raises(DataError, match=r"\(5, 5\) in .*train-images.* but \(6, 6\) in .*t10k-images"):
        Mnist().load(tmp_path)


@pytest.mark.parametrize("stem", FILES)
def test_missing_file_is_named_with_the_folders_it_was_looked_for_in(tmp_path, stem):
    write(tmp_path / "mnist")
    (tmp_path / "mnist" / f"{stem}.gz").unlink()
    for call in (Mnist().load, Mnist().fingerprint):
        with pytest.raises(DataError) as caught:
            call(tmp_path)
        assert f"{stem}.gz" in str(caught.value)
        assert str(tmp_path / "mnist") in str(caught.value)


def test_no_folder_at_all_says_how_to_give_one():
    for call in (Mnist().load, Mnist().fingerprint):
        with pytest.raises(DataError, match="set FEATBENCH_DATA or --data-dir"):
            call(None)


def test_fingerprint_changes_with_any_of_the_files(tmp_path):
    prints = {Mnist().fingerprint(write(tmp_path / "whole"))}
    assert Mnist().fingerprint(write(tmp_path / "again")) in prints
    for stem in FILES:
        part = FILES[stem]
        array = digits((12, 7)[part], part)["labels" in stem].copy()
        array.flat[-1] ^= 1
        prints.add(Mnist().fingerprint(write(tmp_path / stem, **{stem.replace("-", "_"): idx(array)})))
    assert len(prints) == 5


def test_it_is_registered_as_mnist():
    assert isinstance(Registry().dataset("mnist"), Mnist)


def test_real_files_are_those_of_the_data_sets_page(real_files):
    images = Mnist().load(real_files(Mnist()))
    assert images.pixels.shape == (70_000, 28, 28)
    assert images.test.tolist() == 60_000 * [False] + 10_000 * [True]
    assert images.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.labels[60_000:60_005].tolist() == [7, 2, 1, 0, 4]
    train, test = np.bincount(images.labels[:60_000]), np.bincount(images.labels[60_000:])
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.pixels[:60_000].mean() == pytest.approx(33.3184, abs=1e-3)
    assert images.pixels.min() == 0
    assert images.pixels.max() == 255
