import pytest

from featbench.comparison import Workbench
from featbench.evaluation.split import Census, Survey
from featbench.execution.rows import format_regime
from featbench.experiment.request import Request
from featbench.registry import Registry
from featbench.reproduction.measure import plan_table
from featbench.stages.architecture import Architecture

# Table 1 of the paper, column by column, typed in from the paper. The deviations that it shows are after a "±".
ONE = ("U+", "R+", "U", "R", "G")
TWO = ("U+U+", "R+R+", "UU", "RR", "GT")
PRINTED = {
    "Rabs-N-PA": ("54.2 54.8 52.2 53.3 52.3", "65.5 64.7 63.7 62.9 55.8"),
    "Rabs-PA": ("50.0 47.0 43.3±1.6 31.7 -", "60.5 59.5 46.7 33.7±1.5 -"),
    "N-PM": ("44.3 38.0 44.0 32.1 -", "61.0 60.0 56.0 37.6±1.9 -"),
    "N-PA": ("18.5 16.3 17.2 15.3 -", "34.0 31.0 23.1 19.6 -"),
    "PA": ("14.5 14.3 13.4 12.1±2.2 -", "32.0 29.7 9.1 8.8 -"),
}

PMK = {("U PMK-SVM", "PMK"): "64.0", ("UU PMK-SVM", "PMK"): "52.8"}
"""Its last rows, of which the paper prints one number each."""

RUN = {
    **{"U+": ("psd", "U+"), "R+": ("random", "R+"), "U": ("psd", "U"), "R": ("random", "R"), "G": ("gabor", "fixed")},
    **{"U+U+": ("psd", "U+"), "R+R+": ("random", "R+"), "UU": ("psd", "U"), "RR": ("random", "R")},
    **{"GT": ("gabor-templates", "fixed"), "U PMK-SVM": ("psd", "U"), "UU PMK-SVM": ("psd", "U")},
}
"""What each row stands for: who fills the filters, and under which regime."""

WRITTEN = {
    "Rabs-N-PA": ("64F9-Rabs-N-PA10/5", "256F9:16-Rabs-N-PA6/4"),
    "Rabs-PA": ("64F9-Rabs-PA10/5", "256F9:16-Rabs-PA6/4"),
    "N-PM": ("64F9-N-PM5", "256F9:16-N-PM4"),
    "N-PA": ("64F9-N-PA10/5", "256F9:16-N-PA6/4"),
    "PA": ("64F9-PA10/5", "256F9:16-PA6/4"),
    "PMK": ("64F9-Rabs-N-PA10/5", "256F9:16-Rabs-N"),
}

CALTECH = Census(tuple(f"class {k}" for k in range(102)), (31,) * 101 + (800,), (0,) * 102, has_test=False)

REGISTRY = Registry()


def printed():
    """Return the numbers as printed, by row and column."""
    cells = {}
    for column, halves in PRINTED.items():
        for names, half in zip((ONE, TWO), halves, strict=True):
            cells |= {(name, column): text for name, text in zip(names, half.split(), strict=True) if text != "-"}
    return {**cells, **PMK}


@pytest.fixture
def table():
    return REGISTRY.table("jarrett2009")


@pytest.fixture
def planned(table, monkeypatch):
    """Every cell of the table with its row and column, on images of the right size; nothing is loaded."""
    workbench = Workbench()
    monkeypatch.setattr(workbench.steps, "survey", lambda *_: Survey((1, 151, 151), True, CALTECH))
    return plan_table(workbench, table, Request(device="cpu"))


def test_every_number_is_the_one_that_was_printed(table):
    found = {(row.name, column): value for row in table.rows for column, value in row.values.items()}
    assert found == {place: float(text.partition("±")[0]) for place, text in printed().items()}
    assert len(found) == 42 + 2


def test_every_deviation_is_the_one_that_was_printed(table):
    found = {(row.name, column): value for row in table.rows for column, value in row.deviations.items()}
    assert found == {place: float(text.partition("±")[2]) for place, text in printed().items() if "±" in text}
    assert len(found) == 4


def test_rows_and_columns_come_in_the_order_of_the_paper(table):
    assert [row.name for row in table.rows] == [*ONE, *TWO, "U PMK-SVM", "UU PMK-SVM"]
    assert list(table.columns) == [*PRINTED, "PMK"]
    for row in table.rows:
        assert list(row.values) == [column for column in table.columns if column in row.values]


