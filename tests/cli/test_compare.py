import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

KEYS = {
    *("dataset", "protocol", "architecture", "learner", "regime", "classifier", "metric", "mean", "std", "n"),
    *("status", "fit_seconds", "extract_seconds", "seed"),
}


@pytest.fixture
def compare_digits(run):
    """Call `featbench compare` with these options, and nothing else but what keeps MLflow and progress away."""
    return lambda *options: run("compare", "--no-track", "--quiet", *options)


# A comparison and its formats.


def test_json_rows_hold_what_was_measured(compare_tiny):
    ran = compare_tiny("--draws", "3")
    assert ran.code == 0
    assert len(ran.rows) == 4
    for row in ran.rows:
        assert set(row) >= KEYS
        assert (row["dataset"], row["protocol"], row["metric"], row["seed"]) == ("tiny", "tiny", "accuracy", 0)
        assert (row["n"], len(row["scores"]), row["status"]) == (3, 3, "ok")
        assert row["mean"] == pytest.approx(np.mean(row["scores"]), rel=1e-12)
        assert row["std"] == pytest.approx(np.std(row["scores"], ddof=1), rel=1e-9, abs=1e-12)
        assert row["fit_seconds"] >= 0
        assert row["extract_seconds"] >= 0
    assert {row["architecture"] for row in ran.rows} == {"", "4F3-Rabs-PA2/2"}


def test_one_draw_has_no_deviation(compare_tiny):
    for row in compare_tiny("--draws", "1").rows:
        assert (row["n"], row["std"], row["mean"]) == (1, None, row["scores"][0])


def test_csv_and_markdown_and_table_say_what_json_says(compare_tiny):
    rows = {(row["learner"], row["regime"]): row for row in compare_tiny().rows}
    found = list(csv.DictReader(io.StringIO(compare_tiny("--format", "csv").out)))
    assert {(row["learner"], row["regime"]): float(row["mean"]) for row in found} == {
        key: row["mean"] for key, row in rows.items()
    }
    for form in ("markdown", "table"):
        text = compare_tiny("--format", form).out
        for key, name in (
            (("random", "R+"), "random"),
            (("raw-pixels", "fixed"), "raw pixels"),
            (("chance", "fixed"), "chance"),
        ):
            shown = f"{rows[key]['mean']:.1f} ± {rows[key]['std']:.1f}"
            assert any(name in line and shown in line for line in text.splitlines())
        assert "± is the standard deviation over the n draws" in text


def test_the_table_is_what_is_shown_by_default(compare_tiny, run, tiny):
    ran = run("compare", "--protocol", "tiny", "--plugin", tiny, "--no-track", "--device", "cpu")
    assert ran.out == compare_tiny("--format", "table").out


def test_the_digits_are_the_default(compare_digits):
    ran = compare_digits("--plan")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "35 cells"
    assert len(ran.out.splitlines()) == 36


def test_a_table_is_written_to_a_file(compare_tiny, tmp_path):
    path = tmp_path / "rows.json"
    ran = compare_tiny("--output", path)
    assert (ran.code, ran.out) == (0, "")
    assert f"wrote {path}" in ran.err
    assert path.read_text() == compare_tiny().out
    assert len(json.loads(path.read_text())) == 4


def test_an_output_that_breaks_is_reported_and_the_results_are_kept(compare_tiny, tmp_path, monkeypatch):
    replace = os.replace

    def refuse(source, target):
        if str(target).endswith("rows.json"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    ran = compare_tiny("--output", tmp_path / "rows.json", "--quiet")
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err == f"featbench: error: --output {tmp_path / 'rows.json'} cannot be written: No space left on device\n"
    )
    assert "nothing to compute" in compare_tiny().err


def test_progress_is_reported_line_by_line_where_nobody_looks(compare_tiny):
    ran = compare_tiny("--regimes", "R", "--draws", "1")
    lines = ran.err.splitlines()
    assert lines[0] == "device: cpu"
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        "[1/3] chance fixed guess draw 0",
        "[2/3] raw-pixels fixed nearest draw 0",
        "[3/3] random R nearest draw 0",
    ]
    cost = r"(; \d+ min \d+ s, at most [\d.]+ GiB of memory)?"
    assert re.fullmatch("3 cells computed, 0 read from the store" + cost, lines[4])
    assert len(lines) == 5
    score = ran.row("random")["mean"]
    assert f": {score:.2f} % (" in lines[3]


def test_quiet_says_nothing_but_errors(compare_tiny, write_learner):
    assert compare_tiny("--quiet").err == ""
    ran = compare_tiny(
        *("--quiet", "--features", "broken", "--regimes", "U", "--draws", "1"),
        plugins=[write_learner("broken", "raise RuntimeError('on purpose')")],
    )
    assert "broken U nearest draw 0: failed" in ran.err
    assert "RuntimeError: on purpose" in ran.err


