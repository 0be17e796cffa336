"""What users name, classes, parameters, folders and messages, in every format that is written."""

import csv
import io
import json
import re
import unicodedata

import pandas as pd
import pytest

from featbench.leaderboard.pages import PUBLISHED, render_csv, render_page
from featbench.report.markdown import escape_markdown
from featbench.report.table import FORMATS, render
from featbench.studies import page
from featbench.studies.study import Findings, Table

FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "-",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://a","b")',
    "＝1+1",
    "=IMPORTXML(1)",
]

NUMBERS = ["-1.5", "+3", "-0", "1e-3", "-inf", "-2e+10"]

MARKS = [
    "a|b",
    "a\nb",
    "a\r\nb",
    "`code`",
    "<script>alert(1)</script>",
    "<b>",
    "*bold*",
    "_slanted_",
    "~~gone~~",
    "[text](http://a)",
    "![picture](a.png)",
    "$x^2$",
    "a\\b",
    "a\\|b",
    "&lt;",
    "#12",
    "{{ x }}",
    "50 %",
    "``|``",
    "\x1b[31mred",
    "\u202egpj.exe",
]


def unescape(text):
    """Read Markdown's escapes."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def make_row(learner, message="", dataset="folder:set"):
    return {
        **{"dataset": dataset, "protocol": "digits", "train_per_class": 3, "test_per_class": "all"},
        **{"architecture": "", "learner": learner, "regime": "R", "label": "R", "classifier": learner},
        **{"metric": "accuracy", "unit": "%", "mean": -12.5, "std": 0.5, "n": 2, "draws": 2, "seed": 0},
        **{"status": "failed" if message else "ok", "fit_seconds": 0.5, "extract_seconds": 0.25},
        **{"scores": [-12.0, -13.0], "images_left_out": 1, "message": message},
    }


def split_line(line):
    """Split a line of a Markdown table as GitHub does: at every bar that no backslash stands before."""
    return [unescape(cell.strip()) for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text_in_csv_and_numbers_stay_numbers(text):
    frame = pd.DataFrame([make_row(text, dataset=text)])
    (row,) = csv.DictReader(io.StringIO(render(frame, "csv"), newline=""))
    for field in (row["learner"], row["classifier"], row["dataset"]):
        assert field[0] not in "=+-@\t\r\n＝"
        assert field.removeprefix("'").replace("\\t", "\t").replace("\\r", "\r").replace("\\n", "\n") == text
    assert (row["mean"], row["std"], row["n"]) == ("-12.5", "0.5", "2")
    assert row["scores"] == "[-12.0, -13.0]"


@pytest.mark.parametrize("text", NUMBERS)
def test_a_name_that_is_a_number_is_no_formula(text):
    (row,) = csv.DictReader(io.StringIO(render(pd.DataFrame([make_row(text)]), "csv")))
    assert row["learner"] == text


@pytest.mark.parametrize("text", [*FORMULAS, *MARKS])
@pytest.mark.parametrize("message", [False, True])
def test_no_name_breaks_a_markdown_table(text, message):
    rows = pd.DataFrame([make_row(text, text if message else "", text), make_row("other")])
    shown = render(rows, "markdown")
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert [len(split_line(line)) for line in lines] == [7] * 4
    printed = unescape(escape_markdown(text))
    assert sorted(split_line(line)[0] for line in lines[2:]) == sorted([printed, "other"])
    assert not re.search(r"(?<!\\)[<`$*]", shown)
    assert shown.encode()
    assert shown.count("\n\n") == (4 if message else 3)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", MARKS)
def test_every_format_can_be_written_and_moves_no_cursor(text, form):
    shown = render(pd.DataFrame([make_row(text, text)]), form)
    shown.encode()
    assert not [sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cs") and sign != "\n"]
    if form == "json":
        (row,) = json.loads(shown)
        assert (row["learner"], row["message"], row["mean"]) == (text, text, -12.5)


@pytest.mark.parametrize("text", ["psd(lam=0.5)", "svm(C=10.0)", "mean_per_class", "a b, c", "R+R+", "50 % of 3"])
def test_plain_names_are_left_as_they_are(text):
    assert escape_markdown(text) == text


@pytest.mark.parametrize("text", [*FORMULAS, *MARKS, "Mün\udcfcchen"])
def test_pages_and_tables_of_leaderboards_take_every_name(text):
    entry = dict.fromkeys(PUBLISHED, text) | {
        **{"train_per_class": 3, "mean": -1.5, "std": 0.5, "n": 2, "seed": 0, "unit": "", "larger_is_better": True},
        **{"scores": [-1.0, -2.0], "precision": "float32", "device": "cpu", "test_per_class": None, "channels": "grey"},
        "architecture": "32F3-Rabs-N3-PA2/2 > 8F3:2",
        "seconds": dict.fromkeys(("learn", "refine", "extract", "classify"), 0.5),
        "provenance": [{"commit": "c0ffee", "dirty": False}],
    }
    (row,) = csv.DictReader(io.StringIO(render_csv([entry])))
    assert all(row[name][0] not in "=+-@\t\r" for name in ("learner", "features", "dataset", "unlabelled"))
    assert (row["mean"], row["scores"]) == ("-1.5", "-1.0 -2.0")
    shown = render_page(text, [entry])
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert [len(split_line(line)) for line in lines] == [9] * 3
    assert len([line for line in shown.splitlines() if line.startswith("#")]) == 2
    assert "<script" not in shown.replace(r"\<", "")


@pytest.mark.parametrize("text", [*FORMULAS, *MARKS, "Mün\udcfcchen"])
def test_studies_take_every_name(text):
    findings = Findings(
        "title", "", [Table("", [{"name": text, "value": -1.5}, {"name": "b", "value": 2.5}])], [], None
    )
    rows = list(csv.DictReader(io.StringIO(page.render(findings, "csv"))))
    assert rows[0]["name"][0] not in "=+-@\t\r"
    assert rows[0]["value"] == "-1.5"
    lines = [line for line in page.render(findings, "markdown").splitlines() if line.startswith("|")]
    assert [len(split_line(line)) for line in lines] == [2] * 4
    assert json.loads(page.render(findings, "json"))["tables"][0]["rows"][0]["name"] == text
