import threading
from collections.abc import Sequence

import numpy as np
import pytest

from featbench.data import inventory
from featbench.data.dataset import Dataset, Download, FileDataset, hash_files
from featbench.data.inventory import about, describe, fetch, missing, require_here, summary, verify
from featbench.errors import DataError, UsageError
from featbench.types import Images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (200, 4, 6), dtype=np.uint8)
LABELS = np.arange(200) % 3
MD5 = "md5:5d41402abc4b2a76b9719d911017c592"
"""Of b"hello"."""


class Set(Dataset):
    """Things in three classes. They
    are drawn at random.

    More of it."""

    name = "set"

    def __init__(self, pixels=PIXELS, labels=LABELS, classes=("a", "b", "c"), test=None, **attributes):
        self.images = Images(pixels, labels, classes, test)
        for key, value in attributes.items():
            setattr(self, key, value)

    def fingerprint(self, data_dir):
        return "f00d"

    def load(self, data_dir):
        return self.images


class Files(Set, FileDataset):
    """A set of one file."""

    def files(self, data_dir):
        if data_dir is None or not (data_dir / "file").is_file():
            raise DataError("there is no file")
        return [data_dir / "file"]

    fingerprint = FileDataset.fingerprint


class Lazy(Sequence):
    """Images of many sizes; `broken` says which of them raise what."""

    def __init__(self, count, broken=None):
        self.count, self.broken, self.read = count, broken or {}, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.broken:
            raise self.broken[index]
        return np.zeros((5 + index % 3, 7), dtype=np.uint8)


def lazy(count, broken=None):
    return Set(Lazy(count, broken), np.arange(count) % 3)


@pytest.fixture
def check():
    """Verify a data set; what was told of its progress is kept."""

    def check(dataset, data_dir=None):
        check.told = []
        return verify("set", dataset, data_dir, lambda *far: check.told.append(far))

    return check


def described(dataset, data_dir=None):
    found = {}
    for label, text in describe("set", dataset, data_dir):
        found.setdefault(label, []).append(text)
    return found


def test_a_data_set_says_what_it_is():
    assert about(Set()) == "Things in three classes. They are drawn at random."
    assert summary(Set()) == "Things in three classes."


def test_files_are_looked_for_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Files, "fingerprint", lambda *_: pytest.fail("that reads every file"))
    assert missing("set", Files(), None) == missing("set", Files(), tmp_path) == "there is no file"
    (tmp_path / "file").write_bytes(b"")
    assert missing("set", Files(), tmp_path) == ""
    require_here("set", Files(), tmp_path)


def test_a_data_set_that_breaks_is_not_here():
    broken = Set(fingerprint=lambda _: 1 / 0)
    assert missing("set", broken, None) == "data set set cannot be read: ZeroDivisionError: division by zero"


# Descriptions.


def test_a_description_names_what_is_known():
    found = described(Set(source="Somebody 2020", licence="CC0", homepage="http://set"))
    assert found == {
        "name": ["set"],
        "about": ["Things in three classes. They are drawn at random."],
        "source": ["Somebody 2020"],
        "licence": ["CC0"],
        "homepage": ["http://set"],
        "images": ["200, 4×6, grey, uint8"],
        "classes": ["3: a, b, c"],
        "smallest": ["c (66)"],
        "largest": ["a (67)"],
    }


def test_downloads_are_described(tmp_path):
    downloads = (Download("http://x/a", "set/a", MD5), Download("http://x/b.zip", "b.zip", MD5, unpack="set"))
    assert described(Set(downloads=downloads))["download"] == [
        f"http://x/a to set/a ({MD5})",
        f"http://x/b.zip to b.zip, unpacked into set ({MD5})",
    ]


