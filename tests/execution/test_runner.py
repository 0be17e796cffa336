import dataclasses
import json
import os

import numpy as np
import pytest
import torch

from featbench.comparison import Workbench
from featbench.errors import DeviceLostError, StoreError
from featbench.execution.listeners import Listener
from featbench.execution.runner import run_cells
from featbench.experiment.request import Request
from featbench.experiment.steps import Steps
from featbench.store.provenance import record_run
from featbench.store.store import Store

FAILURES = {
    "raises": ("raise RuntimeError('on purpose')", "RuntimeError: on purpose"),
    "exits": ("raise SystemExit(0)", "SystemExit"),
    "NaN weights": ("return weight * float('nan')", "weight holds values that are not finite"),
    "one infinite weight": ("weight[0, 0, 0, 0] = float('inf'); return weight", "weight holds values that are not"),
    "too few filters": ("return weight[1:]", r"weight has shape \[3, 1, 3, 3\], asked was \[4, 1, 3, 3\]"),
    "flat": ("return weight.flatten(1)", r"weight has shape \[4, 9\], asked was \[4, 1, 3, 3\]"),
    "integers": ("return weight.long()", "weight has type torch.int64, it must be floating point"),
    "nothing": ("return None", "gave NoneType where Filters or a weight is expected"),
    "text": ("return 'filters'", "gave str where Filters or a weight is expected"),
    "a bias too short": ("return featbench.Filters(weight, bias=weight.new_zeros(3))", r"bias has shape \[3\]"),
    "an infinite gain": (
        "return featbench.Filters(weight, gain=weight.new_full((4,), float('inf')))",
        "gain holds values that are not finite",
    ),
}
"""Ends of a learner's method that break a cell, and what its message holds."""

CLASSIFIER = """
import numpy as np
import featbench

class P(featbench.Predictor):
    def __init__(self, report):
        self.report = report
    def predict(self, features):
        return PREDICTIONS

class C(featbench.Classifier):
    name = "broken"
    def fail(text):
        raise ValueError(text)
    def fit(self, features, labels, validation, classes, seed):
        return FITTED

@featbench.hookimpl
def featbench_classifiers():
    return [C()]
"""

ZEROS = "np.zeros(len(features), dtype=int)"

CLASSIFIERS = {
    "too few predictions": ("np.zeros(3, dtype=int)", "P({})", r"gave predictions of shape \(3,\) for 24 images"),
    "scores of classes": ("np.zeros((len(features), 3))", "P({})", r"gave predictions of shape \(24, 3\) for 24"),
    "no predictions": ("None", "P({})", r"gave predictions of shape \(\) for 24 images"),
    "predictions of floats": ("np.full(len(features), 0.7)", "P({})", "predicted values of type float64"),
    "predictions of NaN": ("np.full(len(features), np.nan)", "P({})", "predicted values of type float64"),
    "predictions of names": ("np.array(['a'] * len(features))", "P({})", "predicted values of type <U1"),
    "a report of NaN": (ZEROS, "P({'loss': float('nan')})", "gave a report that is not JSON"),
    "a report of objects": (ZEROS, "P({'model': object()})", "gave a report that is not JSON"),
    "no predictor": (ZEROS, "None", "gave NoneType where a predictor with a method predict is expected"),
    "a message that is not UTF-8": (ZEROS, "C.fail('\\udcff')", "ValueError: .*udcff"),
}
"""What a classifier predicts, what fitting gives, and what the message of its cell holds."""


def test_a_failing_cell_does_not_disturb_the_others(compare_tiny, write_learner, log):
    broken, sound = write_learner("broken", "raise RuntimeError('on purpose')"), write_learner("sound")
    options = ("--features", "broken,sound", "--regimes", "U")
    ran = compare_tiny(*options, plugins=[broken, sound])
    assert ran.code == 1
    assert {row["learner"]: (row["status"], row["n"]) for row in ran.rows} == {
        "broken": ("failed", 0),
        "sound": ("ok", 2),
        "raw-pixels": ("ok", 2),
        "chance": ("ok", 2),
    }
    assert ran.row("broken")["mean"] is None
    assert ran.row("broken")["message"].startswith("RuntimeError: on purpose (broken.py, line ")
    assert "8 cells computed, 0 read from the store, 2 failed" in ran.err


