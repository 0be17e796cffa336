"""`featbench explain`, and `featbench compare --details`."""

import os
import subprocess
import sys

import pytest
from helpers.pages import read_csv, read_page

FILES = {"index.html", "classes.csv", "confusion.csv", "confusion.png", "predictions.csv", "wrong.png"}


@pytest.fixture
def explain(run, tiny, tmp_path, monkeypatch):
    """Call `featbench explain` with the tiny plugin; what it writes by default lies in the test's folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: run("explain", *options, "--plugin", tiny)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_the_best_row_of_the_last_comparison(compare_tiny, explain, tmp_path):
    rows = compare_tiny("--features", "random", "--regimes", "R").rows
    ran = explain()
    best = max(rows, key=lambda row: row["mean"])
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("wrote details/index.html: ")
    assert f"{best['learner']} {best['label']} {best['classifier']}" in ran.err
    assert names_in(tmp_path / "details") == FILES
    lines = read_csv(tmp_path / "details" / "predictions.csv")
    for draw, score in enumerate(best["scores"]):
        rights = [line["right"] == "1" for line in lines if line["draw"] == str(draw)]
        assert 100 * (sum(rights) / len(rights)) == score


@pytest.mark.parametrize("row", ["1", "random", "random R", "random R nearest", "best", "raw pixels", "chance"])
def test_a_row_by_its_name(compare_tiny, explain, row):
    compare_tiny("--features", "random", "--regimes", "R")
    assert explain(row, "--output", "there").code == 0


@pytest.mark.parametrize("row", ["psd", "7", "random U", "nearest", "no such row", " "])
def test_a_row_that_is_not_there(compare_tiny, explain, row, tmp_path):
    compare_tiny("--features", "random", "--regimes", "R")
    ran = explain(row)
    assert ran.code == 2
    assert ran.err.startswith("featbench: error: the comparison has no row")
    assert "1: random R nearest (" in ran.err
    assert not (tmp_path / "details").exists()


def test_an_earlier_comparison_by_its_key(compare_tiny, explain, home, tmp_path):
    compare_tiny("--features", "random", "--regimes", "R", "--seed", "1")
    (first,) = (home / "comparisons").glob("*.json")
    compare_tiny("--features", "gabor", "--regimes", "fixed")
    assert explain("random").code == 2
    assert explain("random", "--comparison", first.stem[:8]).code == 0
    assert first.stem[:12] in read_page(tmp_path / "details" / "index.html").text
    assert explain("random", "--comparison", "no").code == 2


def test_a_second_look_replaces_the_first_and_leaves_what_else_is_there(compare_tiny, explain, tmp_path):
    compare_tiny("--features", "random", "--regimes", "R")
    assert explain("random").code == 0
    (tmp_path / "details" / "mine.txt").write_text("kept")
    (tmp_path / "details" / "wrong.png").write_bytes(b"old")
    assert explain("chance").code == 0
    assert names_in(tmp_path / "details") == FILES | {"mine.txt"}
    assert (tmp_path / "details" / "wrong.png").read_bytes().startswith(b"\x89PNG")
    assert "chance – guess" in read_page(tmp_path / "details" / "index.html").text


@pytest.mark.parametrize("place", ["new/deep/er", ".", "sp ace", "ünïcode", "~/below"])
def test_places_to_write_to(compare_tiny, explain, tmp_path, place, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    compare_tiny("--features", "random", "--regimes", "R")
    assert explain("--output", place).code == 0
    folder = tmp_path / "user" / "below" if place.startswith("~") else tmp_path / place
    assert names_in(folder) >= FILES


@pytest.mark.parametrize("option", ["explain --output", "compare --details"])
@pytest.mark.parametrize("place", ["file", "file/below", "", "-"])
def test_places_that_are_no_folder_are_refused_before_anything_is_computed(run, tiny, home, tmp_path, option, place):
    (tmp_path / "file").write_text("kept")
    command, option = option.split()
    named = f"{tmp_path}/{place}" if place.startswith("file") else place
    more = ["--protocol", "tiny", "--no-track"] if command == "compare" else []
    ran = run(command, option, named, "--plugin", tiny, *more)
    assert ran.code == 2
    assert "cannot be written" in ran.err or "is no folder to write to" in ran.err
    assert (tmp_path / "file").read_text() == "kept"
    assert not (home / "results").exists()


def test_every_complete_row_of_a_comparison(compare_tiny, tmp_path, write_learner):
    plugin = write_learner("falls", "raise ValueError('it fell')")
    folder = tmp_path / "all"
    ran = compare_tiny(
        "--features", "random,gabor,falls", "--details", folder, "--regimes", "R,U,fixed", plugins=[plugin]
    )
    assert ran.code == 1
    assert ran.err.endswith(f"wrote {folder / 'index.html'}\n")
    complete = [row for row in ran.rows if row["status"] == "ok"]
    pages = {path.name for path in folder.iterdir() if path.is_dir()}
    assert len(pages) == len(complete) == 4
    assert "05-chance-guess" in pages
    assert all(names_in(folder / page) == FILES for page in pages)
    index = read_page(folder / "index.html")
    assert {link["href"] for link in index.find("a")} == {f"{page}/index.html" for page in pages}
    assert "it fell" in index.text
    for page in pages:
        assert read_page(folder / page / "index.html").find("h1")


def test_a_comparison_without_details_writes_none(compare_tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compare_tiny("--features", "random", "--regimes", "R")
    assert not (tmp_path / "details").exists()


def test_a_plugin_that_is_not_given_is_named(compare_tiny, run, tmp_path):
    compare_tiny("--features", "random", "--regimes", "R")
    ran = run("explain", "--output", tmp_path / "details")
    assert ran.code == 2
    assert ran.err.startswith("featbench: error: unknown ")
    assert "'tiny'" in ran.err or "'nearest'" in ran.err


def test_help_begins_with_what_the_command_does(run):
    ran = run("explain", "--help")
    assert ran.code == 0
    for word in ("ROW", "--output", "--comparison", "--home", "--data-dir", "--plugin", "--skip-bad-images", "--debug"):
        assert word in ran.out


def test_an_ascii_locale_is_no_obstacle(tiny, home, tmp_path):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}

    def call(*words):
        command = [sys.executable, "-m", "featbench", *words, "--plugin", str(tiny), "--home", str(home)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    call("compare", "--protocol", "tiny", "--features", "random", "--regimes", "R", "--no-track")
    assert "wrote d/index.html" in call("explain", "chance", "--output", "d")
    assert "±" in read_page(tmp_path / "d" / "index.html").text
