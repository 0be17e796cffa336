import pytest
from matplotlib.figure import Figure

from featbench.comparison import Workbench
from featbench.errors import ArchitectureError, UnknownNameError, UsageError
from featbench.registry import Registry
from featbench.studies import size
from featbench.studies.size import SizeSettings, change_filters

SMALL = {"protocol": "tiny", "features": "random", "filters": (2, 8), "draws": 2, "device": "cpu"}


@pytest.fixture
def workbench(tiny):
    return Workbench(plugins=[tiny])


@pytest.mark.parametrize(
    "stages, protocol, expected",
    [
        ("", "digits", "7F3-Rabs-N3-PA2/2"),
        ("N-16C5-relu-PM2", "digits", "N-7C5-relu-PM2"),
        ("64F9-PA10/5 > 256F9:16-PA6/4", "digits", "7F9-PA10/5 > 256F9:16-PA6/4"),
        ("two:PA", "caltech101-30", "7F9-PA10/5 > 256F9:16-PA6/4"),
        ("", "caltech101-30", "7F9-Rabs-N-PA10/5"),
    ],
)
def test_only_the_filters_of_the_first_stage_vary(stages, protocol, expected):
    assert change_filters(stages, protocol, 7, Registry()) == expected


def test_rows_are_those_of_comparisons(workbench, log):
    found = size.run(SizeSettings(**SMALL), workbench)
    (table,) = found.tables
    assert [(row["features"], row["filters"]) for row in table.rows] == [
        *(("random", 2), ("random", 8), ("chance", None), ("raw pixels", None))
    ]
    from featbench import compare

    rows = compare(
        "tiny",
        features=["random"],
        regimes=["R"],
        stages="8F3-Rabs-PA2/2",
        draws=2,
        device="cpu",
        track=False,
        plugins=workbench_plugins(workbench),
    )
    (expected,) = rows[rows["learner"] == "random"].to_dict("records")
    assert (table.rows[1]["accuracy %"], table.rows[1]["±"], table.rows[1]["n"]) == (
        expected["mean"],
        expected["std"],
        2,
    )
    assert "2F3-Rabs-PA2/2 … 8F3-Rabs-PA2/2" in found.notes[0]
    assert found.data == {"tiny": "0"}
    assert not found.failed


def workbench_plugins(workbench):
    return [record.origin for record in workbench.registry.records if record.origin.endswith("tiny.py")]


def test_what_the_store_holds_is_not_computed_again(workbench, write_learner, tiny, log):
    plugin = write_learner()
    for _ in range(2):
        size.run(SizeSettings(**{**SMALL, "features": "counted", "regimes": "U"}), Workbench(plugins=[tiny, plugin]))
    assert log.count("counted") == 4  # two sizes, two draws


def test_a_failed_cell_is_shown_and_reported(tiny, write_learner):
    plugin = write_learner("bad", "if bank.filters == 8:\n    raise RuntimeError('no luck')\nreturn weight")
    found = size.run(SizeSettings(**{**SMALL, "features": "bad", "regimes": "U"}), Workbench(plugins=[tiny, plugin]))
    assert found.failed
    by_filters = {row["filters"]: row for row in found.tables[0].rows}
    assert by_filters[8]["status"] == "failed"
    assert by_filters[8]["accuracy %"] is None
    assert by_filters[2]["status"] == "ok"
    assert any("8 filters, bad" in note and "no luck" in note for note in found.notes)
    found.draw(Figure())


def test_published_numbers_stand_beside_psd_without_labels():
    line = {"metric": "accuracy", "unit": "%", "mean": 50.0, "std": 1.0, "n": 5, "status": "ok"}
    line |= {"label": "U", "regime": "U", "baseline": False}
    rows = [{**line, "learner": "psd", "filters": 16}, {**line, "learner": "psd", "regime": "U+", "filters": 16}]
    table = size._make_table([*rows, {**line, "learner": "psd", "filters": 128}], [], size.PUBLISHED["caltech101-30"])
    assert [row["published %"] for row in table.rows] == [50.0, None, None]


def test_columns_have_the_unit_of_the_metric():
    line = {"metric": "loss", "unit": "", "mean": 0.51236, "std": 0.1, "n": 5, "status": "ok", "label": "U"}
    table = size._make_table([{**line, "regime": "U", "learner": "psd", "filters": 16, "baseline": False}], [], {})
    assert table.rows[0]["loss"] == 0.51236
    assert not any("%" in column for column in table.rows[0])
    assert table.formats["loss"] == ".4g"


def test_mistakes_are_reported_before_anything_is_computed(workbench, log):
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        size.run(SizeSettings(**{**SMALL, "features": "randm"}), workbench)
    with pytest.raises(UnknownNameError, match="protocol"):
        size.run(SizeSettings(**{**SMALL, "protocol": "tinny"}), workbench)
    with pytest.raises(ArchitectureError, match="needs maps of at least"):
        size.run(SizeSettings(**SMALL, stages="4F9-Rabs"), workbench)
    with pytest.raises(UsageError, match="--filters is 0"):
        SizeSettings(filters=(4, 0))
    assert log.count("counted") == 0
