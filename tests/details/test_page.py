"""The page and the pictures of a row: complete, within bounds, and of use without a mouse or colours."""

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.pages import read_csv, read_page
from PIL import Image

from featbench.comparison import Workbench
from featbench.details import collect
from featbench.details.explain import FILES
from featbench.experiment.request import Request

WRONG_FOR = """
import numpy as np
import featbench

class _Always(featbench.Predictor):
    report = {}
    def __init__(self, classes):
        self.classes = classes
    def predict(self, features):
        return PREDICTED

class Told(featbench.Classifier):
    \"\"\"Predicts what the test says.\"\"\"
    name = "told"
    def fit(self, features, labels, validation, classes, seed):
        return _Always(classes)

@featbench.hookimpl
def featbench_classifiers():
    return [Told()]
"""


@pytest.fixture
def told(write_plugin):
    """A classifier that predicts an expression of `features` and `self.classes`."""
    return lambda text: write_plugin("told", WRONG_FOR.replace("PREDICTED", text))


@pytest.mark.parametrize("classes", [2, 3, 30, 31, 102, 151])
def test_any_number_of_classes(photographs, compare_row, explain_row, told, classes):
    plugin = told("np.arange(len(features)) * 7 % self.classes")
    root = photographs([f"kind number {k}" for k in range(classes)], count=7)
    compare_row(root, plugins=[plugin], classifiers=["told"])
    folder = explain_row(plugins=[plugin])
    page = read_page(folder / "index.html")
    matrix = [tag for tag in page.find("table") if tag.get("class") == "matrix"]
    assert len(matrix) == (classes <= 150)
    assert ("too many classes" in page.text) == (classes > 150)
    assert len(page.find("tr")) >= classes
    counts = read_csv(folder / "confusion.csv")
    assert len(counts) == classes and len(counts[0]) == classes + 1
    assert (folder / "index.html").stat().st_size < 15e6
    with Image.open(folder / "confusion.png") as picture:
        assert max(picture.size) < 2500
    with Image.open(folder / "wrong.png") as picture:
        assert picture.width < 1300


def test_all_right(photographs, compare_row, explain_row, told):
    plugin = told("(np.arange(len(features)) >= 2) * 1")
    compare_row(photographs(["a", "b"], count=6), plugins=[plugin], classifiers=["told"])
    folder = explain_row(plugins=[plugin])
    assert "No test image was predicted wrong in any draw." in read_page(folder / "index.html").text
    assert {line["accuracy"] for line in read_csv(folder / "classes.csv")} == {"100.0"}
    assert {line["high"] for line in read_csv(folder / "classes.csv")} == {"100.0"}
    with Image.open(folder / "wrong.png") as picture:
        assert picture.height < 100


def test_all_wrong(photographs, compare_row, explain_row, told):
    plugin = told("(np.arange(len(features)) < 2) * 1")
    compare_row(photographs(["a", "b"], count=6), plugins=[plugin], classifiers=["told"])
    folder = explain_row(plugins=[plugin])
    assert {line["accuracy"] for line in read_csv(folder / "classes.csv")} == {"0.0"}
    assert {line["low"] for line in read_csv(folder / "classes.csv")} == {"0.0"}


@pytest.mark.parametrize("limit", [1, 5, 10**6])
def test_the_rest_of_the_wrong_images_is_said(photographs, compare_row, explain_row, monkeypatch, limit):
    monkeypatch.setattr(collect, "SHOWN", limit)
    compare_row(photographs(), draws=4)
    folder = explain_row("chance")
    wrong = {line["file"] for line in read_csv(folder / "predictions.csv") if line["right"] == "0"}
    page = read_page(folder / "index.html")
    assert f"{len(wrong)} images were predicted wrong" in page.text
    shown = min(limit, len(wrong))
    assert len(page.images) - 1 == shown
    assert (f"The first {shown} are shown; predictions.csv has all." in page.text) == (shown < len(wrong))