def test_a_plan_computes_nothing(compare_tiny, home):
    ran = compare_tiny("--plan", "--features", "random", "--regimes", "R,U", "--draws", "1")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "3 cells",
        "chance fixed guess draw 0",
        "raw-pixels fixed nearest draw 0",
        "random R nearest draw 0",
        "skipped: random U: random has nothing to learn without labels: R is its regime",
    ]
    assert not (home / "results").exists()


def test_skipped_rows_are_in_the_table_with_their_reason(compare_tiny):
    options = ("--features", "random", "--regimes", "R,U", "--draws", "1")
    ran = compare_tiny(*options)
    assert ran.code == 0
    assert (ran.row("random", "U")["status"], ran.row("random", "U")["mean"]) == ("skipped", None)
    text = compare_tiny(*options, "--format", "table").out
    assert "skipped: random U nearest: random has nothing to learn without labels: R is its regime" in text


def test_a_learner_is_given_its_parameters(compare_tiny):
    ran = compare_tiny("--features", "random(scale=0.5,distribution=normal),random", "--regimes", "R")
    learners = [row["learner"] for row in ran.rows]
    assert learners == ["random(distribution=normal,scale=0.5)", "random", "raw-pixels", "chance"]
    assert ran.row("random")["scores"] != ran.row("random(distribution=normal,scale=0.5)")["scores"]


def test_the_store_is_where_home_says(compare_tiny, home, tmp_path):
    compare_tiny("--draws", "1", "--home", tmp_path / "mine")
    assert (tmp_path / "mine/results").is_dir()
    assert not home.exists()


# The second time.


def test_a_second_run_computes_nothing_and_does_not_load_the_data(compare_tiny, write_learner, log):
    options = ("--features", "counted,random")
    plugins = [write_learner("counted")]
    first = compare_tiny(*options, plugins=plugins)
    before = log.lines()
    assert before.count("load") == 1
    second = compare_tiny(*options, plugins=plugins)
    assert log.lines() == before
    assert second.out == first.out
    assert "nothing to compute: all 12 cells were in the store" in second.err


def test_a_comparison_that_is_killed_goes_on_where_it_was(compare_tiny, write_learner, tiny, home, log, tmp_path):
    body = """
        lines = open(os.environ["FEATBENCH_TEST_LOG"]).read().split()
        import time
        while lines.count("slow") == 2 and not os.path.exists(os.environ["FEATBENCH_TEST_LOG"] + ".go"):
            time.sleep(0.01)
        return weight
    """
    plugin = write_learner("slow", body)
    options = ("--features", "slow", "--regimes", "U", "--draws", "4", "--format", "json", "--device", "cpu")
    program = [sys.executable, "-m", "featbench", "compare", "--protocol", "tiny", "--no-track", *options]
    process = subprocess.Popen(
        [*program, "--plugin", tiny, "--plugin", plugin, "--home", home],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 120
    while log.count("slow") < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    assert (process.returncode, out, log.count("slow")) == (-signal.SIGKILL, b"", 2)
    finished = {path: path.stat().st_mtime_ns for path in (home / "results").iterdir()}
    assert len(finished) == 9  # four draws of each baseline, and the first of `slow`

    (tmp_path / "log.go").touch()
    resumed = compare_tiny(*options, plugins=[plugin])
    assert resumed.code == 0
    assert "3 cells computed, 9 read from the store" in resumed.err
    assert log.count("slow") == 2 + 3  # the draw that was cut off, and the two after it
    assert {path: path.stat().st_mtime_ns for path in finished} == finished

    undisturbed = compare_tiny(*options, "--home", tmp_path / "other", plugins=[plugin])
    assert results(resumed) == results(undisturbed)
    assert {path.name for path in (home / "results").iterdir()} == {
        path.name for path in (tmp_path / "other/results").iterdir()
    }


def results(ran):
    """Return the rows without their seconds, which no two runs share."""
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in ran.rows]


# Requests that make no sense.

