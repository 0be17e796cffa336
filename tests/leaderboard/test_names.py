"""File names of entries never collide and never grow long; folders are named so that they can be told apart."""

import dataclasses
import itertools
import json
import unicodedata

import pytest
from helpers.images import image_folder

from featbench.comparison import Workbench
from featbench.data.maps import Preprocessing
from featbench.evaluation.regimes import REGIMES
from featbench.experiment.cell import Cell
from featbench.experiment.request import Request
from featbench.leaderboard.entries import publish, read_entries, render
from featbench.leaderboard.names import LONGEST, Shelf, name_entry
from featbench.leaderboard.places import Place, shorten_places
from featbench.parameters import Choice
from featbench.registry import Registry

DIGITS = Registry().protocol("digits")

PLAIN = Cell(
    dataset="digits",
    protocol="digits",
    train_per_class=10,
    test_per_class=None,
    architecture=DIGITS.architecture,
    learner=Choice("random"),
    regime=REGIMES["R"],
    classifier="logistic",
    metric="accuracy",
    device="cpu",
    seed=0,
    draw=0,
    preprocessing=Preprocessing(),
    validation_fraction=0.3,
    test="rest",
)


def with_path(path):
    return dataclasses.replace(PLAIN, learner=Choice("noise", (("path", path),)))


