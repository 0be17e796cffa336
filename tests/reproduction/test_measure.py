import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import featbench
from featbench.comparison import Workbench
from featbench.errors import PluginError, UnknownNameError, UsageError
from featbench.evaluation.published import Claim, Contrast, PublishedRow, PublishedTable
from featbench.experiment.request import Request
from featbench.hookspecs import hookimpl
from featbench.registry import Registry
from featbench.reproduction.claims import combine_verdicts, judge_claims
from featbench.reproduction.measure import plan_table, reproduce

PROTOCOL = featbench.Protocol(
    name="small",
    summary="6x6 images",
    dataset="tiny",
    architecture="4F3-Rabs-PA2/2",
    architectures={
        **{"one:Rabs": "4F3-Rabs-PA2/2", "one:PM": "4F3-PM2", "one:PA": "4F3-PA2/2"},
        "two:PA": "4F3-PA1/1 > 4F3:2-PA2/2",
    },
    preprocessing=featbench.Preprocessing(),
    train_per_class=4,
    test="rest",
    features=("random",),
    regimes=("R",),
    classifiers=("nearest",),
    draws=3,
)

TABLE = PublishedTable(
    name="small",
    summary="a small table",
    protocol="small",
    columns=("Rabs", "PM", "PA"),
    rows=(
        PublishedRow("R", "random", "R", "one", {"Rabs": 40.0, "PM": 60.5, "PA": 80.0}, {"PM": 1.75}, "nearest"),
        PublishedRow("G", "gabor", "fixed", "one", {"PA": 77.5}, classifier="nearest"),
        PublishedRow("RR", "random", "R", "two", {"PA": 70.0}, classifier="nearest"),
    ),
    tolerance={"Rabs": 5.0, "PM": 10.0, "PA": 15.0},
)

REQUEST = Request(device="cpu")


