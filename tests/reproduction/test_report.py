import csv
import io
import json
import re
from dataclasses import replace

import pandas as pd
import pytest

from featbench.evaluation.published import PublishedRow, PublishedTable
from featbench.registry import Registry
from featbench.reproduction.measure import Reproduction
from featbench.reproduction.report import render, render_claims

TABLE = PublishedTable(
    name="small",
    summary="a small table",
    protocol="small",
    columns=("full", "less", "least"),
    rows=(
        PublishedRow("R+R+", "random", "R+", "two", {"full": 64.7, "less": 59.5, "least": 29.7}, {"less": 1.6}),
        PublishedRow("G", "gabor", "fixed", "one", {"full": 52.3, "less": 41.9}),
    ),
    tolerance={"full": 1.5, "less": 3.0, "least": 3.0},
    notes=("The text says 60.0 for 59.5.", "It gives no bank."),
    source="Nobody 2001, table 7",
)

ACCURACY = Registry().metric("accuracy")

CLAIMS = [
    ("All of it matters.", "loss without less", 5.2, 4.75, 0.25, 3, 0.0123, "confirmed"),
    ("All of it matters.", "loss of G", 10.4, None, None, 0, None, "not tested: G less not measured"),
    ("Nothing of it matters.", "gain", -5.2, -4.75, 0.25, 3, 1.0, "not confirmed"),
    ("One draw matters.", "loss of one", 35.0, 30.25, None, 1, None, "not tested: needs at least 2 draws"),
]

NAMES = ("claim", "contrast", "published", "mean", "std", "n", "p", "verdict")


def line(row, column, learner, regime, *, published=None, scores=(), message="", status="ok", verdict=""):
    """Return a row as it is measured."""
    complete = status == "ok"
    mean = sum(scores) / len(scores) if complete else None
    source = {r.name: r for r in TABLE.rows}.get(row)
    return {
        "row": row,
        "column": column,
        "published": published,
        "published_std": None if source is None else source.deviations.get(column),
        **{"learner": learner, "regime": regime, "classifier": "nearest", "unlabelled": None},
        "mean": mean,
        "std": pd.Series(scores).std() if complete and len(scores) > 1 else None,
        "n": len(scores),
        "status": status,
        "fit_seconds": 12.345 if scores else None,
        "extract_seconds": 0.06 if scores else None,
        "scores": list(scores),
        "message": message,
        "images_left_out": 0,
        "difference": None if mean is None or published is None else mean - published,
        "tolerance": None if source is None else TABLE.tolerance[column],
        "verdict": verdict,
    }


ROWS = [
    line("chance", "", "chance", "fixed", scores=[1.0, 0.5]),
    line("raw-pixels", "", "raw-pixels", "fixed", scores=[12.0, 14.0]),
    line("R+R+", "full", "random", "R+", published=64.7, scores=[65.0, 66.0], verdict="within"),
    line("R+R+", "less", "random", "R+", published=59.5, scores=[50.25], verdict="below"),
    line("R+R+", "least", "random", "R+", published=29.7, scores=[40.0, 41.5], verdict="above"),
    line("G", "full", "gabor", "fixed", published=52.3, status="failed", message="it broke", verdict="failed"),
    line("G", "less", "gabor", "fixed", published=41.9, status="skipped", message="it cannot", verdict="skipped"),
]


@pytest.fixture
def reproduction():
    return Reproduction(TABLE, ACCURACY, None, pd.DataFrame(ROWS), pd.DataFrame(CLAIMS, columns=NAMES))


