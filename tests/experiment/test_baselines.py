"""A protocol's own baselines, from the command line to tables and reproductions."""

import dataclasses

import pytest

import featbench
from featbench.comparison import Workbench
from featbench.errors import PluginError
from featbench.evaluation.protocol import Baseline
from featbench.evaluation.published import PublishedRow, PublishedTable
from featbench.experiment.request import Request
from featbench.report.table import order_rows
from featbench.reproduction.measure import plan_table, reproduce

REQUEST = Request("judged", features=["gabor"], regimes=["fixed"], device="cpu", draws=1)

TABLE = PublishedTable(
    name="numbers",
    summary="",
    protocol="judged",
    columns=("PA",),
    rows=(
        PublishedRow("G", "gabor", "fixed", "one", {"PA": 50.0}, classifier="nearest"),
        PublishedRow("R+", "random", "R+", "one", {"PA": 60.0}, classifier="nearest"),
    ),
    tolerance={"PA": 100.0},
)


@pytest.fixture
def bench(tiny):
    """Return a workbench whose protocol `judged` is `tiny` with other baselines, and a table under it."""

    def bench(*baselines, table=TABLE):
        class Plugin:
            @featbench.hookimpl
            def featbench_protocols(self):
                tiny_protocol = Workbench(plugins=[tiny]).registry.protocol("tiny")
                architectures = {"one:PA": "4F3-PA2/2"}
                changes = {"name": "judged", "baselines": baselines, "architectures": architectures}
                return [dataclasses.replace(tiny_protocol, **changes)]

            @featbench.hookimpl
            def featbench_tables(self):
                return [table]

        return Workbench(plugins=[tiny, Plugin()], strict=True)

    return bench


def shown(workbench, request):
    """Return learner and regime of each row of the table, from the first to the last."""
    rows = workbench.compare(request, track=False).rows
    assert set(rows["status"]) == {"ok"}
    ordered = order_rows(rows, workbench.list_baselines(request.protocol))
    return list(zip(ordered["learner"], ordered["regime"], strict=True))


def test_the_rows_of_other_baselines_stand_last_the_weakest_at_the_bottom(bench):
    workbench = bench(Baseline("chance", "guess"), Baseline("random", regime="R"), Baseline("raw-pixels"))
    assert workbench.list_baselines("judged") == [("chance", "fixed"), ("random", "R"), ("raw-pixels", "fixed")]
    assert shown(workbench, REQUEST) == [
        ("gabor", "fixed"),
        ("raw-pixels", "fixed"),
        ("random", "R"),
        ("chance", "fixed"),
    ]


def test_another_regime_of_a_baselines_learner_is_no_baseline(bench):
    workbench = bench(Baseline("random", regime="R"))
    request = dataclasses.replace(REQUEST, features=["random", "gabor"], regimes=None, refine="epochs=1")
    assert shown(workbench, request) == [("random", "R+"), ("gabor", "fixed"), ("random", "R")]


def test_a_protocol_without_baselines_has_a_table_without_them(bench):
    workbench = bench()
    assert workbench.list_baselines("judged") == []
    assert shown(workbench, REQUEST) == [("gabor", "fixed")]


def test_a_published_table_has_the_baselines_of_its_protocol(bench):
    request = dataclasses.replace(REQUEST, features=None, regimes=None, refine="epochs=1")
    for baselines, first in (((Baseline("random", regime="R"),), [("random", "")]), ((), [])):
        found = reproduce(bench(*baselines), "numbers", request, track=False)
        places = list(zip(found.rows["row"], found.rows["column"], strict=True))
        assert places == [*first, ("G", "PA"), ("R+", "PA")]
        assert set(found.rows["status"]) == {"ok"}


def test_a_row_that_measures_a_baseline_of_its_protocol_is_refused(bench):
    workbench = bench(Baseline("random", regime="R+"))
    with pytest.raises(PluginError, match=r"table numbers: row R\+ measures a baseline"):
        plan_table(workbench, TABLE, REQUEST)
    named = dataclasses.replace(TABLE.rows[0], name="random")
    workbench = bench(Baseline("random", regime="R+"), table=dataclasses.replace(TABLE, rows=(named,)))
    with pytest.raises(PluginError, match="a row is named random, as a baseline is"):
        plan_table(workbench, workbench.registry.table("numbers"), REQUEST)