def plugin(table, protocol=PROTOCOL):
    """Return a plugin with a table and its protocol."""

    class Plugin:
        @hookimpl
        def featbench_tables(self):
            return [table]

        @hookimpl
        def featbench_protocols(self):
            return [protocol]

    return Plugin()


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    """Leave out what only a power cut would show."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture
def bench(tiny):
    """Return a workbench that knows a table."""
    return lambda table=TABLE, protocol=PROTOCOL, **options: Workbench(
        plugins=[tiny, plugin(table, protocol)], strict=True, **options
    )


def measure(workbench, request=REQUEST, **options):
    """Measure the table `small`."""
    return reproduce(workbench, "small", request, track=False, **options)


def at(reproduction, row, column):
    """Return the row of one cell of a table."""
    rows = reproduction.rows
    (found,) = rows[(rows["row"] == row) & (rows["column"] == column)].to_dict("records")
    return found


# Which cells are run.


def test_the_plan_holds_every_published_number_once_for_each_draw_after_the_baselines(bench):
    workbench = bench()
    plan = plan_table(workbench, workbench.registry.table("small"), REQUEST)
    assert list(dict.fromkeys(plan.values())) == [
        ("chance", ""),
        ("raw-pixels", ""),
        *(("R", "Rabs"), ("R", "PM"), ("R", "PA"), ("G", "PA"), ("RR", "PA")),
    ]
    for place in set(plan.values()):
        assert [cell.draw for cell, found in plan.items() if found == place] == [0, 1, 2]
    found = {place: (cell.learner.name, cell.regime.name, cell.architecture) for cell, place in plan.items()}
    assert found["R", "PM"] == ("random", "R", "4F3-PM2")
    assert found["G", "PA"] == ("gabor", "fixed", "4F3-PA2/2")
    assert found["RR", "PA"] == ("random", "R", "4F3-PA1/1 > 4F3:2-PA2/2")
    assert {cell.classifier for cell in plan} == {"guess", "nearest"}


@pytest.mark.parametrize(
    ("rows", "columns", "places"),
    [
        (["G"], None, {("G", "PA")}),
        (None, ["PM"], {("R", "PM")}),
        (["G", "R", "G"], ["PA"], {("R", "PA"), ("G", "PA")}),
        (["R", "G"], ["Rabs", "PA"], {("R", "Rabs"), ("R", "PA"), ("G", "PA")}),
    ],
)
def test_rows_and_columns_choose_among_the_cells(bench, rows, columns, places):
    workbench = bench()
    plan = plan_table(workbench, workbench.registry.table("small"), REQUEST, rows, columns)
    assert set(plan.values()) == {("chance", ""), ("raw-pixels", ""), *places}


def test_names_that_the_table_does_not_have_are_refused(bench):
    workbench = bench()
    with pytest.raises(UnknownNameError, match=r"unknown row 'r': did you mean 'R'\? known: G, R, RR"):
        plan_table(workbench, TABLE, REQUEST, ["G", "r"])
    with pytest.raises(UnknownNameError, match=r"unknown column 'rabs': did you mean 'Rabs'\?"):
        plan_table(workbench, TABLE, REQUEST, None, ["rabs"])
    with pytest.raises(UsageError, match="small has no numbers for rows G in columns Rabs, PM"):
        plan_table(workbench, TABLE, REQUEST, ["G"], ["Rabs", "PM"])
    with pytest.raises(UnknownNameError, match=r"unknown table 'smal': did you mean 'small'\?"):
        reproduce(workbench, "smal", REQUEST, track=False)


def test_what_is_asked_for_counts_in_every_cell(bench, tmp_path):
    (tmp_path / "a.png").touch()
    workbench = bench()
    asked = Request(device="cpu", draws=2, seed=7, test_per_class=3, unlabelled=str(tmp_path))
    plan = plan_table(workbench, TABLE, asked)
    assert {cell.draw for cell in plan} == {0, 1}
    assert {(cell.seed, cell.test_per_class, cell.device) for cell in plan} == {(7, 3, "cpu")}


# What is measured.


def test_rows_hold_what_was_published_and_how_far_from_it_was_measured(bench):
    found = measure(bench())
    assert list(zip(found.rows["row"], found.rows["column"], strict=True)) == [
        *(("chance", ""), ("raw-pixels", ""), ("R", "Rabs"), ("R", "PM"), ("R", "PA"), ("G", "PA"), ("RR", "PA"))
    ]
    for row in TABLE.rows:
        for column, value in row.values.items():
            line = at(found, row.name, column)
            assert line["published"] == value
            assert (line["n"], len(line["scores"]), line["status"]) == (3, 3, "ok")
            assert line["mean"] == pytest.approx(np.mean(line["scores"]), rel=1e-12)
            assert line["std"] == pytest.approx(np.std(line["scores"], ddof=1), rel=1e-9, abs=1e-12)
            assert line["difference"] == pytest.approx(np.mean(line["scores"]) - value, rel=1e-12)
            assert line["tolerance"] == TABLE.tolerance[column]
    deviations = found.rows.set_index(["row", "column"])["published_std"].dropna()
    assert deviations.to_dict() == {("R", "PM"): 1.75}
    for baseline in ("chance", "raw-pixels"):
        line = at(found, baseline, "")
        assert line["verdict"] == ""
        assert all(pd.isna(line[name]) for name in ("published", "published_std", "difference", "tolerance"))
        assert line["n"] == 3
    assert found.claims.empty


def test_measured_numbers_are_those_of_a_comparison(bench):
    workbench = bench()
    found = measure(workbench)
    compared = workbench.compare(
        Request(
            protocol="small",
            features=["random"],
            regimes=["R"],
            classifiers=["nearest"],
            stages="4F3-PM2",
            device="cpu",
        ),
        track=False,
    )
    assert compared.computed == 0
    for learner, place in (("random", ("R", "PM")), ("chance", ("chance", "")), ("raw-pixels", ("raw-pixels", ""))):
        (expected,) = compared.rows[compared.rows["learner"] == learner].to_dict("records")
        line = at(found, *place)
        assert {name: line[name] for name in ("mean", "std", "scores", "label", "fit_seconds")} == {
            name: expected[name] for name in ("mean", "std", "scores", "label", "fit_seconds")
        }


WRONG = {
    "column PA has no tolerance": {"tolerance": {"Rabs": 1.0, "PM": 1.0}},
    "numbers for PA, which is not a column": {"columns": ("Rabs", "PM")},
    "two rows are named R": {"rows": (*TABLE.rows, TABLE.rows[0])},
    "a row is named chance, as a baseline is": {"rows": (replace(TABLE.rows[0], name="chance"),)},
    "row R measures a baseline": {"rows": (replace(TABLE.rows[0], learner="raw-pixels"),)},
    "a claim names Q PA, which has no number": {"claims": (Claim("x", (Contrast("y", ((1, "Q", "PA"),)),)),)},
    "S PA runs what R PA does": {"rows": (TABLE.rows[0], replace(TABLE.rows[0], name="S", values={"PA": 1.0}))},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_table_that_is_declared_wrongly_is_refused_before_anything_is_computed(bench, message):
    workbench = bench(replace(TABLE, **WRONG[message]))
    with pytest.raises(PluginError, match=message):
        measure(workbench)
    assert not list(workbench.store.records("results"))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_at_the_tolerance_is_within_it_and_one_beyond_is_not(bench, sign):
    asked = replace(REQUEST, draws=2)
    mean = at(measure(bench(), asked, rows=["R"], columns=["PA"]), "R", "PA")["mean"]
    published = mean - sign * 2.5
    exact = abs(mean - published)

    def verdict(tolerance):
        row = PublishedRow("R", "random", "R", "one", {"PA": published}, classifier="nearest")
        table = replace(TABLE, rows=(row,), tolerance={"PA": tolerance})
        found = measure(bench(table), asked)
        assert found.comparison.computed == 0
        return at(found, "R", "PA")["verdict"]

    assert verdict(exact) == "within"
    assert verdict(math.nextafter(exact, math.inf)) == "within"
    assert verdict(math.nextafter(exact, 0)) == ("above" if sign > 0 else "below")
    assert verdict(0.0) == ("above" if sign > 0 else "below")


def test_a_number_that_is_the_published_one_is_within_no_tolerance(bench):
    mean = at(measure(bench()), "G", "PA")["mean"]
    row = PublishedRow("G", "gabor", "fixed", "one", {"PA": mean}, classifier="nearest")
    found = measure(bench(replace(TABLE, rows=(row,), tolerance={"PA": 0.0})))
    assert (at(found, "G", "PA")["difference"], at(found, "G", "PA")["verdict"]) == (0.0, "within")


def test_one_draw_has_no_deviation_and_confirms_nothing(bench):
    table = replace(TABLE, claims=(Claim("It is so.", (Contrast("R", ((1, "R", "PA"), (-1, "R", "PM"))),)),))
    found = measure(bench(table), replace(REQUEST, draws=1))
    line = at(found, "R", "PA")
    assert (line["n"], line["mean"]) == (1, line["scores"][0])
    assert pd.isna(line["std"])
    assert line["verdict"] in ("within", "above", "below")
    (claim,) = found.claims.to_dict("records")
    assert claim["mean"] == pytest.approx(line["mean"] - at(found, "R", "PM")["mean"])
    assert (claim["n"], claim["verdict"]) == (1, "not tested: needs at least 2 draws")
    assert pd.isna(claim["std"])
    assert pd.isna(claim["p"])


def test_a_row_that_makes_no_sense_is_skipped_and_no_claim_counts_it(bench):
    rows = (*TABLE.rows, PublishedRow("U", "random", "U", "one", {"PA": 50.0}, classifier="nearest"))
    claim = Claim("It is so.", (Contrast("U less R", ((1, "U", "PA"), (-1, "R", "PA"))),))
    found = measure(bench(replace(TABLE, rows=rows, claims=(claim,))), columns=["PA"])
    line = at(found, "U", "PA")
    assert (line["status"], line["verdict"], line["n"], line["published"]) == ("skipped", "skipped", 0, 50.0)
    assert "nothing to learn" in line["message"]
    assert pd.isna(line["mean"])
    assert pd.isna(line["difference"])
    assert list(found.claims["verdict"]) == ["not tested: U PA not measured"]


# Claims on what was measured.

CONTRASTS = (
    Contrast("PA less Rabs", ((1, "R", "PA"), (-1, "R", "Rabs"))),
    Contrast("PA less Rabs, above 10", ((1, "R", "PA"), (-1, "R", "Rabs")), above=10.0),
    Contrast("twice", ((2, "R", "PA"), (-1, "R", "Rabs"), (-1, "R", "PM"))),
    Contrast("Rabs less PA", ((1, "R", "Rabs"), (-1, "R", "PA"))),
)


def p_values(found, contrasts, ratio):
    """Work out the adjusted p-values of a claim from the scores of its cells."""
    raw = []
    for contrast in contrasts:
        draws = sum(weight * np.array(at(found, row, column)["scores"]) for weight, row, column in contrast.terms)
        draws = draws - contrast.above
        n = len(draws)
        raw.append(stats.t.sf(draws.mean() / math.sqrt((1 / n + ratio) * draws.var(ddof=1)), n - 1))
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty(len(raw))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.array(raw)[order] * np.arange(len(raw), 0, -1)))
    return adjusted


@pytest.mark.parametrize(
    ("request_", "ratio"),
    [
        (REQUEST, 24 / 12),  # three classes of 12 images: 4 are trained on, 8 tested on
        (replace(REQUEST, test_per_class=2), 6 / 12),
        (replace(REQUEST, test_per_class="all", draws=4), 24 / 12),
        (replace(REQUEST, test_per_class=100, seed=3), 24 / 12),
    ],
)
def test_the_p_values_follow_from_the_scores(bench, request_, ratio):
    found = measure(bench(replace(TABLE, claims=(Claim("It is so.", CONTRASTS),))), request_)
    assert list(found.claims["p"]) == pytest.approx(p_values(found, CONTRASTS, ratio), rel=1e-9)
    assert list(found.claims["verdict"]) == ["confirmed" if p < 0.05 else "not confirmed" for p in found.claims["p"]]
    assert list(found.claims["published"]) == [40.0, 40.0, 59.5, -40.0]
    for line, contrast in zip(found.claims.to_dict("records"), CONTRASTS, strict=True):
        draws = sum(weight * np.array(at(found, row, column)["scores"]) for weight, row, column in contrast.terms)
        assert (line["claim"], line["contrast"]) == ("It is so.", contrast.text)
        assert (line["mean"], line["std"]) == pytest.approx((draws.mean(), draws.std(ddof=1)))


def test_holm_counts_the_contrasts_of_a_claim_only(bench):
    apart = tuple(Claim(contrast.text, (contrast,)) for contrast in CONTRASTS)
    found = measure(bench(replace(TABLE, claims=apart)))
    alone = [p_values(found, [contrast], 2.0)[0] for contrast in CONTRASTS]
    assert list(found.claims["p"]) == pytest.approx(alone, rel=1e-9)


HALVES = """
    import numpy as np
    import featbench

    class Halves(featbench.Dataset):
        name = "halves"
        def fingerprint(self, data_dir):
            return "1"
        def load(self, data_dir):
            labels = np.arange(40) % 2
            pixels = np.random.default_rng(0).normal(size=(40, 6, 6))
            pixels[labels == 0, :3] += 1
            return featbench.Images(pixels, labels, ("up", "down"), test=np.arange(40) >= 24)

    @featbench.hookimpl
    def featbench_datasets():
        return [Halves()]
