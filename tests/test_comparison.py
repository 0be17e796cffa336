import importlib.util
import itertools
import json
import warnings

import numpy as np
import pandas as pd
import pytest

import featbench
from featbench.comparison import Workbench, compare
from featbench.errors import UnknownNameError, UsageError
from featbench.experiment.request import Request

COLUMNS = [
    *("dataset", "protocol", "train_per_class", "test_per_class", "architecture", "learner", "regime", "label"),
    *("classifier", "metric", "unlabelled", "device", "precision", "refinement", "seed", "channels"),
    *("mean", "std", "unit", "n", "draws", "status"),
    *("fit_seconds", "extract_seconds", "scores", "images_left_out", "message"),
]


@pytest.fixture
def compare_here(tiny):
    """Call `featbench.compare` on the tiny protocol, without MLflow."""

    def compare_here(*, plugins=(), **options):
        return compare("tiny", plugins=[tiny, *plugins], track=False, device="cpu", **options)

    return compare_here


def scores(rows):
    return {(row["learner"], row["regime"]): row["scores"] for row in rows.to_dict("records")}


def test_compare_gives_a_row_for_each_learner_regime_and_classifier(compare_here):
    rows = compare_here()
    assert isinstance(rows, pd.DataFrame)
    assert rows.columns.tolist() == COLUMNS
    assert rows[["learner", "regime", "label", "classifier"]].to_numpy().tolist() == [
        ["chance", "fixed", "–", "guess"],
        ["raw-pixels", "fixed", "–", "nearest"],
        ["random", "R", "R", "nearest"],
        ["random", "R+", "R+", "nearest"],
    ]
    assert rows["n"].tolist() == rows["draws"].tolist() == [2] * 4
    assert set(rows["status"]) == {"ok"}
    for row in rows.to_dict("records"):
        assert row["mean"] == pytest.approx(np.mean(row["scores"]), rel=1e-12)
        assert row["std"] == pytest.approx(np.std(row["scores"], ddof=1), rel=1e-9, abs=1e-12)
        assert 0 <= row["mean"] <= 100


def test_the_tiny_data_can_be_told_apart(compare_here):
    # Otherwise the scores that other tests compare could agree by being no better than a guess.
    found = scores(compare_here(draws=4))
    assert np.mean(found["raw-pixels", "fixed"]) > 60
    assert np.mean(found["chance", "fixed"]) < 50
    assert len(set(found["random", "R"])) > 1


def test_two_stages_are_labelled_twice(compare_here):
    rows = compare_here(stages="4F3-Rabs > 2F2-Rabs", draws=1)
    assert rows["label"].tolist() == ["–", "–", "RR", "R+R+"]


def test_a_second_run_computes_nothing_and_does_not_load_the_data(compare_here, log):
    first = compare_here()
    assert log.count("load") == 1
    second = compare_here()
    assert log.count("load") == 1
    pd.testing.assert_frame_equal(first, second)


def test_the_seed_decides_everything(compare_here, tmp_path):
    one = compare_here(home=tmp_path / "one")
    same = compare_here(home=tmp_path / "same")
    other = compare_here(home=tmp_path / "other", seed=1)
    assert scores(one) == scores(same)
    assert scores(one) != scores(other)


def test_a_larger_comparison_reuses_the_smaller(compare_here, tiny, write_learner, log):
    learner = write_learner("counted")
    small = compare_here(plugins=[learner], features=["counted"], regimes=["U"], draws=2)
    large = compare_here(plugins=[learner], features=["counted", "random"], regimes=["U", "R"], draws=3)
    assert log.count("counted") == 3
    assert scores(large)["counted", "U"][:2] == scores(small)["counted", "U"]


def test_draws_share_their_splits_across_learners(tiny, write_learner):
    bench = Workbench(plugins=[tiny, write_learner("counted")])
    cells = bench.plan(Request("tiny", features=["random", "counted"], draws=3, device="cpu"))
    splits = {}
    for cell in cells:
        images, _ = bench.steps.load(cell.dataset, cell.preprocessing)
        split = bench.steps.split(cell, images)
        splits.setdefault(cell.draw, []).append([part.tolist() for part in (split.train, split.validation, split.test)])
    assert set(splits) == {0, 1, 2}
    assert all(len(same) == 6 and same.count(same[0]) == 6 for same in splits.values())
    assert all(splits[a][0] != splits[b][0] for a, b in itertools.combinations(splits, 2))