def test_test_images_many_classes_colours_and_remarks_are_described():
    dataset = Set(
        np.zeros((24, 5, 6, 3), dtype=np.float32),
        np.arange(24) % 12,
        tuple("abcdefghijkl"),
        np.arange(24) < 7,
        remarks=lambda _: ["one", "two"],
    )
    found = described(dataset)
    assert found["classes"] == ["12: a, b, c, d, e, f, g, h, i, j, …"]
    assert found["test"] == ["7 of the images"]
    assert found["images"] == ["24, 5×6, in colour, float32"]
    assert found["remark"] == ["one", "two"]


def test_a_description_decodes_no_image():
    dataset = lazy(30)
    found = described(dataset)
    assert found["images"] == ["30, of sizes that `featbench data verify` finds"]
    assert dataset.images.pixels.read == []


def test_what_is_missing_is_described(tmp_path):
    assert described(Files(), tmp_path) == {
        "name": ["set"],
        "about": ["A set of one file."],
        "not here": ["there is no file"],
    }
    (tmp_path / "file").write_bytes(bytes(1_250_000))
    assert described(Files(), tmp_path)["here"] == [f"1 file in {tmp_path}, 1.2 MB"]


def test_a_copy_that_cannot_be_loaded_is_an_error_after_what_is_known():
    lines = describe("set", Set(load=lambda _: 1 / 0), None)
    assert next(lines) == ("name", "set")
    with pytest.raises(DataError, match="ZeroDivisionError"):
        list(lines)


# Verification.


def test_a_sound_set_is_said_to_be_sound(check):
    found = check(Set(remarks=lambda _: ["a remark"]))
    assert found.problems == []
    assert found.summary == "set: 200 images, 3 classes, smallest c (66), fingerprint f00d: sound"
    assert found.notes == ["a remark", "images: 200, 4×6, grey, uint8"]
    assert [far for far in check.told if far[0] == "reading images"] == [
        ("reading images", done, 200) for done in (64, 128, 192, 200)
    ]


def test_every_image_is_read_once(check):
    dataset = lazy(300)
    found = check(dataset)
    assert sorted(dataset.images.pixels.read) == list(range(300))
    assert found.notes == ["images: 300, 5–7×7, grey, uint8"]


def test_images_are_read_by_several_threads(check, monkeypatch):
    monkeypatch.setattr(inventory.os, "cpu_count", lambda: 2)
    meet = threading.Barrier(2, timeout=5)

    class Meeting(Lazy):
        def __getitem__(self, index):
            if index in (0, 64):
                meet.wait()
            return super().__getitem__(index)

    assert check(Set(Meeting(128), np.arange(128) % 3)).problems == []


def test_every_damaged_image_is_named(check):
    broken = {7: DataError("x/7.jpg is damaged"), 70: ValueError("no idea"), 199: DataError("x/199.jpg is damaged")}
    found = check(lazy(200, broken))
    assert found.problems == [
        "image 7: x/7.jpg is damaged",
        "image 70: data set set cannot be read: ValueError: no idea",
        "image 199: x/199.jpg is damaged",
    ]
    assert found.summary == "set: 3 problems"


@pytest.mark.parametrize(
    "image, words",
    [
        (np.zeros((4, 6, 2), dtype=np.uint8), "image 1 has shape"),
        (np.zeros((0, 6), dtype=np.uint8), "image 1 has shape"),
        (np.full((4, 6), np.nan), "image 1 holds values that are not finite"),
    ],
)
def test_images_that_no_learner_could_use_are_named(check, image, words):
    found = check(Set([PIXELS[0], image, PIXELS[2]], np.arange(3)))
    (problem,) = found.problems
    assert words in problem
    assert found.summary == "set: 1 problem"


def test_classes_without_images_are_named(check):
    found = check(Set(classes=("a", "b", "c", "d", "e")))
    assert found.problems == ["class 'd' has no images", "class 'e' has no images"]


@pytest.mark.parametrize("attributes", [{"labels": LABELS[:-1]}, {"classes": ("a", "b")}, {"labels": LABELS * 1.0}])
def test_a_broken_contract_is_a_problem(check, attributes):
    (problem,) = check(Set(**attributes)).problems
    assert "data set set has" in problem


