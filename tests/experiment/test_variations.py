"""What a cell varies in: every field is declared once, and everything that is shown of it follows from there."""

import argparse
import dataclasses

import pytest

from featbench.cli.options import add_variations, read_variations
from featbench.data.maps import Preprocessing
from featbench.evaluation.regimes import REGIMES
from featbench.experiment import variations
from featbench.experiment.cell import Cell
from featbench.experiment.request import Request
from featbench.experiment.variations import (
    SHARED,
    VARIATIONS,
    Variation,
    describe_row,
    list_deciding_fields,
    list_requested_variations,
    list_row_columns,
)
from featbench.leaderboard.names import name_entry
from featbench.leaderboard.pages import COLUMNS, render_csv, render_page
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
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

OTHERS = {
    "learner": (Choice("psd", (("lam", 0.5),)), "psd(lam=0.5)_R_logistic_10-per-class_seed-0"),
    "regime": (REGIMES["U+"], "random_U+_logistic_10-per-class_seed-0"),
    "classifier": ("knn(k=3)", "random_R_knn(k=3)_10-per-class_seed-0"),
    "train_per_class": (None, "random_R_logistic_all-per-class_seed-0"),
    "seed": (7, "random_R_logistic_10-per-class_seed-7"),
    "dataset": ("folder:photos", "random_R_logistic_10-per-class_seed-0_folderofphotos_3548a350f594"),
    "architecture": ("4F3 > 8F3:2", "random_R_logistic_10-per-class_seed-0_4F3-8F3of2"),
    "unlabelled": ("natural images", "random_R_logistic_10-per-class_seed-0_on-natural-images"),
    "test_per_class": (50, "random_R_logistic_10-per-class_seed-0_at-most-50-tested"),
    "device": ("cuda", "random_R_logistic_10-per-class_seed-0_cuda"),
    "precision": ("bf16", "random_R_logistic_10-per-class_seed-0_bf16"),
    "refinement": (
        Refinement.read(DIGITS.refinement, "epochs=3"),
        "random_R_logistic_10-per-class_seed-0_refined-with-epochs=3",
    ),
    "preprocessing": (Preprocessing(channels=3, opponent=True), "random_R_logistic_10-per-class_seed-0_opponent"),
}
"""Another value of each field, and the name of an entry with it alone; names of published entries must stay."""


def undeclared(cell):
    """Return the fields of a class of cells of which nobody says whether rows differ in them, or several say."""
    declared = [*(variation.name for variation in VARIATIONS), *SHARED]
    names = [field.name for field in dataclasses.fields(cell)]
    return {name for name in {*names, *declared} if (names.count(name), declared.count(name)) != (1, 1)}


def test_every_field_of_a_cell_varies_or_is_shared():
    assert undeclared(Cell) == set()


def test_a_field_that_is_added_without_saying_whether_it_varies_is_found():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wider(Cell):
        colour: bool = False

    assert undeclared(Wider) == {"colour"}


def test_the_columns_of_a_row_are_what_varies_and_the_label():
    assert list_row_columns() == (
        *("dataset", "protocol", "train_per_class", "test_per_class", "architecture", "learner", "regime", "label"),
        *("classifier", "metric", "unlabelled", "device", "precision", "refinement", "seed"),
        "channels",
    )


def test_a_row_holds_names_and_texts_in_place_of_objects():
    cell = dataclasses.replace(PLAIN, **{name: value for name, (value, _) in OTHERS.items()})
    assert describe_row(cell) == {
        "protocol": "digits",
        "metric": "accuracy",
        "learner": "psd(lam=0.5)",
        "regime": "U+",
        "classifier": "knn(k=3)",
        "train_per_class": "all",
        "seed": 7,
        "dataset": "folder:photos",
        "architecture": "4F3 > 8F3:2",
        "unlabelled": "natural images",
        "test_per_class": 50,
        "device": "cuda",
        "precision": "bf16",
        "refinement": str(cell.refinement),
        "channels": "opponent",
    }
    plain = describe_row(PLAIN)
    assert (plain["test_per_class"], plain["refinement"], plain["unlabelled"]) == ("all", "", None)


def test_the_name_of_an_entry_leaves_out_what_goes_without_saying():
    assert name_entry(PLAIN, DIGITS) == "random_R_logistic_10-per-class_seed-0"
    usual = dataclasses.replace(PLAIN, refinement=Refinement.read(DIGITS.refinement), architecture="")
    assert name_entry(usual, DIGITS) == "random_R_logistic_10-per-class_seed-0"


@pytest.mark.parametrize("name", OTHERS)
def test_the_name_of_an_entry_says_what_is_unusual(name):
    value, expected = OTHERS[name]
    assert name_entry(dataclasses.replace(PLAIN, **{name: value}), DIGITS) == expected