def test_classifiers_are_given_the_same_images_whatever_the_features(compare_here, write_plugin, log):
    spy = write_plugin(
        "spy",
        """
        import hashlib, os
        import numpy as np
        import featbench

        class P(featbench.Predictor):
            report = {}
            def predict(self, features):
                return np.zeros(len(features), dtype=int)

        class Spy(featbench.Classifier):
            name = "spy"
            def fit(self, features, labels, validation, classes, seed):
                seen = f"{hashlib.sha256(labels.tobytes() + validation.tobytes()).hexdigest()}/{seed}"
                with open(os.environ["FEATBENCH_TEST_LOG"], "a") as file:
                    file.write(f"{seen}\\n")
                assert len(features) == len(labels) == len(validation) == 12 and classes == 3
                assert sorted(labels[validation]) == [0, 1, 2], "one of four validates in each class"
                return P()

        @featbench.hookimpl
        def featbench_classifiers():
            return [Spy()]
        """,
    )
    rows = compare_here(plugins=[spy], classifiers=["spy"], regimes=["R"], draws=2)
    assert set(rows["status"]) == {"ok"}
    seen = [line for line in log.lines() if line != "load"]
    assert seen[:2] == seen[2:]
    images, seeds = zip(*(line.split("/") for line in seen[:2]), strict=True)
    assert len(set(images)) == len(set(seeds)) == 2


def test_the_comparison_is_kept_with_its_request_and_its_cells(compare_here, store):
    compare_here(regimes=["R"], draws=1)
    ((_, record),) = store.records("comparisons")
    assert (record["request"]["protocol"], record["request"]["regimes"]) == ("tiny", ["R"])
    assert {key for key, _ in store.records("results")} == set(record["cells"])


def test_a_module_is_a_plugin(tiny):
    spec = importlib.util.spec_from_file_location("tiny_module", tiny)
    module = importlib.util.module_from_spec(spec)
    # A class finds its source by its module's name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "tiny_module", module)
        spec.loader.exec_module(module)
        rows = compare("tiny", plugins=[module], regimes=["R"], track=False)
    assert rows["status"].tolist() == ["ok"] * 3


def test_a_plugin_that_cannot_be_loaded_is_warned_of(compare_here, write_plugin):
    broken = write_plugin("broken", "def f(:")
    with pytest.warns(UserWarning, match=r"plugin broken \(.*broken.py\) could not be loaded: SyntaxError"):
        rows = compare_here(plugins=[broken], regimes=["R"])
    assert rows["status"].tolist() == ["ok"] * 3


def test_a_comparison_that_goes_well_warns_of_nothing(compare_here):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_here()


@pytest.mark.parametrize(
    "options, error",
    [({"features": ["randon"]}, UnknownNameError), ({"draws": 0}, UsageError), ({"train_per_class": 1}, UsageError)],
)
def test_a_request_that_makes_no_sense_raises_and_leaves_no_result(compare_here, home, options, error):
    with pytest.raises(error):
        compare_here(**options)
    assert not (home / "results").exists()
    assert not (home / "comparisons").exists()


def test_a_failing_cell_makes_a_row_with_its_message(compare_here, write_learner):
    broken = write_learner("broken", "raise RuntimeError('on purpose')")
    rows = compare_here(plugins=[broken], features=["broken"], regimes=["U"])
    row = rows[rows["learner"] == "broken"].iloc[0]
    assert (row["status"], row["n"]) == ("failed", 0)
    assert row["message"].startswith("RuntimeError: on purpose (broken.py, line ")
    assert pd.isna(row["mean"])


def test_skipped_cells_are_rows_too(compare_here):
    rows = compare_here(features=["random"], regimes=["R", "U"], draws=1)
    row = rows[rows["regime"] == "U"].iloc[0]
    assert (row["status"], row["n"]) == ("skipped", 0)
    assert "nothing to learn without labels" in row["message"]


def test_the_data_folder_comes_from_the_environment_too(compare_here, tmp_path, monkeypatch):
    plain = compare_here(regimes=["R"])
    (tmp_path / "version").write_text("5")
    monkeypatch.setenv("FEATBENCH_DATA", str(tmp_path))
    assert scores(compare_here(regimes=["R"])) != scores(plain)
    assert scores(compare_here(regimes=["R"], data_dir=tmp_path / "empty")) == scores(plain)


def test_seconds_are_those_of_the_first_computation(tiny, home):
    def seconds():
        runs = Workbench(plugins=[tiny]).compare(Request("tiny", draws=1, device="cpu"), track=False).runs
        return {str(run.cell): run.result.seconds for run in runs if run.cell.learner.name == "random"}

    first = seconds()
    for path in (home / "results").glob("*.json"):
        path.unlink()
    again = seconds()
    plain, refined = first.values()
    assert min(plain.learn, plain.extract, refined.refine, refined.extract) > 0
    for name in first:
        assert (again[name].learn, again[name].refine, again[name].extract) == (
            first[name].learn,
            first[name].refine,
            first[name].extract,
        )


def test_the_workbench_counts_what_it_computed(tiny):
    bench = Workbench(plugins=[tiny])
    request = Request("tiny", regimes=["R"], device="cpu")
    first = bench.compare(request, track=False)
    second = bench.compare(request, track=False)
    assert (first.computed, second.computed) == (6, 0)
    assert first.key == second.key
    assert first.failed == second.failed == []
    assert [run.result.key for run in first.runs] == [run.result.key for run in second.runs]


