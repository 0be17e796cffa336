import pytest

from featbench.comparison import Workbench
from featbench.evaluation.split import Census, Survey
from featbench.experiment.request import Request
from featbench.parameters import Choice
from featbench.registry import Registry
from featbench.reproduction.measure import plan_table

# Table 1 of Yang et al. 2009 with its deviations, and of Wang et al. 2010, which gives none; 30 images per class.
PRINTED = {"KSPM": "63.99±0.88", "ScSPM": "73.2±0.54", "LLC": "73.44"}

RUN = {
    "KSPM": ("sift", "fixed", "pmk-svm"),
    "ScSPM": ("scspm", "U", "linear-svm"),
    "LLC": ("llc", "U", "linear-svm"),
}
"""What each row stands for: learner, regime and classifier."""

WRITTEN = {
    "KSPM": "pmk-svm",
    "ScSPM": "linear-svm(C=10.0,standardise=False)",
    "LLC": "linear-svm(C=10.0,standardise=False)",
}
"""The classifiers of the rows as results and tables name them."""

COLUMN = "30 per class"

OBJECTS = Census(tuple(f"class {k}" for k in range(101)), (31,) * 100 + (800,), (0,) * 101, has_test=False)

REGISTRY = Registry()


@pytest.fixture
def table():
    return REGISTRY.table("yang2009")


@pytest.fixture
def planned(table, monkeypatch):
    """Every cell of the table with its row and column, on photographs of several sizes; nothing is loaded."""
    workbench = Workbench()
    monkeypatch.setattr(workbench.steps, "survey", lambda *_: Survey((1, 92, 80), False, OBJECTS))
    return plan_table(workbench, table, Request(device="cpu"))


def test_every_number_and_deviation_is_the_one_that_was_printed(table):
    found = {row.name: "±".join(map(str, (*row.values.values(), *row.deviations.values()))) for row in table.rows}
    assert found == PRINTED
    assert table.columns == (COLUMN,)
    assert {tuple(row.values) for row in table.rows} == {(COLUMN,)}


def test_every_row_is_measured_with_what_it_stands_for(table):
    found = {row.name: (row.learner, row.regime, Choice.read(row.classifier).name) for row in table.rows}
    assert found == RUN
    kernels = {row.name: REGISTRY.classifier(row.classifier).parameters().get("kernel") for row in table.rows}
    assert kernels == {"KSPM": "intersection", "ScSPM": None, "LLC": None}
    codebooks = {name: REGISTRY.learner(name).create({}).parameters()["codebook"] for name in ("scspm", "llc")}
    assert codebooks == {"scspm": 1024, "llc": 2048}


def test_cells_name_their_classifiers_canonically(table, planned):
    found = {row: cell.classifier for cell, (row, column) in planned.items() if column}
    assert found == WRITTEN
    for row in table.rows:
        choice = Choice.read(row.classifier)
        assert str(REGISTRY.classifier(choice.name).choice(dict(choice.parameters))) == WRITTEN[row.name]


def test_every_cell_can_be_run_but_for_raw_pixels_of_several_sizes(planned):
    skipped = {(place, cell.classifier.partition("(")[0]) for cell, place in planned.items() if cell.skip}
    assert skipped == {(("raw-pixels", ""), "logistic"), (("raw-pixels", ""), "linear-svm")}
    draws = REGISTRY.protocol("caltech101-spm").draws
    for name in PRINTED:
        cells = [cell for cell, place in planned.items() if place == (name, COLUMN)]
        assert [cell.draw for cell in cells] == list(range(draws))
        assert {(cell.learner.name, cell.regime.name, cell.classifier.partition("(")[0]) for cell in cells} == {
            RUN[name]
        }
    assert len(planned) == (3 + 1 + 2) * draws
    assert {(cell.protocol, cell.dataset, cell.architecture) for cell in planned} == {
        ("caltech101-spm", "caltech101-objects", "")
    }


def test_the_published_numbers_support_the_claims(table):
    values = {name: float(text.partition("±")[0]) for name, text in PRINTED.items()}
    gains = [
        sum(weight * values[row] for weight, row, column in contrast.terms)
        for claim in table.claims
        for contrast in claim.contrasts
    ]
    assert gains == pytest.approx([73.2 - 63.99])
    assert min(gains) > 0


def test_every_column_has_its_tolerance(table):
    assert dict(table.tolerance) == {COLUMN: 2.2}
