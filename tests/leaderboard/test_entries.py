import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import featbench
from featbench.comparison import Workbench
from featbench.errors import LeaderboardError, UnknownNameError
from featbench.experiment.cell import Cell
from featbench.experiment.request import Request
from featbench.leaderboard.entries import find_leaderboards, publish, read_entries, render
from featbench.leaderboard.names import name_entry
from featbench.registry import Registry
from featbench.system.hashing import content_hash

REQUEST = Request(protocol="digits", features=["random"], regimes=["R"])


@pytest.fixture(scope="module")
def workbench(tmp_path_factory):
    bench = Workbench(home=tmp_path_factory.mktemp("leaderboard") / "store")
    bench.compare(REQUEST, track=False)
    return bench


@pytest.fixture
def published(workbench, tmp_path):
    publish(workbench, "digits", tmp_path, allow_dirty=True)
    return tmp_path


def test_an_entry_holds_what_the_store_holds(workbench, published):
    names = sorted(path.name for path in (published / "digits" / "entries").iterdir())
    assert names == [
        "chance_fixed_guess_10-per-class_seed-0.json",
        "random_R_logistic_10-per-class_seed-0.json",
        "raw-pixels_fixed_logistic_10-per-class_seed-0.json",
    ]
    entry = next(entry for entry in read_entries(published, "digits") if entry["learner"] == "random")
    stored = [workbench.store.read_result(key) for key in entry["results"]]
    assert entry["scores"] == [result.score.value for result in stored]
    assert entry["mean"] == pytest.approx(np.mean(entry["scores"]), rel=1e-14)
    assert entry["std"] == pytest.approx(np.std(entry["scores"], ddof=1), rel=1e-12)
    assert entry["n"] == 5
    assert [chosen["strength"] for chosen in entry["chosen"]] == [result.report["strength"] for result in stored]
    assert entry["provenance"][0]["versions"]["numpy"] == np.__version__


def test_rendering_gives_the_same_bytes_each_time_and_in_whatever_order(published):
    first = [path.read_bytes() for path in render(published, "digits")]
    entries = sorted((published / "digits" / "entries").iterdir(), reverse=True)
    texts = {path: path.read_text() for path in entries}
    for path in entries:
        path.unlink()
    for path in entries:
        path.write_text(texts[path])
    assert [path.read_bytes() for path in render(published, "digits")] == first


def test_the_page_and_the_csv_hold_every_entry_best_first(published):
    page, table = (path.read_text() for path in render(published, "digits"))
    entries = read_entries(published, "digits")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [float(row["mean"]) for row in rows] == [entry["mean"] for entry in entries]
    assert [float(row["mean"]) for row in rows] == sorted((entry["mean"] for entry in entries), reverse=True)
    assert [float(score) for score in rows[0]["scores"].split()] == entries[0]["scores"]
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert [line.split("|")[1].strip() for line in lines] == ["random", "raw pixels", "chance"]
    assert f"{entries[0]['mean']:.1f} ± {entries[0]['std']:.1f}" in lines[0]
    assert "± is the standard deviation" in page


def test_publishing_again_changes_nothing(workbench, published):
    before = {path: path.read_bytes() for path in (published / "digits" / "entries").iterdir()}
    publish(workbench, "digits", published, allow_dirty=True)
    assert {path: path.read_bytes() for path in (published / "digits" / "entries").iterdir()} == before


def test_an_incomplete_row_is_left_out_and_said(tmp_path):
    bench = Workbench(home=tmp_path / "store")
    bench.compare(Request(protocol="digits", features=["random"], regimes=["R"], draws=2), track=False)
    with pytest.raises(LeaderboardError, match=r"no complete results of digits(.|\n)*random_R_.*draw 2 not run"):
        publish(bench, "digits", tmp_path / "boards", allow_dirty=True)
    assert not (tmp_path / "boards").exists()


def test_results_of_other_code_are_not_published(workbench, tmp_path, monkeypatch):
    monkeypatch.setattr("featbench.store.keys.compute_code_version", lambda *_: "another version")
    later = Workbench(home=workbench.store.home)
    with pytest.raises(LeaderboardError, match="incomplete under the present code and data"):
        publish(later, "digits", tmp_path, allow_dirty=True)


def test_results_of_uncommitted_code_need_to_be_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("featbench.store.provenance._read_git_state", lambda root: ("c0ffee", True))
    bench = Workbench(home=tmp_path / "store")
    bench.compare(REQUEST, track=False)
    with pytest.raises(LeaderboardError, match="not committed"):
        publish(bench, "digits", tmp_path / "boards")
    publish(bench, "digits", tmp_path / "boards", allow_dirty=True)
    page = render(tmp_path / "boards", "digits")[0].read_text()
    assert "c0ffee+edited"[:10] in page