def test_the_digits_are_compared_without_a_plugin(tmp_path):
    rows = featbench.compare(features=["gabor"], train_per_class=3, draws=1, track=False, device="cpu")
    found = scores(rows)
    assert rows["dataset"].tolist() == ["digits"] * 3
    assert found["chance", "fixed"][0] < 20
    assert found["raw-pixels", "fixed"][0] > 60
    assert found["gabor", "fixed"][0] > 60
    assert json.loads(json.dumps(found["gabor", "fixed"])) == found["gabor", "fixed"]


class Stripes(featbench.FilterLearner):
    """A designed learner that names no letter for its regime."""

    name, family = "stripes", "fixed"

    def filters(self, bank, patches, seed):
        return np.ones(bank.shape, dtype=np.float32) * np.resize([1, -1], bank.size).astype(np.float32)


class StripesPlugin:
    @featbench.hookimpl
    def featbench_learners(self):
        return [Stripes]


def test_a_designed_learner_without_a_letter_is_labelled_fixed(compare_here):
    rows = compare_here(plugins=[StripesPlugin()], features=["stripes"], regimes=["fixed", "fixed+"], draws=1)
    assert rows["label"].tolist()[-2:] == ["fixed", "fixed+"]
    assert rows["status"].tolist()[-2:] == ["ok", "ok"]


def test_however_arguments_are_written_equal_requests_find_the_same_results(compare_here, store, tmp_path, log):
    plain = {"features": ["random"], "regimes": ["R", "R+"], "draws": 2, "train_per_class": 4, "seed": 1}
    first = compare_here(**plain, refine="epochs=2,rate=0.01", stages="4F3-Rabs-PA2/2")
    written = {key for key, _ in store.records("results")}
    for other in (
        {"features": "random", "draws": np.int64(2), "train_per_class": np.int8(4), "seed": np.array(1)},
        {"features": np.array(["random"]), "regimes": "R,R+", "refine": {"rate": np.float64(0.01), "epochs": 2}},
        {"features": {"random"}, "regimes": {"R+", "R"}, "stages": featbench.Architecture.parse("4F3-Rabs-PA2/2")},
        {"features": ("random",), "train_per_class": "4", "data_dir": tmp_path / "none", "home": str(store.home)},
    ):
        rows = compare_here(**{"refine": "epochs=2,rate=0.01", "stages": "4F3-Rabs-PA2/2", **plain, **other})
        pd.testing.assert_frame_equal(first, rows)
    assert {key for key, _ in store.records("results")} == written
    assert log.count("load") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "^draws must be at least 1, not 0"),
        ({"draws": 3, "train_per_class": "all"}, "^all training images make one draw: leave out draws, and vary seed"),
        ({"train_per_class": "few"}, "^train_per_class takes a number or 'all', not 'few'"),
        ({"train_per_class": 99}, "ask for fewer with train_per_class"),
        ({"unlabelled": "training+"}, r"^unlabelled training\+ names no images"),
        ({"refine": "epoch=3"}, "^refine epoch=3: "),
        ({"home": ""}, "^home takes a path, not ''"),
        ({"data_dir": 3}, "^data_dir takes a path, not 3"),
        ({"home": "a\0b"}, "^home takes a path"),
        ({"retry": "no"}, "^retry takes True or False, not 'no'"),
        ({"skip_bad_images": 1}, "^skip_bad_images takes True or False, not 1"),
        ({"plugins": ["nowhere.py"]}, "there is no plugin file nowhere.py"),
    ],
)
def test_errors_name_arguments_and_are_value_errors(compare_here, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        compare_here(**options)
    assert isinstance(caught.value, featbench.FeatbenchError)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("feature", "features"),
        ("learners", None),
        ("draw", "draws"),
        ("classifier", "classifiers"),
        ("plugin", "plugins"),
    ],
)
def test_an_unknown_argument_is_a_type_error_that_says_what_was_meant(name, meant):
    with pytest.raises(TypeError, match=rf"compare\(\) got an unexpected keyword argument '{name}'") as caught:
        compare(**{name: 1})
    assert (f"did you mean {meant!r}?" in str(caught.value)) == (meant is not None)


def test_a_plugin_that_cannot_be_loaded_is_warned_of_where_compare_was_called(tiny, write_plugin):
    with pytest.warns(UserWarning, match="could not be loaded") as caught:
        compare("tiny", plugins=(tiny, write_plugin("broken", "f(")), regimes="R", draws=1, track=False, device="cpu")
    assert caught[0].filename == __file__


def test_progress_is_shown_where_it_is_asked_for_and_nowhere_else(compare_here, capsys):
    quiet = compare_here(regimes=["R"])
    assert capsys.readouterr() == ("", "")
    rows = compare_here(regimes=["R"], seed=1, verbose=True)
    shown = capsys.readouterr()
    assert "6/6" in shown.err
    assert "random R nearest draw 1" in shown.err
    pd.testing.assert_frame_equal(quiet, compare_here(regimes=["R"], verbose=np.True_))
    assert len(rows) == len(quiet)
    with pytest.raises(ValueError, match=r"^verbose takes True or False, not 'yes'"):
        compare_here(verbose="yes")
