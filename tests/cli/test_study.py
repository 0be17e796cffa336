import csv
import io
import json

import pytest
from PIL import Image

from featbench.studies import STUDIES, surfaces

SMALL = ["--points", "40", "--test-points", "30", "--grid", "7"]


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    for name, value in {"UPDATES": 5, "STARTS": 1, "DICTIONARY_UPDATES": 2}.items():
        monkeypatch.setattr(surfaces, name, value)


@pytest.fixture
def energy(run, tmp_path):
    return lambda *options: run("study", "energy", *SMALL, "--output", tmp_path / "out", *options)


def test_help_names_every_study(run):
    ran = run("study", "--help")
    assert ran.code == 0
    for name, summary in STUDIES.items():
        assert f"  {name} " in ran.out
        assert summary in ran.out


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_help_of_its_own(run, name):
    ran = run("study", name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: featbench study {name} ")
    for option in ("--seed", "--output", "--format", "--data-dir", "--debug"):
        assert option in ran.out


def test_table_picture_page_and_numbers_agree(energy, tmp_path):
    ran = energy("--format", "json", "--lam", "0.3")
    assert ran.code == 0
    folder = tmp_path / "out"
    assert ran.err.endswith(f"wrote {folder}/energy.png, {folder}/energy.md, {folder}/energy.json\n")
    shown, written = json.loads(ran.out), json.loads((folder / "energy.json").read_text("utf-8"))
    assert shown["tables"] == written["tables"]
    assert written["command"] == "featbench study energy --points 40 --test-points 30 --lam 0.3 --grid 7"
    assert written["settings"]["lam"] == 0.3
    with Image.open(folder / "energy.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert "Software" not in picture.info
    page = (folder / "energy.md").read_text("utf-8")
    assert "![Energy surfaces of four learners](energy.png)" in page
    assert written["command"] in page
    assert "K-means" in page


def test_the_same_settings_give_the_same_numbers_and_picture(energy, tmp_path):
    first = energy("--format", "csv").out
    picture = (tmp_path / "out" / "energy.png").read_bytes()
    assert energy("--format", "csv").out == first
    assert (tmp_path / "out" / "energy.png").read_bytes() == picture
    assert energy("--format", "csv", "--seed", "1").out != first
    rows = list(csv.DictReader(io.StringIO(first)))
    assert len(rows) == 10
    assert 0 <= float(rows[0]["AUC"]) <= 1


def test_the_folder_is_made_and_defaults_to_studies(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("study", "energy", *SMALL, "--quiet").code == 0
    assert sorted(path.name for path in (tmp_path / "studies").iterdir()) == ["energy.json", "energy.md", "energy.png"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["enrgy"], "unknown study 'enrgy': did you mean 'energy'?"),
        (["energy", "--points", "1"], "--points is 1: it must be at least 20"),
        (["energy", "--lam", "nan"], "--lam is nan: a number is needed"),
        (["energy", "--points", "many"], "argument --points: invalid int value: 'many'"),
        (["codes", "--lams", "a,b"], "argument --lams: invalid list of float value: 'a,b'"),
        (["codes", "--lams", ","], "--lams is empty: give at least one value"),
        (["energy", "--pints", "4"], "unrecognized arguments: --pints 4"),
        (["size", "--filters", "4,0"], "--filters is 0: it must be at least 1"),
        (["stability", "--frames", "/nowhere"], "there is no folder of images /nowhere"),
        (["stability"], "name a folder of frames with --frames, or set FEATBENCH_DATA"),
        (["codes", "--unlabelled", "/nowhere"], "there is no folder of images /nowhere"),
    ],
)
def test_mistakes_end_with_a_line_and_write_nothing(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATBENCH_DATA", raising=False)
    ran = run("study", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "studies").exists()


def test_no_study_is_named(run):
    ran = run("study")
    assert ran.code == 2
    assert "NAME" in ran.err


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_measured(energy, tmp_path):
    (tmp_path / "out").write_text("")
    ran = energy()
    assert (ran.code, ran.out) == (2, "")
    assert f"--output {tmp_path / 'out'} is a file: name a folder" in ran.err


def test_a_broken_plugin_makes_the_exit_code(energy, write_plugin):
    plugin = write_plugin("broken", "raise ValueError('no')")
    ran = energy("--plugin", plugin)
    assert ran.code == 1
    assert "could not be loaded" in ran.err


def test_progress_stands_on_stderr_and_can_be_silenced(energy, tmp_path):
    ran = energy("--quiet")
    assert ran.err.splitlines() == [ran.err.strip()]
    assert ran.err.startswith("wrote ")