def test_every_row_is_measured_with_the_learner_and_regime_that_it_stands_for(table):
    assert {row.name: (row.learner, row.regime) for row in table.rows} == RUN
    expected = {**dict.fromkeys((*ONE, "U PMK-SVM"), "one"), **dict.fromkeys((*TWO, "UU PMK-SVM"), "two")}
    assert {row.name: row.stages for row in table.rows} == expected
    assert {row.name for row in table.rows if row.classifier != "logistic"} == {"U PMK-SVM", "UU PMK-SVM"}
    assert {row.classifier for row in table.rows} == {"logistic", "pmk-svm"}


def test_every_cell_can_be_run(planned):
    assert [str(cell) for cell in planned if cell.skip] == []
    assert len(planned) == (42 + 2 + 2) * 5
    assert {(cell.protocol, cell.dataset, cell.train_per_class) for cell in planned} == {
        ("caltech101-30", "caltech101", 30)
    }
    assert {place for cell, place in planned.items() if cell.learner.name not in ("chance", "raw-pixels")} == set(
        printed()
    )
    for place in printed():
        assert [cell.draw for cell, found in planned.items() if found == place] == [0, 1, 2, 3, 4]


def test_rows_are_labelled_in_comparisons_as_in_the_paper(planned):
    for cell, (row, column) in planned.items():
        if column:
            assert format_regime(cell, REGISTRY) == row.removesuffix(" PMK-SVM")
            assert row.endswith("PMK-SVM") == (cell.classifier == "pmk-svm")


def test_every_cell_has_the_architecture_of_its_column(planned):
    for cell, (row, column) in planned.items():
        if column:
            assert (cell.learner.name, cell.regime.name) == RUN[row]
            assert cell.architecture == " > ".join(WRITTEN[column][: 1 if row in (*ONE, "U PMK-SVM") else 2])


def test_the_protocol_is_that_of_the_paper(table):
    protocol = REGISTRY.protocol(table.protocol)
    assert (protocol.dataset, protocol.train_per_class, protocol.test) == ("caltech101", 30, "rest")
    assert (protocol.metric, protocol.draws, protocol.preprocessing.size) == ("mean-per-class-accuracy", 5, 151)
    assert round(30 * protocol.validation_fraction) == 5
    assert protocol.architecture == protocol.architectures["one:Rabs-N-PA"]
    for text in protocol.architectures.values():
        assert str(Architecture.parse(text)) == text


def test_every_column_has_its_tolerance(table):
    others = {"Rabs-PA": 3.0, "N-PM": 3.0, "N-PA": 3.0, "PA": 3.0}
    assert dict(table.tolerance) == {"Rabs-N-PA": 1.5, "PMK": 1.5, **others}


# Claims.


def test_claims_name_cells_that_the_table_has(table):
    places = printed()
    for claim in table.claims:
        for contrast in claim.contrasts:
            assert all((row, column) in places for _, row, column in contrast.terms)
            # A contrast is a difference, of differences perhaps: chance, added to all cells, does not change it.
            assert sum(weight for weight, _, _ in contrast.terms) == 0


def test_the_contrasts_have_the_values_that_the_paper_gives_them(table):
    places = printed()
    matter, nearly = (
        {
            contrast.text: sum(
                weight * float(places[row, column].partition("±")[0]) for weight, row, column in contrast.terms
            )
            for contrast in claim.contrasts
        }
        for claim in table.claims
    )
    assert matter == pytest.approx(
        {
            "R: loss without N": 21.6,  # 53.3 - 31.7
            "R: loss without Rabs": 38.0,  # 53.3 - 15.3
            "RR: loss without N": 29.2,  # 62.9 - 33.7
            "RR: loss without Rabs": 43.3,  # 62.9 - 19.6
            "R: loss without N, less the gain of U": 22.7,  # 21.6 - (52.2 - 53.3)
            "R: loss without Rabs, less the gain of U": 39.1,
            "RR: loss without N, less the gain of UU": 28.4,  # 29.2 - (63.7 - 62.9)
            "RR: loss without Rabs, less the gain of UU": 42.5,
        }
    )
    assert nearly == pytest.approx(
        {
            "R less U, above -3": 1.1,
            "RR less UU, above -3": -0.8,
            "R+ less U+, above -3": 0.6,
            "R+R+ less U+U+, above -3": -0.8,
        }
    )


def test_the_published_numbers_support_the_claims(table):
    places = {place: float(text.partition("±")[0]) for place, text in printed().items()}
    assert [{contrast.above for contrast in claim.contrasts} for claim in table.claims] == [{0}, {-3}]
    for claim in table.claims:
        for contrast in claim.contrasts:
            assert sum(weight * places[row, column] for weight, row, column in contrast.terms) > contrast.above