def test_every_variation_tells_entries_apart_but_for_what_the_folder_says():
    assert set(OTHERS) | {"protocol", "metric"} == {variation.name for variation in VARIATIONS}


def test_the_name_of_an_entry_says_its_parts_in_the_order_of_published_names():
    cell = dataclasses.replace(PLAIN, **{name: value for name, (value, _) in OTHERS.items()})
    assert name_entry(cell, DIGITS) == (
        "psd(lam=0.5)_U+_knn(k=3)_all-per-class_seed-7_folderofphotos_4F3-8F3of2_on-natural-images_at-most-50-tested"
        "_cuda_bf16_refined-with-epochs=3_opponent_07397187cac9"
    )


ENTRY = {
    **{"protocol": "digits", "dataset": "digits", "train_per_class": 10, "architecture": "", "learner": "random"},
    **{"features": "random", "regime": "R", "label": "R", "classifier": "logistic", "metric": "accuracy", "mean": 90.0},
    **{"std": 1.0, "n": 2, "seed": 0, "device": "cpu", "precision": "float32", "unlabelled": None, "refined_with": ""},
    **{"scores": [89.0, 91.0], "seconds": dict.fromkeys(("learn", "refine", "extract", "classify"), 1.0)},
    **{"provenance": [{"commit": "c0ffee", "dirty": False}], "unit": "%", "larger_is_better": True, "channels": "grey"},
}


@pytest.mark.parametrize(
    "changes, text",
    [
        ({}, "random"),
        ({"unlabelled": "berkeley"}, "random on berkeley"),
        ({"test_per_class": 50}, "random, at most 50 tested per class"),
        ({"precision": "bf16"}, "random, bf16"),
        ({"refined_with": "epochs=3"}, "random, refined with epochs=3"),
        ({"device": "cuda"}, "random"),
        ({"channels": "rgb"}, "random, rgb"),
        ({"channels": "grey"}, "random"),
        (
            {"unlabelled": "a", "test_per_class": 5, "precision": "bf16", "refined_with": "epochs=3"},
            "random on a, at most 5 tested per class, bf16, refined with epochs=3",
        ),
    ],
)
def test_a_page_says_what_is_unusual_behind_the_features(changes, text):
    page = render_page("digits", [{**ENTRY, **changes}])
    (line,) = [line for line in page.splitlines() if line.startswith("| random")]
    assert line.split("|")[1].strip() == text


def test_columns_of_published_tables_stay_and_those_of_new_variations_come_last():
    assert (
        *("protocol", "dataset", "train_per_class", "architecture", "learner", "features", "regime", "label"),
        *("classifier", "metric", "mean", "std", "n", "seed", "device", "precision", "unlabelled", "refined_with"),
        "channels",
    ) == COLUMNS
    assert {variation.csv for variation in VARIATIONS if variation.csv} <= set(COLUMNS)
    assert render_csv([ENTRY]).splitlines()[0].startswith(",".join(COLUMNS))


def test_what_a_request_may_vary_is_a_field_of_it_and_an_option():
    asked = list_requested_variations()
    assert set(asked) <= {field.name for field in dataclasses.fields(Request)}
    parser = argparse.ArgumentParser()
    add_variations(parser.add_argument_group())
    options = parser.parse_args([])
    assert set(vars(options)) == set(asked) == set(read_variations(options))


def test_a_result_is_decided_by_every_field_but_two():
    assert {field.name for field in dataclasses.fields(Cell)} - list_deciding_fields() == {"protocol", "skip"}


def test_a_new_variation_shows_everywhere(monkeypatch):
    """A field that rows came to differ in: one line among the variations names it in files, on pages and in rows."""
    colour = Variation("validation_fraction", usual=(0.3,), file="{} validate", page=", {} validate", csv="fraction")
    monkeypatch.setattr(variations, "VARIATIONS", (*VARIATIONS, colour))
    monkeypatch.setattr("featbench.leaderboard.names.VARIATIONS", variations.VARIATIONS)
    monkeypatch.setattr("featbench.leaderboard.pages.VARIATIONS", variations.VARIATIONS)
    half = dataclasses.replace(PLAIN, validation_fraction=0.5)
    assert name_entry(PLAIN, DIGITS) == "random_R_logistic_10-per-class_seed-0"
    assert name_entry(half, DIGITS) == "random_R_logistic_10-per-class_seed-0_0.5-validate"
    assert describe_row(half)["validation_fraction"] == 0.5
    assert list_row_columns()[-1] == "validation_fraction"
    assert "| random, 0.5 validate " in render_page("digits", [{**ENTRY, "fraction": 0.5}])
    assert "validate" not in render_page("digits", [ENTRY])
