import pytest

from featbench.comparison import Workbench
from featbench.evaluation.split import Census, Survey
from featbench.experiment.request import Request
from featbench.parameters import Choice
from featbench.registry import Registry
from featbench.reproduction.measure import plan_table

# Table 2 of the paper, strong features, M = 200, typed in from the paper: level, single level, pyramid.
PRINTED = {
    0: ("41.2±1.2", None),
    1: ("55.9±0.9", "57.0±0.8"),
    2: ("63.6±0.9", "64.6±0.8"),
    3: ("60.3±0.9", "64.6±0.7"),
}

COLUMN = "M=200"

WRITTEN = {
    "L=0": "pmk-svm(levels=0)",
    "L=1 single": "pmk-svm(levels=1,single=True)",
    "L=1 pyramid": "pmk-svm(levels=1)",
    "L=2 single": "pmk-svm(single=True)",
    "L=2 pyramid": "pmk-svm",
    "L=3 single": "pmk-svm(levels=3,single=True)",
    "L=3 pyramid": "pmk-svm(levels=3)",
    "L=2 step 4": "pmk-svm",
}
"""The classifiers of the rows as results and tables name them."""

OBJECTS = Census(tuple(f"class {k}" for k in range(101)), (31,) * 100 + (800,), (0,) * 101, has_test=False)

REGISTRY = Registry()


def printed():
    """Return the numbers as printed, by row, with the level and whether it is shown alone."""
    cells = {}
    for level, (single, pyramid) in PRINTED.items():
        if level == 0:
            cells["L=0"] = (single, 0, False)
        else:
            cells |= {f"L={level} single": (single, level, True), f"L={level} pyramid": (pyramid, level, False)}
    # A row of its own, measured with more descriptors, beside the same number.
    return {**cells, "L=2 step 4": cells["L=2 pyramid"]}


@pytest.fixture
def table():
    return REGISTRY.table("lazebnik2006")


@pytest.fixture
def planned(table, monkeypatch):
    """Every cell of the table with its row and column, on photographs of several sizes; nothing is loaded."""
    workbench = Workbench()
    monkeypatch.setattr(workbench.steps, "survey", lambda *_: Survey((1, 92, 80), False, OBJECTS))
    return plan_table(workbench, table, Request(device="cpu"))


def test_every_number_and_deviation_is_the_one_that_was_printed(table):
    found = {row.name: f"{row.values[COLUMN]}±{row.deviations[COLUMN]}" for row in table.rows}
    assert found == {name: text for name, (text, _, _) in printed().items()}
    assert list(found) == list(printed())
    assert table.columns == (COLUMN,)
    assert {tuple(row.values) for row in table.rows} == {tuple(row.deviations) for row in table.rows} == {(COLUMN,)}


def test_rows_are_pyramids_of_200_words_of_dense_sift_and_differ_in_their_levels(table):
    learners = {row.name: row.learner for row in table.rows}
    assert learners == {**dict.fromkeys(printed(), "sift"), "L=2 step 4": "sift(step=4)"}
    assert {(row.regime, row.stages) for row in table.rows} == {("fixed", "")}
    sift = REGISTRY.learner("sift").create({}).parameters()
    assert (sift["size"], sift["step"]) == (16, 8)
    for row in table.rows:
        parameters = REGISTRY.classifier(row.classifier).parameters()
        assert (parameters["levels"], parameters["single"]) == printed()[row.name][1:]
        others = {"codebook": 200, "coding": "hard", "pooling": "sum", "kernel": "intersection", "multiclass": "ovr"}
        assert {name: parameters[name] for name in others} == others


def test_cells_name_their_classifiers_canonically(table, planned):
    found = {row: cell.classifier for cell, (row, column) in planned.items() if column}
    assert found == WRITTEN
    for row in table.rows:
        choice = Choice.read(row.classifier)
        assert str(REGISTRY.classifier(choice.name).choice(dict(choice.parameters))) == WRITTEN[row.name]


def test_every_cell_can_be_run_but_for_raw_pixels_of_several_sizes(planned):
    skipped = {place: cell.skip for cell, place in planned.items() if cell.skip}
    assert list(skipped) == [("raw-pixels", "")]
    assert "the images differ in size" in skipped["raw-pixels", ""]
    draws = REGISTRY.protocol("caltech101-spm").draws
    assert len(planned) == (8 + 2) * draws
    for name in printed():
        assert [cell.draw for cell, place in planned.items() if place == (name, COLUMN)] == list(range(draws))
    assert {(cell.protocol, cell.dataset, cell.architecture) for cell in planned} == {
        ("caltech101-spm", "caltech101-objects", "")
    }
    assert {(cell.train_per_class, cell.test_per_class) for cell in planned} == {(30, 50)}


def test_the_protocol_is_that_of_the_paper(table):
    protocol = REGISTRY.protocol(table.protocol)
    assert (protocol.train_per_class, protocol.test_per_class, protocol.test) == (30, 50, "rest")
    assert (protocol.metric, protocol.preprocessing.size, protocol.preprocessing.pad) == (
        "mean-per-class-accuracy",
        None,
        False,
    )
    assert round(30 * protocol.validation_fraction) == 5
    assert REGISTRY.dataset(protocol.dataset).name == "caltech101-objects"


def test_the_published_numbers_support_the_claims(table):
    values = {name: float(text.partition("±")[0]) for name, (text, _, _) in printed().items()}
    gains = [
        sum(weight * values[row] for weight, row, column in contrast.terms)
        for claim in table.claims
        for contrast in claim.contrasts
    ]
    # 57.0 - 41.2, 64.6 - 57.0; 57.0 - 55.9, 64.6 - 63.6, 64.6 - 60.3.
    assert gains == pytest.approx([15.8, 7.6, 1.1, 1.0, 4.3])
    assert {contrast.above for claim in table.claims for contrast in claim.contrasts} == {0}


def test_every_column_has_its_tolerance(table):
    assert dict(table.tolerance) == {COLUMN: 1.5}