@pytest.mark.parametrize("case", FAILURES)
def test_a_learner_that_breaks_its_contract_fails_its_cell(compare_tiny, write_learner, case):
    body, why = FAILURES[case]
    plugin = write_learner("broken", body)
    ran = compare_tiny("--features", "broken", "--regimes", "U", "--draws", "1", plugins=[plugin])
    assert ran.code == 1
    assert [row["status"] for row in ran.rows] == ["failed", "ok", "ok"]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(ran.row("broken")["message"])


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("x / 0", "the network of broken gives features"),
        ("x * float('nan')", "the network of broken gives features"),
        ("x.log() * 0", "the network of broken gives features"),
        # Only images, which are standardised, have a mean of zero: the random maps of the trial have not.
        ("1 / (x.mean((1, 2, 3), keepdim=True).abs() > 1e-5)", "the features of image 0 are"),
    ],
)
def test_features_that_are_not_finite_fail_their_cell(compare_tiny, write_plugin, value, where):
    plugin = write_plugin(
        "broken",
        f"""
        import torch
        import featbench

        class Network(torch.nn.Module):
            def forward(self, x):
                return {value}

        class Broken(featbench.NetworkLearner):
            name = "broken"
            family = "fixed"
            def network(self, shape, maps, seed):
                return Network()

        @featbench.hookimpl
        def featbench_learners():
            return [Broken]
        """,
    )
    ran = compare_tiny("--features", "broken", "--draws", "1", plugins=[plugin])
    assert ran.code == 1
    message = ran.row("broken", "fixed")["message"]
    assert where in message
    assert "not finite" in message
    assert ran.row("raw-pixels")["status"] == "ok"


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_a_classifier_that_breaks_its_contract_fails_its_cells(compare_tiny, write_plugin, case):
    predictions, fitted, why = CLASSIFIERS[case]
    plugin = write_plugin("broken", CLASSIFIER.replace("PREDICTIONS", predictions).replace("FITTED", fitted))
    options = ("--classifiers", "broken,nearest", "--regimes", "R", "--draws", "1")
    ran = compare_tiny(*options, plugins=[plugin])
    assert ran.code == 1
    statuses = {(row["learner"], row["classifier"]): row["status"] for row in ran.rows}
    assert statuses == {
        ("random", "broken"): "failed",
        ("random", "nearest"): "ok",
        ("raw-pixels", "broken"): "failed",
        ("raw-pixels", "nearest"): "ok",
        ("chance", "guess"): "ok",
    }
    for row in ran.rows:
        with pytest.raises(AssertionError, match=why if row["status"] == "failed" else "^$"):
            raise AssertionError(row["message"])


PROTOCOL = """
import featbench

def judge(predictions, labels, classes, *scores):
    return VALUE

@featbench.hookimpl
def featbench_metrics():
    return [featbench.Metric("odd", judge)]

@featbench.hookimpl
def featbench_protocols():
    return [featbench.Protocol(
        name="judged", summary="", dataset="tiny", architecture="4F3-Rabs-PA2/2",
        preprocessing=featbench.Preprocessing(), train_per_class=4, test="rest", features=("random",),
        regimes=("R",), classifiers=("nearest", "logistic", "knn"), draws=1, metric=METRIC,
    )]
"""