"""


@pytest.mark.parametrize(
    ("changes", "asked", "ratio"),
    [
        ({"test": "fixed"}, {}, 16 / 10),  # 8 test images of each of two classes, 5 to train on
        ({"test": "fixed"}, {"test_per_class": 3}, 6 / 10),
        ({"test": "rest"}, {}, 30 / 10),  # all that are not trained on, whatever the data set's own split
        ({"test": "rest", "test_per_class": 4}, {}, 8 / 10),
    ],
)
def test_the_test_counts_the_images_that_are_tested_and_trained_on(tiny, write_plugin, changes, asked, ratio):
    protocol = replace(PROTOCOL, dataset="halves", train_per_class=5, **changes)
    table = replace(TABLE, claims=(Claim("It is so.", CONTRASTS),))
    workbench = Workbench(plugins=[tiny, write_plugin("halves", HALVES), plugin(table, protocol)], strict=True)
    found = measure(workbench, rows=["R"])
    assert list(found.claims["p"]) == pytest.approx(p_values(found, CONTRASTS, ratio), rel=1e-9)


def test_all_images_make_one_draw_that_confirms_nothing(tiny, write_plugin):
    protocol = replace(PROTOCOL, dataset="halves", train_per_class=None, test="fixed")
    table = replace(TABLE, claims=(Claim("It is so.", CONTRASTS),))
    workbench = Workbench(plugins=[tiny, write_plugin("halves", HALVES), plugin(table, protocol)], strict=True)
    found = measure(workbench, rows=["R"])
    assert set(found.claims["verdict"]) == {"not tested: needs at least 2 draws"}


# Claims alone.


def measured(**scores):
    """Return rows as they are measured, of columns x, y, ... of the row A."""
    return pd.DataFrame(
        [
            {"row": "A", "column": column, "status": "ok" if draws else "failed", "scores": draws}
            for column, draws in scores.items()
        ]
    )


def judge(contrasts, rows, ratio=0.0, metric="accuracy"):
    """Judge one claim of a table with the row A."""
    row = PublishedRow("A", "random", "R", "one", {"x": 3.0, "y": 1.0, "z": 0.5})
    table = replace(TABLE, rows=(row,), columns=("x", "y", "z"))
    claim = Claim("It is so.", tuple(contrasts))
    return judge_claims([claim], table, rows, ratio, Registry().metric(metric)).to_dict("records")


LARGER = Contrast("x less y", ((1, "A", "x"), (-1, "A", "y")))


def test_draws_are_compared_with_the_same_draws():
    rows = measured(x=[10.0, 50.0, 90.0], y=[9.0, 48.0, 89.0])
    (line,) = judge([LARGER], rows)
    assert (line["mean"], line["n"], line["published"]) == (pytest.approx(4 / 3), 3, 2.0)
    assert line["p"] == pytest.approx(stats.ttest_rel([10, 50, 90], [9, 48, 89], alternative="greater").pvalue)
    assert line["verdict"] == "confirmed"


def test_a_contrast_must_be_above_what_it_says():
    rows = measured(x=[10.0, 50.0, 90.0], y=[12.0, 51.0, 93.0])
    less, nearly = judge([LARGER, replace(LARGER, above=-10.0)], rows)
    assert (less["verdict"], nearly["verdict"]) == ("not confirmed", "confirmed")
    assert less["mean"] == nearly["mean"] == -2.0  # shown as measured, not less what it is to be above
    expected = stats.ttest_1samp([8, 9, 7], 0, alternative="greater").pvalue
    assert nearly["p"] == pytest.approx(2 * expected)


def test_where_smaller_is_better_a_sum_is_better_below():
    """The errors of the rows above are 100 less their accuracies: each claim must be judged alike."""
    right = measured(x=[10.0, 50.0, 90.0], y=[9.0, 48.0, 89.0])
    wrong = measured(x=[90.0, 50.0, 10.0], y=[91.0, 52.0, 11.0])
    for contrast in (LARGER, replace(LARGER, above=1.0), replace(LARGER, above=-1.0)):
        (accuracy,), (error,) = judge([contrast], right), judge([contrast], wrong, metric="error")
        assert error["mean"] == -accuracy["mean"] == pytest.approx(-4 / 3)  # shown as it is
        assert (error["p"], error["std"]) == (pytest.approx(accuracy["p"]), pytest.approx(accuracy["std"]))
        assert error["verdict"] == accuracy["verdict"]
    assert judge([LARGER], wrong)[0]["verdict"] == "not confirmed"


def test_small_scores_are_told_from_rounding_errors():
    rows = measured(x=[3e-10, 5e-10, 4e-10], y=[1e-10, 3e-10, 2e-10])
    assert judge([LARGER], rows)[0]["verdict"] == "confirmed"
    assert judge([LARGER], measured(x=[0.0, 0.0], y=[0.0, 0.0]))[0]["verdict"] == "not confirmed"


def test_confirmed_is_below_the_level_and_not_at_it():
    """With one degree of freedom p is 1/2 - atan(t) / π: 0.05 is t = tan(0.45 π)."""
    t = math.tan(0.45 * math.pi)  # the mean over half the distance of two draws
    for factor, verdict in ((1.001, "confirmed"), (0.999, "not confirmed")):
        rows = measured(x=[t * factor - 1, t * factor + 1], y=[0.0, 0.0])
        (line,) = judge([LARGER], rows)
        assert line["p"] == pytest.approx(0.05, rel=2e-3)
        assert line["verdict"] == verdict


def test_contrasts_that_cannot_be_tested_say_why_and_do_not_count_for_holm():
    rows = measured(x=[10.0, 50.0, 90.0], y=[9.0, 48.0, 89.0], z=[])
    gone = Contrast("x less z", ((1, "A", "x"), (-1, "A", "z")))
    tested, missing = judge([LARGER, gone], rows)
    (alone,) = judge([LARGER], rows)
    assert tested == alone
    assert missing["verdict"] == "not tested: A z not measured"
    assert missing["published"] == 2.5
    assert missing["n"] == 0
    assert all(pd.isna(missing[name]) for name in ("mean", "std", "p"))


def test_differences_without_spread_are_certain():
    rows = measured(x=[1.5, 2.5], y=[1.0, 2.0])
    assert [line["verdict"] for line in judge([LARGER], rows)] == ["confirmed"]
    same = measured(x=[1.0, 2.0], y=[1.0, 2.0])
    assert [line["verdict"] for line in judge([LARGER], same)] == ["not confirmed"]


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        (["confirmed"], "confirmed"),
        (["confirmed", "confirmed"], "confirmed"),
        (["confirmed", "not confirmed"], "not confirmed"),
        (["not tested: A x not measured"], "not tested"),
        (["not tested: A x not measured", "confirmed"], "confirmed as far as tested (1 of 2)"),
        (["confirmed", "confirmed", "not tested: needs at least 2 draws"], "confirmed as far as tested (2 of 3)"),
        (["not tested: A x not measured", "not confirmed", "confirmed"], "not confirmed"),
    ],
)
def test_a_claim_holds_if_all_its_contrasts_do(verdicts, verdict):
    assert combine_verdicts(verdicts) == verdict
