import csv
import io
import json

import numpy as np
import pandas as pd
import pytest

from featbench.report import table
from featbench.report.table import FORMATS, add_unit, count_decimals, explain_deviation, format_score, order_rows

BASELINES = [("chance", "fixed"), ("raw-pixels", "fixed")]

KEYS = [
    *("dataset", "protocol", "architecture", "learner", "regime", "classifier", "metric"),
    *("mean", "std", "n", "status", "fit_seconds", "extract_seconds", "seed"),
]


def render(rows, form):
    return table.render(rows, form, BASELINES)


def row(learner, regime, scores, status="ok", message="", classifier="logistic", **changes):
    complete = status == "ok"
    return {
        "dataset": "digits",
        "protocol": "digits",
        "train_per_class": 10,
        "test_per_class": "all",
        "architecture": "" if learner in ("chance", "raw-pixels") else "32F3-Rabs-N3-PA2/2",
        "learner": learner,
        "regime": regime,
        "label": {"fixed": "–"}.get(regime, regime),
        "classifier": classifier,
        "metric": "accuracy",
        "unlabelled": None,
        "device": "cpu",
        "precision": "float32",
        "seed": 0,
        "mean": float(np.mean(scores)) if complete else None,
        "std": float(np.std(scores, ddof=1)) if complete and len(scores) > 1 else None,
        "unit": "%",
        "n": len(scores),
        "draws": 2,
        "status": status,
        "fit_seconds": 1.234 if scores else None,
        "extract_seconds": 0.5 if scores else None,
        "scores": scores,
        "images_left_out": 0,
        "message": message,
        **changes,
    }


@pytest.fixture
def rows():
    return pd.DataFrame(
        [
            row("chance", "fixed", [9.0, 11.0], classifier="guess"),
            row("raw-pixels", "fixed", [80.0, 81.0]),
            row("random", "R", [90.0, 91.0]),
            row("random", "R+", [95.25, 95.35]),
            row("psd(lam=0.5,updates=3)", "U", [94.0]),
            row("broken", "U", [1.0], status="failed", message="RuntimeError: on purpose"),
            row("gabor", "U+", [], status="skipped", message="gabor has nothing to learn | at all"),
        ]
    )