def test_a_classifier_without_scores_fails_its_cells_where_the_metric_needs_them(compare_tiny, write_plugin):
    plugin = write_plugin("judged", PROTOCOL.replace("METRIC", "'top-5-accuracy'").replace("VALUE", "1.0"))
    ran = compare_tiny("--protocol", "judged", plugins=[plugin])
    assert ran.code == 1
    assert {(row["learner"], row["classifier"]): row["status"] for row in ran.rows} == {
        ("chance", "guess"): "ok",
        **{(name, "nearest"): "failed" for name in ("random", "raw-pixels")},
        **{(name, classifier): "ok" for name in ("random", "raw-pixels") for classifier in ("logistic", "knn")},
    }
    for row in ran.rows:
        if row["status"] == "failed":
            said = "classifier nearest gives no class scores, which metric top-5-accuracy needs"
            assert row["message"].startswith(said)
        else:
            assert row["mean"] == 100  # there are three classes


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')", "1", "None", "True", "(predictions == labels).mean"])
def test_a_metric_that_gives_no_finite_float_fails_its_cells(compare_tiny, write_plugin, value):
    plugin = write_plugin("judged", PROTOCOL.replace("METRIC", "'odd'").replace("VALUE", value))
    ran = compare_tiny("--protocol", "judged", "--classifiers", "nearest", plugins=[plugin])
    assert ran.code == 1
    assert {row["status"] for row in ran.rows} == {"failed"}
    assert all("metric odd gave " in row["message"] for row in ran.rows)
    assert all("where a finite float is expected" in row["message"] for row in ran.rows)


def test_numbers_of_numpy_in_a_report_are_kept(compare_tiny, write_plugin, store):
    fitted = "P({'rounds': np.int64(7), 'loss': np.float32(0.5), 'good': np.bool_(True), 'tried': [1, 2]})"
    plugin = write_plugin("numbers", CLASSIFIER.replace("PREDICTIONS", ZEROS).replace("FITTED", fitted))
    ran = compare_tiny("--classifiers", "broken", "--regimes", "R", "--draws", "1", plugins=[plugin])
    assert ran.code == 0
    reports = [document["report"] for _, document in store.records("results") if document["report"]]
    assert reports == [{"rounds": 7, "loss": 0.5, "good": True, "tried": [1, 2]}] * 2


def test_a_failure_keeps_its_traceback_in_the_store(compare_tiny, write_learner, store):
    plugin = write_learner("broken", "raise RuntimeError('on purpose')")
    compare_tiny("--features", "broken", "--regimes", "U", "--draws", "1", plugins=[plugin])
    (failed,) = [document for _, document in store.records("results") if document["status"] == "failed"]
    assert failed["score"] is None
    assert "Traceback" in failed["traceback"]
    assert "raise RuntimeError('on purpose')" in failed["traceback"]
    assert str(plugin) in failed["traceback"]


def test_the_readable_table_shows_what_failed_and_why(compare_tiny, write_learner):
    plugin = write_learner("broken", "raise RuntimeError('on purpose')")
    options = ("--features", "broken,random", "--regimes", "U,R", "--draws", "1", "--format", "table")
    ran = compare_tiny(*options, plugins=[plugin])
    assert "failed: broken U nearest: RuntimeError: on purpose" in ran.out
    assert "Traceback" not in ran.out + ran.err


def test_a_failure_is_computed_again_only_when_asked(compare_tiny, write_learner, log):
    options = ("--features", "broken", "--regimes", "U")
    plugin = write_learner("broken", "raise RuntimeError('on purpose')")
    first = compare_tiny(*options, plugins=[plugin])
    again = compare_tiny(*options, plugins=[plugin])
    assert "nothing to compute" in again.err
    assert (again.code, again.rows) == (1, first.rows)
    assert log.count("broken") == 2
    retried = compare_tiny(*options, "--retry", plugins=[plugin])
    assert log.count("broken") == 4
    assert "2 cells computed, 4 read from the store, 2 failed" in retried.err
    assert retried.code == 1


def test_what_is_tried_again_may_work(compare_tiny, write_learner, tmp_path):
    body = f"""
        if not os.path.exists({str(tmp_path / "weather")!r}):
            raise RuntimeError("it rains")
        return weight
    """
    options = ("--features", "outdoors", "--regimes", "U")
    plugin = write_learner("outdoors", body)
    assert compare_tiny(*options, plugins=[plugin]).row("outdoors")["status"] == "failed"
    (tmp_path / "weather").touch()
    assert compare_tiny(*options, plugins=[plugin]).row("outdoors")["status"] == "failed"
    retried = compare_tiny(*options, "--retry", plugins=[plugin])
    assert (retried.code, retried.row("outdoors")["status"], retried.row("outdoors")["n"]) == (0, "ok", 2)
    kept = compare_tiny(*options, plugins=[plugin])
    assert (kept.code, kept.rows) == (0, retried.rows)