def test_images_come_in_the_order_of_how_often_they_were_wrong(photographs, compare_row, explain_row):
    compare_row(photographs(), draws=6)
    folder = explain_row("chance")
    wrong, tests = {}, {}
    for line in read_csv(folder / "predictions.csv"):
        tests[line["file"]] = tests.get(line["file"], 0) + 1
        if line["right"] == "0":
            wrong.setdefault(line["file"], []).append(line["predicted class"])
    page = read_page(folder / "index.html")
    shown = [re.fullmatch(r"(.*): (.*), taken for (.*)", image["alt"]).groups() for image in page.images[1:]]
    assert {file for file, _, _ in shown} == set(wrong)
    counts = [len(wrong[file]) for file, _, _ in shown]
    assert counts == sorted(counts, reverse=True)
    for file, truth, taken_for in shown:
        assert truth == file.partition("/")[0]
        assert wrong[file].count(taken_for) == max(map(wrong[file].count, wrong[file]))
        often = f"wrong in {len(wrong[file])} of {tests[file]} {'tests' if tests[file] > 1 else 'test'}"
        assert f"{file}{often}" in page.text


def test_the_page_says_what_was_compared_and_how_to_go_on(photographs, compare_row, explain_row, home):
    root = photographs()
    row = compare_row(root)
    page = read_page(explain_row(home=home) / "index.html")
    key = next((home / "comparisons").glob("*.json")).stem
    for text in (
        f"folder:{root}",
        "4F3-Rabs-PA2/2",
        "training images per class",
        key[:12],
        "± is the standard deviation",
    ):
        assert text in page.text
    assert f"{row['mean']:.1f} ± {row['std']:.1f} % accuracy" in page.text
    assert f"featbench export 'random R nearest' --comparison {key[:12]} --home {home}" in page.text
    assert "--output model" in page.text and "featbench predict model" in page.text
    marked = [attributes for tag, attributes in page.tags if tag == "tr" and attributes.get("class") == "chosen"]
    assert marked == [{"class": "chosen", "aria-current": "true"}]
    assert "grey, their own size" in page.text
    for learner in ("random", "raw pixels", "chance"):
        assert learner in page.text


def test_a_row_whose_name_others_share_is_exported_by_its_number(photographs, compare_row, explain_row, tiny):
    workbench = Workbench(plugins=[tiny])
    asked = Request("tiny", f"folder:{photographs()}", features=["random"], regimes=["R"], device="cpu")
    cells = workbench.plan(asked) + workbench.plan(replace(asked, stages="2F3-Rabs-PA2/2"))
    workbench.run(list(dict.fromkeys(cells)), {}, track=False)
    text = read_page(explain_row(2) / "index.html").text
    assert "featbench export 2 --comparison" in text
    assert "2F3-Rabs-PA2/2" in text and "4F3-Rabs-PA2/2" not in text


def test_the_page_is_for_everybody(photographs, compare_row, explain_row):
    compare_row(photographs())
    folder = explain_row()
    page, text = read_page(folder / "index.html"), (folder / "index.html").read_text()
    assert all(image["alt"] for image in page.images)
    assert [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)] == ["h1"] + ["h2"] * 7
    assert page.find("html") == [{"lang": "en"}]
    assert len(page.find("caption")) == len(page.find("table"))
    assert all("scope" in attributes for attributes in page.find("th"))
    regions = [attributes for attributes in page.find("div") if attributes.get("role") == "region"]
    assert regions and all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in regions)
    assert "prefers-color-scheme: dark" in text and "@media print" in text and "max-width: 30rem" in text
    assert {link["href"] for link in page.find("a")} == set(FILES)
    assert not re.search(r"https?:|//|url\(|@import|<script|<link", re.sub(r"base64,[\w+/=]+", "", text))


def test_the_picture_on_the_page_is_the_file_beside_it(photographs, compare_row, explain_row):
    compare_row(photographs())
    folder = explain_row()
    shown = np.asarray(read_page(folder / "index.html").decode_image("Confusion matrix of 3 classes"))
    with Image.open(folder / "confusion.png") as picture:
        assert np.array_equal(shown, np.asarray(picture))
