import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.statistics.summary import summarise

ROW = (
    *("dataset", "protocol", "train_per_class", "test_per_class", "architecture", "learner", "regime", "label"),
    *("classifier", "metric", "unlabelled", "device", "precision", "refinement", "seed"),
)
"""The columns that draws of one row share here."""

OTHERS = [
    ("dataset", "mnist"),
    ("protocol", "mine"),
    ("train_per_class", "all"),
    ("test_per_class", 50),
    ("architecture", "8F3"),
    ("learner", "psd"),
    ("regime", "R+"),
    ("label", "R+"),
    ("classifier", "guess"),
    ("metric", "mean-per-class-accuracy"),
    ("unlabelled", "folder"),
    ("device", "cuda"),
    ("precision", "bf16"),
    ("refinement", "epochs=3"),
    ("seed", 1),
]
"""Another value of each column."""

SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=8)


def cells(scores, **changes):
    """Return the cells of one row; a score of None is a draw that failed."""
    base = {
        "dataset": "digits",
        "protocol": "digits",
        "train_per_class": 10,
        "test_per_class": "all",
        "architecture": "4F3",
        "learner": "random",
        "regime": "R",
        "label": "R",
        "classifier": "logistic",
        "metric": "accuracy",
        "unlabelled": None,
        "device": "cpu",
        "precision": "float32",
        "refinement": "",
        "seed": 0,
    }
    return [
        {
            **base,
            "draw": draw,
            "status": "failed" if score is None else "ok",
            "score": score,
            "unit": "%",
            "fit_seconds": float(draw),
            "extract_seconds": 2.0 * draw,
            "images_left_out": 0,
            "message": "broke" if score is None else "",
            **changes,
        }
        for draw, score in enumerate(scores)
    ]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(SCORES)
def test_mean_and_deviation_are_those_of_numpy(scores):
    (row,) = summarise(pd.DataFrame(cells(scores)), ROW).to_dict("records")
    assert row["mean"] == pytest.approx(np.mean(scores), rel=1e-12, abs=1e-12)
    if len(scores) > 1:
        assert row["std"] == pytest.approx(np.std(scores, ddof=1), rel=1e-9, abs=1e-9)
    else:
        assert row["std"] is None
    assert (row["n"], row["draws"], row["status"], row["unit"]) == (len(scores), len(scores), "ok", "%")
    assert row["scores"] == scores
    assert row["fit_seconds"] == pytest.approx(np.mean(range(len(scores))))
    assert row["extract_seconds"] == pytest.approx(2 * np.mean(range(len(scores))))


def test_the_deviation_divides_by_one_less_than_n():
    (row,) = summarise(pd.DataFrame(cells([1.0, 2.0, 3.0])), ROW).to_dict("records")
    assert (row["mean"], row["std"]) == (2.0, 1.0)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.none() | st.floats(0, 100), min_size=1, max_size=6).filter(lambda scores: None in scores))
def test_there_is_no_mean_over_an_incomplete_row(scores):
    (row,) = summarise(pd.DataFrame(cells(scores)), ROW).to_dict("records")
    ok = [score for score in scores if score is not None]
    assert (row["mean"], row["std"]) == (None, None)
    assert (row["n"], row["draws"], row["status"], row["message"]) == (len(ok), len(scores), "failed", "broke")
    assert row["scores"] == ok
    assert (row["fit_seconds"] is None) == (not ok)


@pytest.mark.parametrize("order", list(itertools.permutations(["failed", "skipped", "ok"])))
def test_the_status_of_a_row_is_its_worst(order):
    draws = [{**cell, "status": status} for cell, status in zip(cells([1.0, 2.0, 3.0]), order, strict=True)]
    assert summarise(pd.DataFrame(draws), ROW)["status"].tolist() == ["failed"]
    draws = [draw for draw in draws if draw["status"] != "failed"]
    assert summarise(pd.DataFrame(draws), ROW)["status"].tolist() == ["skipped"]


@pytest.mark.parametrize("column, value", OTHERS)
def test_cells_that_differ_in_more_than_the_draw_are_not_averaged(column, value):
    rows = summarise(pd.DataFrame(cells([1.0, 3.0]) + cells([10.0, 30.0], **{column: value})), ROW)
    assert rows["mean"].tolist() == [2.0, 20.0]
    assert rows[column].isna().tolist() == [value == "folder", False]
    assert rows[column].iloc[1] == value


def test_every_column_of_a_row_is_tested_above():
    assert [column for column, _ in OTHERS] == list(ROW)


def test_cells_that_differ_in_a_column_that_is_not_shared_are_one_row():
    draws = cells([1.0, 3.0]) + cells([10.0, 30.0], seed=1)
    (row,) = summarise(pd.DataFrame(draws), [column for column in ROW if column != "seed"]).to_dict("records")
    assert (row["mean"], row["n"]) == (11.0, 4)
    assert "seed" not in row


@pytest.mark.parametrize("unit", ["%", "", "px"])
def test_the_unit_of_a_row_is_that_of_its_scores(unit):
    (row,) = summarise(pd.DataFrame(cells([1.0, None], unit=unit)), ROW).to_dict("records")
    assert row["unit"] == unit


def test_rows_keep_the_order_of_their_cells():
    draws = [cells([1.0, 2.0], learner=name) for name in ("psd", "chance", "random")]
    mixed = [draw for together in zip(*draws, strict=True) for draw in together]
    rows = summarise(pd.DataFrame(mixed), ROW)
    assert rows["learner"].tolist() == ["psd", "chance", "random"]
    assert rows["scores"].tolist() == [[1.0, 2.0]] * 3


def test_the_message_of_a_row_is_that_of_its_first_draw_that_is_not_ok():
    draws = cells([1.0, None, None])
    draws[2]["message"] = "later"
    draws[0]["message"] = "ignored: this draw is ok"
    assert summarise(pd.DataFrame(draws), ROW)["message"].tolist() == ["broke"]


def test_a_row_has_the_largest_number_of_images_that_any_draw_left_out():
    draws = cells([1.0, None, 2.0])
    draws[2]["images_left_out"] = 7
    assert summarise(pd.DataFrame(draws), ROW)["images_left_out"].tolist() == [7]