def test_a_row_with_one_failed_draw_has_no_mean(compare_tiny, write_learner, log):
    plugin = write_learner("sometimes", "assert lines() != 2, 'the second'\nreturn weight")
    plugin.write_text(
        plugin.read_text().replace("lines()", "open(os.environ['FEATBENCH_TEST_LOG']).read().count('some')")
    )
    ran = compare_tiny("--features", "sometimes", "--regimes", "U", "--draws", "3", plugins=[plugin])
    row = ran.row("sometimes")
    assert (row["status"], row["n"], row["draws"]) == ("failed", 2, 3)
    assert (row["mean"], row["std"], len(row["scores"])) == (None, None, 2)
    assert row["message"].startswith("AssertionError: the second (sometimes.py, line ")


def test_an_interrupted_comparison_keeps_what_is_finished(compare_tiny, write_learner, log):
    body = """
        if open(os.environ['FEATBENCH_TEST_LOG']).read().count('slow') == 2:
            raise KeyboardInterrupt
        return weight
    """
    options = ("--features", "slow", "--regimes", "U", "--draws", "3")
    plugin = write_learner("slow", body)
    ran = compare_tiny(*options, plugins=[plugin])
    assert (ran.code, ran.out) == (130, "")
    assert "interrupted; finished results are kept" in ran.err
    again = compare_tiny(*options, plugins=[plugin])
    assert (again.code, again.row("slow")["n"]) == (0, 3)
    assert log.count("slow") == 4


# The runner itself.


class Diary(Listener):
    """Writes down what it receives, and looks into the store when a cell is finished."""

    def __init__(self, home):
        self.home, self.entries, self.stored = home, [], []

    def started(self, index, total, cell):
        self.entries.append(("started", index, total))

    def finished(self, index, total, cell, result, *, computed):
        self.entries.append(("finished", index, total, result.status, computed))
        if result.status != "skipped":
            self.stored.append(Store(self.home).read_result(result.key) is not None)


@pytest.fixture
def bench(tiny):
    return Workbench(plugins=[tiny])


@pytest.fixture
def cells(bench):
    return bench.plan(Request("tiny", features=["random"], regimes=["R", "U"], draws=1, device="cpu"))


def run_them(bench, cells, home):
    diary = Diary(home)
    return run_with(bench, cells, diary, provenance=record_run(bench.store)), diary


def run_with(bench, cells, listener, provenance=""):
    options = {"provenance": provenance, "retry": False, "listener": listener}
    return run_cells(cells, bench.steps, bench.store, bench.keys, **options)


def test_a_listener_receives_results_that_are_safe_in_the_store(bench, cells, home):
    runs, diary = run_them(bench, cells, home)
    assert [str(run.cell) for run in runs] == [str(cell) for cell in cells]
    assert diary.entries == [
        ("started", 0, 4),
        ("finished", 0, 4, "ok", True),
        ("started", 1, 4),
        ("finished", 1, 4, "ok", True),
        ("started", 2, 4),
        ("finished", 2, 4, "ok", True),
        ("finished", 3, 4, "skipped", False),
    ]
    assert diary.stored == [True] * 3


def test_what_the_store_holds_is_not_started(bench, cells, home, tiny):
    first, _ = run_them(bench, cells, home)
    again, diary = run_them(Workbench(plugins=[tiny]), cells, home)
    assert [entry[0] for entry in diary.entries] == ["finished"] * 4
    assert [run.computed for run in again] == [False] * 4
    assert [run.result.score for run in again] == [run.result.score for run in first]
    assert [run.result.seconds for run in again] == [run.result.seconds for run in first]


