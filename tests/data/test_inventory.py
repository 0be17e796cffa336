import numpy as np
import pytest
from helpers.data_sets import MD5, Files, Set, lazy

from featbench.data import inventory
from featbench.data.dataset import Download
from featbench.data.inventory import describe, explain_absence, fetch, get_description, get_summary, require_here
from featbench.errors import DataError, UsageError


def described(dataset, data_dir=None):
    found = {}
    for label, text in describe("set", dataset, data_dir):
        found.setdefault(label, []).append(text)
    return found


def test_a_data_set_says_what_it_is():
    assert get_description(Set()) == "Things in three classes. They are drawn at random."
    assert get_summary(Set()) == "Things in three classes."


def test_files_are_looked_for_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Files, "fingerprint", lambda *_: pytest.fail("that reads every file"))
    assert explain_absence("set", Files(), None) == explain_absence("set", Files(), tmp_path) == "there is no file"
    (tmp_path / "file").write_bytes(b"")
    assert explain_absence("set", Files(), tmp_path) == ""
    require_here("set", Files(), tmp_path)


def test_a_data_set_that_breaks_is_not_here():
    broken = Set(fingerprint=lambda _: 1 / 0)
    assert explain_absence("set", broken, None) == "data set set cannot be read: ZeroDivisionError: division by zero"


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
