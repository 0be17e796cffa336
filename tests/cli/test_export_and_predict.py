"""`featbench export` and `featbench predict`: from a row of a comparison to the classes of new images."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import featbench

CLASSES = ("dark", "light")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Noise in colour, the half of it or all over."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name, most in zip(CLASSES, (90, 250), strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, most, (16, 20, 3))
            if name == "dark":
                pixels[:, 10:] = 0
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def model(run, folder):
    """The path of an exported model."""
    options = ("--features", "random", "--regimes", "R", "--draws", "2", "--no-track", "--quiet")
    assert run("compare", "--dataset", "folder:images", *options).code == 0
    ran = run("export", "random", "--output", "model")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("wrote model: random R logistic, as fitted on draw 0 (accuracy ")
    return folder.parent / "model"


def test_every_image_of_a_folder_gets_a_class_and_a_probability(run, model, folder):
    lines = run("predict", "model", "images").out.splitlines()
    assert lines[0].split() == ["image", "class", "probability"]
    assert [line.split()[0] for line in lines[1:]] == [f"images/{c}/{n}.png" for c in CLASSES for n in range(8)]
    assert {line.split()[1] for line in lines[1:]} <= set(CLASSES)


def test_all_formats_and_python_say_the_same(run, model, folder):
    loaded = featbench.load(model)
    expected = loaded.predict_proba(folder)
    documents = json.loads(run("predict", "model", "images", "--format", "json").out)
    rows = list(csv.DictReader(io.StringIO(run("predict", "model", "images", "--format", "csv").out)))
    assert [row["class"] for row in documents] == [row["class"] for row in rows] == list(loaded.predict(folder))
    assert [[float(row[f"probability of {name}"]) for name in CLASSES] for row in rows] == expected.tolist()
    assert [row["probability"] for row in documents] == expected.max(axis=1).tolist()


def test_output_goes_to_a_file(run, model, folder):
    ran = run("predict", "model", "images", "--format", "csv", "--output", "there.csv")
    assert (ran.code, ran.out) == (0, "")
    assert (folder.parent / "there.csv").read_text() == run("predict", "model", "images", "--format", "csv").out


def test_an_image_that_cannot_be_read_is_named_or_left_out(run, model, folder):
    (folder / "dark" / "bad.png").write_bytes(b"no image")
    ran = run("predict", "model", "images")
    assert (ran.code, ran.out) == (2, "")
    assert "images/dark/bad.png cannot be read as an image" in ran.err
    left = run("predict", "model", "images", "--skip-bad-images")
    assert left.code == 0
    assert len(left.out.splitlines()) == 17
    assert "left out: images/dark/bad.png" in left.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "images"), "nowhere"),
        (("images", "images"), "images"),
        (("model", "nothing.png"), "nothing.png cannot be read"),
        (("model", "empty"), "empty"),
    ],
)
def test_what_is_not_there_is_named(words, message, run, model, folder):
    (folder.parent / "empty").mkdir()
    ran = run("predict", *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("featbench: error: ")
    assert message in ran.err


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *((name, name) for name in ("a b.png", "ü.png", "=1+1.png", "a,b.png", "<b>.png")),
        ("line\nbreak.png", "line\\nbreak.png"),
        ("M\udcfcn.png", "M\\xfcn.png"),
    ],
)
def test_unusual_names_come_back_with_what_cannot_be_printed_as_escapes(name, written, run, model, folder):
    (folder / "dark" / "0.png").rename(folder.parent / name)
    documents = json.loads(run("predict", "model", name, "--format", "json").out)
    assert [row["image"] for row in documents] == [written]


def test_a_model_is_not_written_over_anything_unless_that_is_asked_for(run, model):
    before = (model / "model.json").read_bytes()
    ran = run("export", "random", "--output", "model", "--draw", "1")
    assert ran.code == 2
    assert "--force" in ran.err
    assert (model / "model.json").read_bytes() == before
    assert run("export", "random", "--output", "model", "--draw", "1", "--force").code == 0
    assert json.loads((model / "model.json").read_bytes())["draw"] == 1
    ran = run("export", "random", "--output", "images", "--force")
    assert ran.code == 2


@pytest.mark.parametrize("row", ["psd", "9", "random U", ""])
def test_a_row_that_is_not_there(row, run, model):
    ran = run("export", row, "--output", "other")
    assert ran.code == 2
    assert "has no row" in ran.err
    assert "1: random R logistic (" in ran.err