def test_a_set_that_cannot_be_loaded_is_a_problem(check):
    found = check(Set(load=lambda _: 1 / 0))
    assert found.problems == ["data set set cannot be read: ZeroDivisionError: division by zero"]


def test_the_content_is_compared_with_the_reference(check):
    assert "the content is that of the reference copy" in check(Set(content="f00d")).notes
    found = check(Set(content="beef"))
    assert found.problems == ["the content differs from that of the reference copy: f00d, not beef"]


def test_files_are_compared_with_what_was_published(check, tmp_path):
    downloads = (
        *(Download("", name, MD5) for name in ("right", "wrong", "absent")),
        Download("", "archive", MD5, unpack="."),
        Download("", "unclear", "md5:?"),
    )
    (tmp_path / "right").write_bytes(b"hello")
    for name in ("wrong", "archive", "unclear"):
        (tmp_path / name).write_bytes(b"other!")
    found = check(Set(downloads=downloads), tmp_path)
    wrong = f"{tmp_path / 'wrong'}: 6 bytes, not the published file ({MD5}): `featbench data fetch set` replaces it"
    assert found.problems[0] == wrong
    assert "md5:?" in found.problems[1]
    assert len(found.problems) == 2
    assert found.notes[0] == f"{tmp_path / 'right'}: 5 bytes, {MD5} as published"
    assert not any("archive" in note or "absent" in note for note in found.notes)
    assert check(Set(downloads=downloads), None).problems == []


def test_a_fingerprint_that_cannot_be_had_is_a_problem(check, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    assert check(Files(), tmp_path).summary.endswith(f"fingerprint {hash_files([tmp_path / 'file'])}: sound")
    monkeypatch.setattr(Files, "fingerprint", lambda *_: 1 / 0)
    assert check(Files(), tmp_path).problems == ["data set set cannot be read: ZeroDivisionError: division by zero"]


def test_what_is_not_here_cannot_be_verified(check, tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        check(Files(), tmp_path)


def test_unlabelled_images_are_read_too(check):
    pool = Lazy(70, {66: DataError("torn")})

    class Pooled(Set):
        def pool(self, data_dir):
            return pool

    found = check(Pooled())
    assert found.problems == ["unlabelled image 66: torn"]
    assert "unlabelled images: 70, 5–7×7, grey, uint8" in found.notes


def test_unlabelled_images_that_are_not_here_are_noted(check):
    class Pooled(Set):
        def pool(self, data_dir):
            raise DataError("there is no pool")

    found = check(Pooled())
    assert (found.problems, found.notes[-1]) == ([], "there is no pool")


def test_an_interrupted_verification_reads_no_further(monkeypatch):
    monkeypatch.setattr(inventory.os, "cpu_count", lambda: 1)
    dataset = lazy(64 * 200)

    def interrupt(what, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify("set", dataset, None, interrupt)
    assert len(dataset.images.pixels.read) < 64 * 100


# What cannot be fetched; what can be is fetched in tests/cli/test_data.py.


def test_a_set_without_downloads_is_not_fetched(tmp_path):
    with pytest.raises(UsageError, match=r"set .* see http://set"):
        fetch("set", Set(homepage="http://set"), tmp_path, print, print)
    with pytest.raises(UsageError, match="its source: Somebody"):
        fetch("set", Set(source="Somebody"), tmp_path, print, print)


def test_fetching_needs_a_place():
    with pytest.raises(UsageError, match="FEATBENCH_DATA or --data-dir"):
        fetch("set", Set(downloads=(Download("http://127.0.0.1:9/", "x", MD5),)), None, print, print)


def test_progress_is_told_by_the_megabyte():
    told = []
    step = inventory._in_megabytes("x", lambda *far: told.append(far))
    for done in range(0, 3_500_001, 100_000):
        step(done, 3_500_000)
    step(4_000_000, None)
    assert told == [*(("x, MB", done, 3) for done in range(4)), ("x, MB", 4, 0)]