def test_a_skipped_cell_is_not_kept_in_the_store(bench, cells, home):
    runs, _ = run_them(bench, cells, home)
    assert runs[3].result.status == "skipped"
    assert runs[3].result.message == cells[3].skip != ""
    assert len(list((home / "results").iterdir())) == 3


def test_a_result_names_its_cell_its_provenance_and_its_predictions(bench, cells, home):
    runs, _ = run_them(bench, cells, home)
    run = runs[2]
    assert run.result.key == bench.keys.for_cell(run.cell).result.hash
    document = bench.store.read_record("results", run.result.key)
    cell = document["cell"]
    assert (cell["learner"], cell["regime"], cell["classifier"], cell["draw"]) == ("random", "R", "nearest", 0)
    assert bench.store.read_record("provenance", document["provenance"]) is not None
    predictions, _ = bench.store.read_array("predictions", run.result.key)
    images, _ = bench.steps.load(run.cell.dataset, run.cell.preprocessing)
    truth = images.labels[bench.steps.split(run.cell, images).test]
    accuracy = pytest.approx(100 * np.mean(predictions == truth))
    assert document["score"] == {"metric": "accuracy", "value": accuracy, "unit": "%"}
    assert json.dumps(document["report"]) == '{"classes": 3}'


def test_a_store_that_breaks_stops_the_comparison(bench, cells, home, monkeypatch):
    def refuse(*_names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match="No space left on device"):
        run_with(bench, cells, Diary(home))


def test_a_store_that_breaks_within_a_cell_does_not_fail_the_cell(bench, cells, home, monkeypatch):
    # A cell that is kept as failed would not be computed again when there is room.
    replace = os.replace

    def refuse(source, target):
        if "artifacts" in str(target):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match="No space left on device"):
        run_with(bench, cells, Diary(home))
    assert not (home / "results").exists()


LOST = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


def test_a_device_that_fails_stops_the_comparison_and_loses_nothing(bench, cells, home, monkeypatch):
    whole, _ = run_them(bench, cells[:2], home)
    extract_part = Steps.extract_part

    def fail(steps, cell, *rest):
        if cell == cells[2]:
            raise RuntimeError(LOST)
        return extract_part(steps, cell, *rest)

    monkeypatch.setattr(Steps, "extract_part", fail)
    with pytest.raises(DeviceLostError, match=r"failed while .* was computed: CUDA error: an illegal memory"):
        run_them(bench, cells, home)
    kept = [bench.store.read_result(bench.keys.for_cell(cell).result.hash) for cell in cells]
    assert [result is not None for result in kept] == [True, True, False, False]
    assert [run.result.score for run in whole] == [result.score for result in kept[:2]]


def test_a_lack_of_memory_fails_its_cell_alone_and_says_what_to_do(bench, cells, home, monkeypatch):
    extract_part = Steps.extract_part

    def fail(steps, cell, *rest):
        if cell == cells[2]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore of it")
        return extract_part(steps, cell, *rest)

    monkeypatch.setattr(Steps, "extract_part", fail)
    runs, _ = run_them(bench, cells, home)
    assert [run.result.status for run in runs].count("failed") == 1
    message = runs[2].result.message
    assert message.startswith("cpu has no memory left: CUDA out of memory. Tried to allocate 9 GiB.; free some")
    assert (
        "; free some, or compare fewer filters or smaller images, and run again with --retry; traceback in " in message
    )
    assert "OutOfMemoryError" in runs[2].result.traceback


def test_the_order_of_cells_does_not_matter(bench, cells, home, tiny, tmp_path):
    forwards, _ = run_them(bench, cells, home)
    other = Workbench(plugins=[tiny], home=tmp_path / "other")
    backwards, _ = run_them(other, cells[::-1], tmp_path / "other")
    plain = [dataclasses.replace(run.result, seconds=None, predictions=None, provenance="") for run in forwards]
    assert plain == [
        dataclasses.replace(run.result, seconds=None, predictions=None, provenance="") for run in backwards[::-1]
    ]