ALIKE = [
    ("a/b", "a-b"),
    ("a b", "a-b"),
    ("a b", "a  b"),
    ("W.pt", "w.pt"),
    ("weights", "WEIGHTS"),
    ("stra\u00dfe", "strasse"),
    (unicodedata.normalize("NFC", "\u00e9"), unicodedata.normalize("NFD", "\u00e9")),
    ("a:b", "aofb"),
    ("x" * 300, "x" * 299 + "y"),
    ("x" * 300, "x" * 301),
    ("\u6f22" * 100, "\u6f22" * 99 + "\u5b57"),
    ("a|b", "a?b"),
    ("m\udcfc", "m\udcfd"),
    ("../a", "../../a"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_rows_that_are_nearly_alike_have_files_of_their_own(one, other):
    shelf = Shelf(DIGITS)
    names = [shelf.name(with_path(path), {}) for path in (one, other)]
    folded = {unicodedata.normalize("NFKD", name).casefold() for name in names}
    assert len(folded) == 2
    # Whoever publishes again, and in whatever order, finds the same files.
    again = Shelf(DIGITS)
    for name, path in zip(names, (one, other), strict=True):
        again.add(name, with_path(path), {})
    assert [again.name(with_path(path), {}) for path in (other, one)] == names[::-1]


LONG = [
    "x" * 250,
    "/data/" + "a-rather-long-folder/" * 9 + "w.pt",
    "\u6f22" * 90,
    "\U0001f600" * 60,
    "a" * 4000,
    "é" * 99,
]


@pytest.mark.parametrize("path", LONG)
def test_no_file_name_is_longer_than_file_systems_take(path, tmp_path):
    name = f"{name_entry(with_path(path), DIGITS)}.json"
    assert len(name.encode()) <= LONGEST
    (tmp_path / name).write_text("{}")
    assert [found.name for found in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("learner", ["con", "CON.x", "aux.v2", "nul.a", "com1.b", "LPT9.c", "prn.d.e"])
def test_no_file_name_means_a_device_to_windows(learner):
    name = name_entry(dataclasses.replace(PLAIN, learner=Choice(learner)), DIGITS)
    assert name.partition(".")[0].casefold() not in {"con", "aux", "nul", "prn", "com1", "lpt9"}


@pytest.mark.parametrize("sign", '<>:"/\\|?*\n\t\x00\x1b')
def test_no_file_name_holds_what_a_file_system_refuses(sign):
    name = name_entry(with_path(f"a{sign}b"), DIGITS)
    assert sign not in name
    assert name != name_entry(with_path("a-b"), DIGITS)


def test_one_row_with_other_content_is_another_row():
    cell = dataclasses.replace(PLAIN, dataset="folder:train")
    shelf = Shelf(DIGITS)
    names = {shelf.name(cell, {"dataset": fingerprint}) for fingerprint in ("1", "2", "1", "3")}
    assert len(names) == 3


def test_a_row_that_an_earlier_version_published_keeps_its_file():
    shelf = Shelf(DIGITS)
    shelf.add("any-name-at-all", with_path("a/b"), {})
    assert shelf.name(with_path("a/b"), {}) == "any-name-at-all"
    assert shelf.name(with_path("a/c"), {}) != "any-name-at-all"


PATHS = [
    (["folder:/w/a/train", "folder:/w/b/train"], ["folder:a/train", "folder:b/train"]),
    (["folder:/w/a/x/train", "folder:/w/b/x/train"], ["folder:a/x/train", "folder:b/x/train"]),
    (["folder:/w/a/train", "folder:/w/a/test"], ["folder:train", "folder:test"]),
    (["folder:/home/me/train"], ["folder:train"]),
    (["folder:/train", "folder:/a/train"], ["folder:train (f0)", "folder:a/train"]),
    (["folder:/w/a/train", "folder:/w/a/train/"], ["folder:train (f0)", "folder:train (f1)"]),
    (["/w/p/images", "/w/q/images"], ["p/images", "q/images"]),
    (["folder:/w/a/train", "/w/b/train"], ["folder:train", "train"]),
    (["folder:/w/A/train", "folder:/w/a/train"], ["folder:A/train", "folder:a/train"]),
    (
        ["folder:/w/a/train", "folder:/w/b/train", "folder:/w/c/test"],
        ["folder:a/train", "folder:b/train", "folder:test"],
    ),
    (["folder:/w/\u00e9/t", "folder:/w/m\udcfc/t"], ["folder:\u00e9/t", "folder:m\udcfc/t"]),
]


@pytest.mark.parametrize(("given", "shown"), PATHS)
def test_folders_are_named_by_as_little_of_their_paths_as_tells_them_apart(given, shown):
    for order in itertools.permutations(range(len(given))):
        places = [Place(given[index], f"f{index}") for index in order]
        found = shorten_places(places, {})
        assert [found[name] for name in given] == shown


def test_two_names_of_one_folder_are_shown_as_one():
    found = shorten_places([Place("folder:/w/a/train", "f0"), Place("folder:/w/copy/train", "f0")], {})
    assert len(set(found.values())) == 1


def test_folders_that_are_published_already_keep_their_names():
    published = {"folder:train": "f0"}
    found = shorten_places([Place("folder:/w/b/train", "f1"), Place("folder:/w/a/train", "f0")], published)
    assert found == {"folder:/w/a/train": "folder:train", "folder:/w/b/train": "folder:b/train"}


@pytest.fixture(scope="module")
def two_folders(tmp_path_factory):
    """A store with results of two data sets whose folders have one name, published at once."""
    folder = tmp_path_factory.mktemp("folders")
    for seed, name in enumerate("ab"):
        for label in "xy":
            image_folder(folder / name / "train" / label, 8, (8, 8), seed=2 * seed + (label == "y"))
    bench = Workbench(home=folder / "store")
    for name in "ab":
        dataset = f"folder:{folder / name / 'train'}"
        request = Request(protocol="digits", dataset=dataset, features=["random"], regimes=["R"], train_per_class=4)
        bench.compare(request, track=False)
    return folder, bench


def test_two_data_sets_of_one_last_folder_are_two_rows_everywhere(two_folders, tmp_path):
    folder, bench = two_folders
    publication = publish(bench, "digits", tmp_path, allow_dirty=True)
    assert len(set(publication.written)) == len(list((tmp_path / "digits/entries").iterdir())) == 6
    entries = read_entries(tmp_path, "digits")
    assert sorted({entry["dataset"] for entry in entries}) == ["folder:a/train", "folder:b/train"]
    page, table = (path.read_text() for path in render(tmp_path, "digits"))
    assert "## folder:a/train, 4 training" in page
    assert "## folder:b/train, 4 training" in page
    assert table.count("folder:a/train") == table.count("folder:b/train") == 3
    written = page + table + "".join(path.read_text() for path in publication.written)
    assert str(folder) not in written
    assert [entry["fingerprints"].keys() for entry in entries] == [{"dataset"}] * 6


def test_publishing_folders_again_or_one_after_the_other_changes_nothing(two_folders, tmp_path):
    _, bench = two_folders
    publish(bench, "digits", tmp_path, allow_dirty=True)
    before = {path: path.read_bytes() for path in (tmp_path / "digits/entries").iterdir()}
    for path in list(before)[:2]:
        path.unlink()
    publish(bench, "digits", tmp_path, allow_dirty=True)
    assert {path: path.read_bytes() for path in (tmp_path / "digits/entries").iterdir()} == before


def test_results_of_another_version_are_left_out_and_stay_in_the_store(two_folders, tmp_path):
    _, bench = two_folders
    cell = {"protocol": "digits", "a field that nobody knows": 1}
    bench.store.write_record("results", "other", {"cell": cell, "key": "other", "status": "ok"})
    publication = publish(bench, "digits", tmp_path, allow_dirty=True)
    assert len(publication.written) == 6
    assert json.loads((bench.store.home / "results/other.json").read_text())["cell"] == cell