def strict(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def markdown_table(text):
    """Return the cells of the one Markdown table in a text, the line of dashes left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert set("".join(cells[1])) <= set("-:")
    return [cells[0], *cells[2:]]


def test_json_rows_hold_everything_at_full_precision(rows):
    found = strict(render(rows, "json"))
    assert len(found) == len(rows)
    assert all(set(KEYS) <= set(entry) for entry in found)
    by_learner = {(entry["learner"], entry["regime"]): entry for entry in found}
    refined = by_learner["random", "R+"]
    assert (refined["mean"], refined["std"]) == (np.mean([95.25, 95.35]), np.std([95.25, 95.35], ddof=1))
    assert (refined["n"], refined["seed"], refined["scores"]) == (2, 0, [95.25, 95.35])
    assert isinstance(refined["n"], int)


def test_json_has_null_where_there_is_no_number(rows):
    found = {(entry["learner"], entry["regime"]): entry for entry in strict(render(rows, "json"))}
    assert found["psd(lam=0.5,updates=3)", "U"]["std"] is None
    assert found["psd(lam=0.5,updates=3)", "U"]["mean"] == 94.0
    assert (found["broken", "U"]["mean"], found["broken", "U"]["std"]) == (None, None)
    assert (found["gabor", "U+"]["mean"], found["gabor", "U+"]["fit_seconds"]) == (None, None)
    assert found["random", "R"]["unlabelled"] is None


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_without_a_single_number_is_rendered(form):
    text = render(pd.DataFrame([row("broken", "U", [], status="failed", message="why")]), form)
    assert "broken" in text
    assert "why" in text
    assert "nan" not in text.lower()


def test_csv_parses_back(rows):
    found = list(csv.DictReader(io.StringIO(render(rows, "csv"))))
    assert len(found) == len(rows)
    assert set(KEYS) <= set(found[0])
    by_learner = {(entry["learner"], entry["regime"]): entry for entry in found}
    refined = by_learner["random", "R+"]
    assert float(refined["mean"]) == np.mean([95.25, 95.35])
    assert float(refined["std"]) == np.std([95.25, 95.35], ddof=1)
    assert by_learner["psd(lam=0.5,updates=3)", "U"]["std"] == ""
    assert by_learner["broken", "U"]["mean"] == ""
    assert by_learner["broken", "U"]["message"] == "RuntimeError: on purpose"


def test_markdown_parses_back(rows):
    head, *found = markdown_table(render(rows, "markdown"))
    assert head == ["features", "regime", "classifier", "accuracy %", "n", "fit s", "extract s"]
    assert found == [
        ["random", "R+", "logistic", "95.3 ± 0.1", "2", "1.23", "0.50"],
        ["psd(lam=0.5,updates=3)", "U", "logistic", "94.0", "1", "1.23", "0.50"],
        ["broken", "U", "logistic", "failed", "1", "1.23", "0.50"],
        ["random", "R", "logistic", "90.5 ± 0.7", "2", "1.23", "0.50"],
        ["raw pixels", "–", "logistic", "80.5 ± 0.7", "2", "1.23", "0.50"],
        ["chance", "–", "guess", "10.0 ± 1.4", "2", "1.23", "0.50"],
    ]


def test_the_table_has_chance_and_raw_pixels_last(rows):
    lines = render(rows, "table").splitlines()
    starts = [line.split("  ")[0] for line in lines if line.split("  ")[0] in ("random", "raw pixels", "chance")]
    assert starts == ["random", "random", "raw pixels", "chance"]


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_readable_table_says_what_its_numbers_are(rows, form):
    text = render(rows, form)
    assert "± is the standard deviation over the n draws of training images (ddof 1)" in text
    assert "in percent" in text
    assert text.startswith("digits · digits · 10 training images per class\n32F3-Rabs-N3-PA2/2\n")
    assert "fit s: seconds to learn the filters" in text


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_what_failed_or_was_skipped_is_said_with_its_reason(rows, form):
    text = render(rows, form)
    assert "failed: broken U logistic: RuntimeError: on purpose\n" in text
    bar = r"\|" if form == "markdown" else "|"
    assert f"skipped: gabor U+ logistic: gabor has nothing to learn {bar} at all\n" in text


def test_rows_are_ordered_as_in_the_papers():
    regimes = ["fixed", "R", "fixed+", "U", "R+", "U+"]
    mixed = pd.DataFrame([row("chance", "fixed", [1.0]), *[row("a", regime, [1.0]) for regime in regimes]])
    ordered = order_rows(mixed, BASELINES)
    assert ordered["regime"].tolist() == ["U+", "R+", "U", "R", "fixed+", "fixed", "fixed"]
    assert ordered["learner"].tolist()[-1] == "chance"
    assert ordered.index.tolist() == list(range(7))


def test_rows_of_one_regime_keep_their_order():
    mixed = pd.DataFrame([row(name, "U", [1.0]) for name in ("z", "a", "m")])
    assert order_rows(mixed, BASELINES)["learner"].tolist() == ["z", "a", "m"]


@pytest.mark.parametrize(
    "status, mean, std, unit, text",
    [
        ("ok", 91.25, 0.84, "%", "91.2 ± 0.8"),
        ("ok", 91.26, 0.0, "%", "91.3 ± 0.0"),
        ("ok", 91.26, None, "%", "91.3"),
        ("ok", 91.26, float("nan"), "%", "91.3"),
        ("ok", 0.0, 0.0, "%", "0.0 ± 0.0"),
        ("failed", None, None, "%", "failed"),
        ("skipped", float("nan"), float("nan"), "%", "skipped"),
        ("ok", 0.91256, 0.00841, "", "0.9126 ± 0.0084"),
        ("ok", -0.0123456, None, "", "-0.01235"),
        ("ok", 12345.6, 17.2, "px", "12346 ± 17"),
        ("ok", 7.25, float("nan"), "px", "7.250"),
        ("ok", 0.0, 0.0, "", "0.000 ± 0.000"),
        ("failed", None, None, "", "failed"),
    ],
)
def test_a_score_is_rounded_when_it_is_shown(status, mean, std, unit, text):
    assert format_score(status, mean, std, unit) == text


def test_percentages_have_one_decimal_and_other_numbers_four_digits_of_the_largest():
    assert [count_decimals("%", value) for value in (0.001, 5.0, 1e6, None)] == [1] * 4
    assert [count_decimals("", value) for value in (0.001, 0.5, 5.0, 1e6, 0.0, None)] == [6, 4, 3, 0, 3, 3]
    assert count_decimals("", 0.5, 123.0, float("nan"), None) == 1


def test_headings_and_the_explanation_name_the_unit_that_values_have():
    assert [add_unit("error", unit) for unit in ("%", "px", "")] == ["error %", "error px", "error"]
    assert explain_deviation(["%", "%"]).endswith("(ddof 1); means and deviations are in percent.")
    assert explain_deviation(["px"]).endswith("(ddof 1); means and deviations are in px.")
    for units in ([""], ["%", ""], []):
        assert explain_deviation(units).endswith("(ddof 1).")


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_metric_that_is_no_percentage_is_not_said_to_be_one(form):
    text = render(pd.DataFrame([row("a", "U", [0.5, 0.75], metric="correlation", unit="")]), form)
    assert "correlation" in text
    assert "0.6250 ± 0.1768" in text
    assert "%" not in text
    assert "percent" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_with_one_newline(rows, form):
    text = render(rows, form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_two_architectures_are_both_named():
    mixed = pd.DataFrame([row("a", "U", [1.0]), row("b", "R", [1.0], architecture="8F3-Rabs-PM2")])
    title = render(mixed, "table").split("\n\n")[0]
    assert title.splitlines()[1:] == ["32F3-Rabs-N3-PA2/2", "8F3-Rabs-PM2"]


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_images_that_were_left_out_are_said_below_a_readable_table(rows, form):
    said = "images of digits could not be used and were left out"
    assert said not in render(rows, form)
    assert f"3 {said}" in render(rows.assign(images_left_out=3), form)
