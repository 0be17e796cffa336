import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest

from featbench.data.dataset import Download
from featbench.data.verification import verify
from featbench.datasets.mnist import IMAGES, LABELS, FashionMnist, Mnist, read_idx
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
        (folder / (f"{stem}.gz" if compressed else stem)).write_bytes(
            gzip.compress(raw, mtime=0) if compressed else raw
        )
    return folder


CONTENTS = {stem: idx(digits((12, 7)[part], part)[0 if "images" in stem else 1]) for stem, part in FILES.items()}


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
        (lambda raw: raw + b"\0", r"too long: its header \[3, 5, 5\] asks for 91 bytes, and more follow"),
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
    with pytest.raises(DataError, match=r"images is damaged: its header .* no more than 1073741824 are read"):
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


SPELLINGS = {
    "as published": "{stem}.gz",
    "unpacked": "{stem}",
    "with a dot": "{dotted}",
    "with a dot, packed": "{dotted}.gz",
    "with dots": "{dots}",
    "with underscores": "{lines}.gz",
    "in capitals": "{capitals}",
    "in a folder of its name": "{stem}/{stem}",
    "in a folder of its name with the ending": "{stem}.gz/{stem}.gz",
    "in a folder of the dotted name": "{dotted}/{dotted}",
    "dotted in a folder of its name": "{stem}/{dotted}",
    "torchvision's folder": "MNIST/raw/{stem}.gz",
    "torchvision's folder, unpacked": "MNIST/raw/{stem}",
    "a folder in capitals": "MNIST/{dotted}",
    "the set's own folder": "mnist/{dotted}",
    "unpacked in the set's own folder": "mnist/{stem}/{stem}",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_files_are_found_in_the_spellings_of_unpackers_and_mirrors(tmp_path, spelling):
    write(tmp_path / "published")
    for stem in FILES:
        names = {
            "dotted": stem.replace("-idx", ".idx"),
            "dots": stem.replace("-", "."),
            "lines": stem.replace("-", "_"),
        }
        path = tmp_path / "copy" / spelling.format(stem=stem, capitals=stem.upper(), **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = (tmp_path / f"published/{stem}.gz").read_bytes()
        path.write_bytes(packed if path.suffix == ".gz" else gzip.decompress(packed))
    images, copied = (Mnist().load(tmp_path / place) for place in ("published", "copy"))
    assert np.array_equal(images.pixels, copied.pixels)
    assert np.array_equal(images.labels, copied.labels)
    assert images.test.tolist() == copied.test.tolist()


class Published(Mnist):
    """Whose published files are those of `write`."""

    image_count = 19

    downloads = tuple(
        Download(
            f"http://set/{stem}.gz",
            f"mnist/{stem}.gz",
            f"md5:{hashlib.md5(gzip.compress(raw, mtime=0)).hexdigest()}",
            content=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        )
        for stem, raw in CONTENTS.items()
    )


def damage(raw):
    """The bytes with another last one, which a label may be as well."""
    return raw[:-1] + bytes([(raw[-1] + 1) % 10])


@pytest.mark.parametrize("below", ["mnist", ".", "MNIST/raw", "mnist/{stem}"])
@pytest.mark.parametrize("name", ["{stem}.gz", "{stem}", "{dotted}", "{dotted}.gz"])
@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("damaged", [None, *FILES])
def test_copies_are_sound_by_their_content_wherever_they_lie(tmp_path, below, name, level, damaged):
    for stem, raw in CONTENTS.items():
        path = tmp_path / f"{below}/{name}".format(stem=stem, dotted=stem.replace("-idx", ".idx"))
        path.parent.mkdir(parents=True, exist_ok=True)
        held = damage(raw) if stem == damaged else raw
        path.write_bytes(gzip.compress(held, level) if path.suffix == ".gz" else held)
    found = verify("mnist", Published(), tmp_path, lambda *_: None)
    if damaged is None:
        assert (found.problems, found.summary[-7:]) == ([], ": sound")
    else:
        (problem,) = found.problems
        assert damaged.replace("-idx", "") in problem.replace("-idx", "").replace(".idx", "")
        assert "not the published file" in problem
        assert found.summary == "mnist: 1 problem"


def test_unpacked_files_are_not_called_sound_where_only_the_packed_ones_have_a_checksum(tmp_path):
    class Packed(Published):
        downloads = tuple(replace(item, content=None) for item in Published.downloads)

    write(tmp_path, compressed=False)
    found = verify("mnist", Packed(), tmp_path, lambda *_: None)
    assert (found.problems, found.summary[-32:]) == ([], ": readable; no checksum is known")
    stem = "train-labels-idx1-ubyte"
    (tmp_path / stem).unlink()
    (tmp_path / f"{stem}.gz").write_bytes(gzip.compress(CONTENTS[stem], mtime=0))
    found = verify("mnist", Packed(), tmp_path, lambda *_: None)
    others = ", ".join(other for other in FILES if other != stem)
    assert found.summary.endswith(f": readable; no checksum is known of {others}")


@pytest.mark.parametrize("compressed", [True, False])
def test_fashion_mnist_does_not_take_mnists_files_for_its_own(tmp_path, monkeypatch, compressed):
    monkeypatch.setattr(Mnist, "downloads", Published.downloads)
    write(tmp_path, compressed)
    assert len(Mnist().load(tmp_path).pixels) == 19
    with pytest.raises(DataError, match=r"fashion-mnist: .*t10k-labels.* is mnist's: put the files of fashion-mnist"):
        FashionMnist().load(tmp_path)


@pytest.mark.parametrize("compressed", [True, False])
def test_mnist_does_not_take_fashion_mnists_files_for_its_own(tmp_path, monkeypatch, compressed):
    monkeypatch.setattr(FashionMnist, "downloads", Published.downloads)
    write(tmp_path, compressed)
    with pytest.raises(DataError, match=r"data set mnist: .*t10k-labels.* is fashion-mnist's: .* data fetch mnist`"):
        Mnist().load(tmp_path)


def test_the_published_content_is_that_of_the_real_files(real_files):
    folder = real_files(Mnist())
    for path, item in zip(Mnist().files(folder), Mnist.downloads, strict=True):
        assert item.checksum == f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"
        assert item.content == f"sha256:{hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()}"


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