MISTAKES = {
    "protocol": (["--protocol", "digit"], "unknown protocol 'digit': did you mean 'digits'?"),
    "dataset": (["--dataset", "digts"], "unknown dataset 'digts': did you mean 'digits'?"),
    "learner": (["--features", "random,psdd"], "unknown learner 'psdd': did you mean 'psd'?"),
    "regime": (["--regimes", "R,fixd"], "unknown regime 'fixd': did you mean 'fixed'?"),
    "classifier": (["--classifiers", "logistc"], "unknown classifier 'logistc': did you mean 'logistic'?"),
    "device": (["--device", "gpu"], "unknown device 'gpu': it is auto, cpu or cuda"),
    "parameter": (["--features", "psd(lamda=1)"], "unknown parameter of psd 'lamda': did you mean 'lam'?"),
    "value": (["--features", "psd(lam=much)"], "psd: parameter lam takes a float, not 'much'"),
    "brackets": (["--features", "psd(lam=1"], "cannot read 'psd(lam=1'"),
    "no learners": (["--features", ","], "--features is empty: give at least one name"),
    "no regimes": (["--regimes", ""], "--regimes is empty: give at least one name"),
    "token": (["--stages", "32F3-Rasb"], "Rasb"),
    "architecture too large": (["--stages", "32F9-Rabs"], "8×8"),
    "second stage too large": (["--stages", "4F3-PM2 > 4F4"], "3×3"),
    "too few images": (["--train-per-class", "174"], "class '8' has 174 images, but 174 are asked for training"),
    "one image": (["--train-per-class", "1"], "--train-per-class must be at least 2"),
    "no number": (["--train-per-class", "abc"], "--train-per-class takes a number or 'all', not 'abc'"),
    "all images": (["--train-per-class", "all"], "leaves none to test on"),
    "no draws": (["--draws", "0"], "--draws must be at least 1, not 0"),
    "no folder": (["--unlabelled", "nowhere"], "there is no folder of images nowhere"),
    "no output folder": (["--output", "nowhere/rows.csv"], "--output nowhere/rows.csv: there is no folder nowhere"),
    "output is a folder": (["--output", "."], "--output . is a folder: name a file"),
    "no plugin": (["--plugin", "nowhere.py"], "there is no plugin file nowhere.py"),
    "no data": (
        ["--protocol", "mnist"],
        "mnist needs train-images-idx3-ubyte.gz: set FEATBENCH_DATA or --data-dir",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_ends_with_one_line_before_anything_is_computed(compare_digits, case, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATBENCH_DATA", raising=False)
    options, message = MISTAKES[case]
    ran = compare_digits(*options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("featbench: error: ")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not (home / "results").exists()
    # Where the mistake is about the images, these had to be read.
    assert {path.name for path in (home / "artifacts").glob("*")} <= {"images", "labels", "lock"}


def test_cuda_that_is_absent_ends_with_one_line(compare_digits, home, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = compare_digits("--device", "cuda")
    assert (ran.code, ran.err) == (
        2,
        "featbench: error: CUDA was asked for, but torch finds no CUDA device: use --device cpu or --device auto\n",
    )
    assert not (home / "results").exists()


def test_the_device_is_reported(compare_tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = compare_tiny("--device", "auto", "--regimes", "R", "--draws", "1")
    assert ran.err.startswith("device: cpu (auto: no CUDA device was found)\n")


@pytest.mark.parametrize("options", [["--draws", "some"], ["--format", "xml"], ["--seed", "1.5"], ["stray"]])
def test_options_that_cannot_be_read_are_refused(compare_digits, home, options):
    ran = compare_digits(*options)
    assert (ran.code, ran.out) == (2, "")
    assert "featbench compare: error: " in ran.err
    assert "Traceback" not in ran.err
    assert not home.exists()


def test_debug_shows_where_a_mistake_was_met(compare_digits):
    ran = compare_digits("--features", "psdd", "--debug")
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback (most recent call last):" in ran.err
    assert ran.err.splitlines()[-1].startswith("featbench: error: unknown learner 'psdd'")


# Plugins.


def test_a_comparison_goes_on_without_a_broken_plugin_but_counts_it(compare_tiny, write_plugin):
    broken = write_plugin("broken", "import a_module_that_is_nowhere")
    ran = compare_tiny("--regimes", "R", plugins=[broken])
    assert ran.code == 1
    assert f"featbench: plugin broken ({broken}) could not be loaded: ModuleNotFoundError" in ran.err
    assert "Traceback" not in ran.err
    assert [row["status"] for row in ran.rows] == ["ok"] * 3


def test_debug_shows_where_a_plugin_broke(compare_tiny, write_plugin):
    broken = write_plugin("broken", "import a_module_that_is_nowhere")
    ran = compare_tiny("--regimes", "R", "--debug", plugins=[broken])
    assert "Traceback" in ran.err
    assert f'File "{broken}", line 1' in ran.err


def test_strict_stops_at_a_broken_plugin(compare_tiny, write_plugin, home):
    broken = write_plugin("broken", "import a_module_that_is_nowhere")
    ran = compare_tiny("--strict", plugins=[broken])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"featbench: error: plugin broken ({broken}) cannot be loaded: ModuleNotFoundError")
    assert ran.err.count("\n") == 1
    assert not (home / "results").exists()


def test_a_learner_of_a_broken_plugin_is_reported_to_be_missing_for_that_reason(compare_tiny, write_plugin):
    broken = write_plugin("broken", "def f(:")
    ran = compare_tiny("--features", "mine", plugins=[broken])
    assert ran.code == 2
    assert "unknown learner 'mine': known: autoencoder, chance" in ran.err
    assert f"plugins that could not be loaded: broken ({broken})" in ran.err