def test_an_entry_that_was_edited_by_hand_is_refused(published):
    path = next((published / "digits" / "entries").glob("random*"))
    entry = json.loads(path.read_text())
    entry["mean"] = 99.9
    path.write_text(json.dumps(entry))
    with pytest.raises(LeaderboardError, match=r"random_R.*was changed"):
        render(published, "digits")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_damaged_entry_is_named(published, text):
    next((published / "digits" / "entries").glob("chance*")).write_text(text)
    with pytest.raises(LeaderboardError, match=r"chance_fixed.*is not a leaderboard entry"):
        render(published, "digits")


def test_an_unknown_leaderboard_is_named_with_those_that_exist(published):
    assert find_leaderboards(published) == ["digits"]
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        render(published, "digit")


# Metrics of which less is better, and without a unit.


@pytest.fixture
def by_loss(tmp_path):
    """A leaderboard of a protocol whose metric a plugin gives: the part of predictions that are wrong."""

    class Plugin:
        @featbench.hookimpl
        def featbench_metrics(self):
            return [featbench.Metric("wrong", lambda p, labels, _: float((p != labels).mean()), larger_is_better=False)]

        @featbench.hookimpl
        def featbench_protocols(self):
            preprocessing = featbench.Preprocessing()
            return [
                featbench.Protocol(
                    name="by-loss",
                    summary="",
                    dataset="digits",
                    architecture="4F3-Rabs-PA2/2",
                    preprocessing=preprocessing,
                    train_per_class=5,
                    test="rest",
                    features=("random",),
                    draws=2,
                    metric="wrong",
                )
            ]

    bench = Workbench(home=tmp_path / "store", plugins=[Plugin()], strict=True)
    bench.compare(Request(protocol="by-loss", regimes=["R"]), track=False)
    publish(bench, "by-loss", tmp_path / "boards", allow_dirty=True)
    return tmp_path / "boards"


def test_rows_stand_best_first_where_smaller_is_better(by_loss):
    page, table = (path.read_text() for path in render(by_loss, "by-loss"))
    entries = read_entries(by_loss, "by-loss")
    means = [entry["mean"] for entry in entries]
    assert means == sorted(means)
    assert entries[-1]["learner"] == "chance"
    assert {(entry["metric"], entry["unit"], entry["larger_is_better"]) for entry in entries} == {("wrong", "", False)}
    assert [float(row["mean"]) for row in csv.DictReader(io.StringIO(table))] == means
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines][-1] == "chance"
    assert lines[0].split("|")[4].strip() == "wrong"
    assert "%" not in page
    assert "percent" not in page


# Entries that were published before.


def test_entries_of_earlier_versions_are_read_as_what_they_were(published):
    before = [path.read_bytes() for path in render(published, "digits")]
    for path in (published / "digits" / "entries").iterdir():
        entry = json.loads(path.read_text())
        for field in ("checksum", "unit", "larger_is_better", "precision", "refined_with", "test_per_class", "task"):
            del entry[field]
        path.write_text(json.dumps({"checksum": content_hash(entry), **entry}))
    assert [path.read_bytes() for path in render(published, "digits")] == before


FOLDER = Path(__file__).parents[2] / "leaderboards"


@pytest.mark.parametrize("protocol", find_leaderboards(FOLDER))
def test_the_entries_in_the_repository_give_the_pages_beside_them(protocol, tmp_path):
    shutil.copytree(FOLDER / protocol, tmp_path / protocol)
    page, table = render(tmp_path, protocol)
    assert page.read_bytes() == (FOLDER / protocol / "README.md").read_bytes()
    # Tables that were rendered before these columns existed lack them.
    rows = [list(csv.DictReader(io.StringIO(path.read_text()))) for path in (FOLDER / protocol / "results.csv", table)]
    known = rows[0][0].keys()
    assert known <= rows[1][0].keys()
    assert [{name: row[name] for name in known} for row in rows[1]] == rows[0]


@pytest.mark.parametrize("protocol", find_leaderboards(FOLDER))
def test_the_entries_in_the_repository_would_have_the_same_names(protocol):
    registry = Registry()
    fields = {field.name for field in dataclasses.fields(Cell)} | {"parameters"}
    for path in (FOLDER / protocol / "entries").glob("*.json"):
        entry = {"test_per_class": None, **json.loads(path.read_text())}
        cell = Cell.restore({"draw": 0, **{name: value for name, value in entry.items() if name in fields}})
        assert name_entry(cell, registry.protocol(protocol)) == path.stem