def cells(text, row, column):
    """Return the cells of a row of a table of text."""
    for shown in text.splitlines():
        found = [cell for cell in re.split(r"\s{2,}|\s*\|\s*", shown.strip(" |")) if cell]
        if found[:2] == [row, column] or (not column and found[:1] == [row]):
            return found
    return pytest.fail(f"there is no row {row} {column}")


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_every_number_is_beside_the_published_one(reproduction, form):
    text = render(reproduction, form)
    assert cells(text, "R+R+", "full") == ["R+R+", "full", "64.7", "65.5 ± 0.7", "+0.8", "within", "2", "12.3", "0.1"]
    assert cells(text, "R+R+", "less") == ["R+R+", "less", "59.5 ± 1.6", "50.2", "-9.2", "below", "1", "12.3", "0.1"]
    assert cells(text, "R+R+", "least") == ["R+R+", "least", "29.7", "40.8 ± 1.1", "+11.1", "above", "2", "12.3", "0.1"]
    assert cells(text, "G", "full") == ["G", "full", "52.3", "failed", "failed", "0"]
    assert cells(text, "G", "less") == ["G", "less", "41.9", "skipped", "skipped", "0"]
    assert cells(text, "raw pixels", "") == ["raw pixels", "13.0 ± 1.4", "2", "12.3", "0.1"]
    assert cells(text, "chance", "") == ["chance", "0.8 ± 0.4", "2", "12.3", "0.1"]


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_text_says_where_the_numbers_come_from_and_what_is_open(reproduction, form):
    text = render(reproduction, form)
    assert text.startswith("small: a small table\nNobody 2001, table 7\n\n")
    assert "the tolerance of 1.5 (full), 3 (less, least) points" in text
    assert "The text says 60.0 for 59.5.\nIt gives no bank.\n" in text
    assert re.search(r"^failed: .*it broke$", text, re.MULTILINE)
    assert re.search(r"^skipped: .*it cannot$", text, re.MULTILINE)
    assert text.endswith("\n")
    assert "\n\n\n" not in text


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_nothing_that_is_missing_is_printed_as_a_number(reproduction, form):
    text = render(reproduction, form) + render_claims(reproduction)
    assert not re.search(r"\b(nan|none|inf|infinity|nat)\b", text, re.IGNORECASE)


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_claims_are_said_with_their_verdicts(reproduction, form):
    text = render(reproduction, form)
    assert "All of it matters. Confirmed as far as tested (1 of 2).\n" in text
    assert "Nothing of it matters. Not confirmed.\n" in text
    assert "One draw matters. Not tested.\n" in text
    assert cells(text, "loss without less", "") == [
        *("loss without less", "5.2", "4.8 ± 0.2", "3", "0.012", "confirmed")
    ]
    assert cells(text, "loss of G", "") == ["loss of G", "10.4", "0", "not tested: G less not measured"]
    assert cells(text, "gain", "") == ["gain", "-5.2", "-4.8 ± 0.2", "3", "1", "not confirmed"]
    assert cells(text, "loss of one", "") == ["loss of one", "35.0", "30.2", "1", "not tested: needs at least 2 draws"]
    assert text.index("All of it") < text.index("Nothing of it") < text.index("One draw matters")
    assert "confirmed at 0.05" in text


def test_the_claims_alone_are_those_of_the_table(reproduction):
    assert render_claims(reproduction) in render(reproduction, "table")
    assert render_claims(reproduction, "github") in render(reproduction, "markdown")


def test_a_table_without_claims_and_notes_says_nothing_of_them(reproduction):
    bare = PublishedTable(**{**vars(TABLE), "notes": ()})
    found = Reproduction(bare, ACCURACY, None, reproduction.rows, pd.DataFrame())
    assert render_claims(found) == ""
    for form in ("table", "markdown"):
        text = render(found, form)
        assert "Nadeau" not in text
        assert text.endswith("it cannot\n")


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_headings_and_explanations_have_the_unit_of_the_metric(reproduction, form):
    text = render(reproduction, form)
    assert "published %" in text
    assert "measured %" in text
    assert "means and deviations are in percent" in text
    assert "Differences in points. p: one-sided" in text
    assert "Smaller" not in text
    metric = replace(ACCURACY, name="loss", unit="", larger_is_better=False)
    plain = render(replace(reproduction, metric=metric), form)
    assert "%" not in plain
    assert "percent" not in plain
    assert "points" not in plain
    assert "the tolerance of 1.5 (full), 3 (less, least). fit s" in plain
    assert "Smaller is better in loss: a sum is expected to be negative. p: one-sided" in plain
    assert cells(plain, "R+R+", "less")[2:5] == ["59.50 ± 1.60", "50.25", "-9.25"]
    assert cells(plain, "loss without less", "")[1:3] == ["5.200", "4.750 ± 0.250"]


def test_json_is_strict_and_holds_every_cell(reproduction):
    text = render(reproduction, "json")
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [(row["row"], row["column"]) for row in rows] == [(row["row"], row["column"]) for row in ROWS]
    for found, expected in zip(rows, ROWS, strict=True):
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name] == (None if not isinstance(value, list) and pd.isna(value) else value)


def test_csv_holds_every_cell(reproduction):
    rows = list(csv.DictReader(io.StringIO(render(reproduction, "csv"))))
    assert [(row["row"], row["column"]) for row in rows] == [(row["row"], row["column"]) for row in ROWS]
    for found, expected in zip(rows, ROWS, strict=True):
        for name in ("published", "published_std", "mean", "std", "difference", "tolerance"):
            value = expected[name]
            assert found[name] == "" if value is None or pd.isna(value) else float(found[name]) == value


def test_every_published_number_appears(reproduction):
    for form in ("table", "markdown", "csv", "json"):
        text = render(reproduction, form)
        for row in TABLE.rows:
            for value in (*row.values.values(), *row.deviations.values()):
                assert f"{value:.1f}" in text
