import gzip
import hashlib
import os
import threading

import numpy as np
import pytest
from helpers.data_sets import LABELS, MD5, PIXELS, Files, Lazy, Set, lazy
from PIL import Image

from featbench.data.dataset import Download, hash_files
from featbench.data.verification import verify
from featbench.datasets.folder import Folder
from featbench.errors import DataError


@pytest.fixture
def check():
    """Verify a data set; what was told of its progress is kept."""

    def check(dataset, data_dir=None):
        check.told = []
        return verify("set", dataset, data_dir, lambda *far: check.told.append(far))

    return check


def test_a_set_whose_content_is_known_is_said_to_be_sound(check):
    found = check(Set(content="f00d", remarks=lambda _: ["a remark"]))
    assert found.problems == []
    assert found.summary == "set: 200 images, 3 classes, smallest c (66), fingerprint f00d: sound"
    assert found.notes == [
        "a remark",
        "the content is that of the reference copy",
        "images: 200, 4×6, grey, uint8",
    ]
    assert [far for far in check.told if far[0] == "reading images"] == [
        ("reading images", done, 200) for done in (64, 128, 192, 200)
    ]


def test_every_image_is_read_once(check):
    dataset = lazy(300)
    found = check(dataset)
    assert sorted(dataset.images.pixels.read) == list(range(300))
    assert found.notes == ["images: 300, 5–7×7, grey, uint8"]


def test_images_are_read_by_several_threads(check, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
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


@pytest.mark.parametrize("missing", [-7, 1, 200])
def test_a_copy_of_another_count_than_a_whole_one_is_a_problem(check, missing):
    found = check(Set(content="f00d", image_count=200 + missing))
    assert found.problems == [f"200 images, where a whole copy has {200 + missing}"]
    assert check(Set(content="f00d", image_count=200)).problems == []


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
    wrong = f"{tmp_path / 'wrong'}: 6 bytes, not the published file ({MD5}): `featbench data fetch set` downloads that"
    assert found.problems[0].startswith(wrong)
    assert "md5:?" in found.problems[1]
    assert len(found.problems) == 2
    assert found.notes[0] == f"{tmp_path / 'right'}: 5 bytes, {MD5} as published"
    assert not any("archive" in note or "absent" in note for note in found.notes)
    assert check(Set(downloads=downloads), None).problems == []


ZIPPED = "md5:" + hashlib.md5(gzip.compress(b"hello", mtime=0)).hexdigest()


@pytest.mark.parametrize(
    ("item", "content", "state"),
    [
        (None, b"hello", "unknown"),
        (Download("", "file", MD5), b"hello", "sound"),
        (Download("", "set/file", MD5), b"hello", "sound"),
        (Download("", "set/FILE", MD5), b"hello", "sound"),
        (Download("", "file", MD5), gzip.compress(b"hello", 1, mtime=0), "sound"),
        (Download("", "file", MD5), b"hullo", "problem"),
        (Download("", "file", MD5), gzip.compress(b"hullo", mtime=0), "problem"),
        (Download("", "file", MD5), gzip.compress(b"hello", mtime=0)[:-1], "problem"),
        (Download("", "file.gz", ZIPPED), gzip.compress(b"hello", mtime=0), "sound"),
        (Download("", "file.gz", ZIPPED), gzip.compress(b"hello", 1, mtime=9), "problem"),
        (Download("", "file.gz", ZIPPED), b"hello", "unknown"),
        (Download("", "file.gz", ZIPPED), b"hullo", "unknown"),
        (Download("", "file.gz", ZIPPED, content=MD5), b"hello", "sound"),
        (Download("", "file.gz", ZIPPED, content=MD5), gzip.compress(b"hello", 1, mtime=9), "sound"),
        (Download("", "file.gz", ZIPPED, content=MD5), b"hullo", "problem"),
        (Download("", "file.gz", ZIPPED, content=MD5), gzip.compress(b"hullo", 1, mtime=9), "problem"),
        (Download("", "other", MD5), b"hello", "unknown"),
        (Download("", "file", MD5, unpack="set"), b"hello", "unknown"),
    ],
)
def test_only_what_a_checksum_proves_is_called_sound(check, tmp_path, item, content, state):
    (tmp_path / "file").write_bytes(content)
    found = check(Files(downloads=() if item is None else (item,)), tmp_path)
    ends = {"sound": ": sound", "unknown": ": readable; no checksum is known", "problem": "set: 1 problem"}
    assert found.summary.endswith(ends[state])
    assert len(found.problems) == (state == "problem")


def test_a_folder_of_images_is_readable_and_no_more(check, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS[0]).save(tmp_path / name / "1.png")
    assert check(Folder(tmp_path)).summary.endswith(": readable; no checksum is known")


def test_a_fingerprint_that_cannot_be_had_is_a_problem(check, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    summary = check(Files(), tmp_path).summary
    assert summary.endswith(f"fingerprint {hash_files([tmp_path / 'file'])}: readable; no checksum is known")
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
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    dataset = lazy(64 * 200)

    def interrupt(what, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify("set", dataset, None, interrupt)
    assert len(dataset.images.pixels.read) < 64 * 100
