"""A failure names the line of the plugin that it comes from, and where its traceback is kept."""

import json
import re
from pathlib import Path

import pytest

import featbench

LEARNER = """
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import numpy as np
import torch
import featbench

class Odd(Exception):
    def __str__(self):
        raise ValueError("no message")

def deeper(depth):
    if depth == 0:
        raise KeyError("inner")  # inner
    return deeper(depth - 1)

class Module(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("in a module")  # module

@dataclass(frozen=True)
class Broken(featbench.FilterLearner):
    name = "broken"
    family = "fixed"
    def filters(self, bank, patches, seed):
        BODY

@featbench.hookimpl
def featbench_learners():
    return [Broken]
"""

FAILURES = {
    "its own line": ("raise RuntimeError('on purpose')  # here", "RuntimeError: on purpose", "here"),
    "without a message": ("assert seed < 0  # here", "AssertionError", "here"),
    "within a function of its own": ("deeper(3)", "KeyError: 'inner'", "inner"),
    "within numpy": ("np.linalg.inv(np.zeros((2, 2)))  # here", "LinAlgError: Singular matrix", "here"),
    "within torch": ("torch.zeros(2, 3) @ torch.zeros(2, 3)  # here", "RuntimeError: mat1 and mat2", "here"),
    "within the standard library": ("__import__('json').loads('{')  # here", "JSONDecodeError: Expecting", "here"),
    "in another thread": (
        "with ThreadPoolExecutor(1) as pool: pool.submit(deeper, 0).result()",
        "KeyError: 'inner'",
        "inner",
    ),
    "in a module that torch calls": ("Module()(torch.zeros(1))", "RuntimeError: in a module", "module"),
    "in a generator": ("list(deeper(0) for _ in range(2))", "KeyError: 'inner'", "inner"),
    "with a cause": (
        "try: deeper(0)\n        except KeyError as error: raise RuntimeError('outer') from error  # here",
        "RuntimeError: outer",
        "here",
    ),
    "of featbench's kind": ("raise featbench.FeatbenchError('mine')  # here", "mine", "here"),
    "an end of the program": ("raise SystemExit(3)  # here", "SystemExit: 3", "here"),
    "a message that fails": ("raise Odd  # here", "Odd: its message cannot be shown", "here"),
    "called by featbench wrongly": ("return featbench.Filters()  # here", "TypeError: Filters.__init__", "here"),
    "what it returns": ("return 'filters'", "learner broken gave str where", "@dataclass(frozen=True)"),
    "the shape that it returns": ("return np.zeros(3, np.float32)", "learner broken ", "@dataclass(frozen=True)"),
}
"""Ends of a learner, what the message begins with, and what marks the line that it names."""


@pytest.fixture
def fail(compare_tiny, write_plugin):
    """Compare a learner that ends like this; returns what the call gave, its message and the plugin's lines."""

    def fail(body, *options):
        plugin = write_plugin("broken", LEARNER.replace("BODY", body))
        ran = compare_tiny(
            *("--features", "broken", "--regimes", "fixed", "--draws", "1", "--quiet", *options), plugins=[plugin]
        )
        assert ran.code == 1
        return ran, plugin.read_text().splitlines()

    return fail


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_names_the_line_and_the_traceback(fail, case, home):
    body, begins, mark = FAILURES[case]
    ran, lines = fail(body)
    message = ran.row("broken")["message"]
    assert message.startswith(begins)
    file, line, traceback = re.search(r"\((\w+\.py), line (\d+)\); traceback in (.+\.json)$", message, re.S).groups()
    assert file == "broken.py"
    assert mark in lines[int(line) - 1]
    kept = json.loads(Path(traceback).read_text())
    assert kept["traceback"].startswith("Traceback (most recent call last):")
    assert Path(traceback).parent == home / "results"
    # The message that is kept stays true where the store is moved.
    assert str(home) not in kept["message"]
    assert message in ran.err


def test_debug_shows_the_traceback_also_of_a_failure_that_is_kept(fail):
    body = "raise RuntimeError('on purpose')"
    ran, _ = fail(body)
    assert "Traceback" not in ran.err
    for options in (["--debug"], ["--debug", "--retry"]):
        ran, _ = fail(body, *options)
        assert ran.err.count("Traceback (most recent call last):") == 1
        assert body in ran.err
        assert len(ran.rows) == 3


def test_python_has_the_same_message(write_plugin, tiny, home):
    plugin = write_plugin("broken", LEARNER.replace("BODY", "raise RuntimeError('on purpose')"))
    rows = featbench.compare(
        "tiny", features=["broken"], regimes=["fixed"], draws=1, plugins=[tiny, plugin], track=False, device="cpu"
    )
    message = rows.set_index("learner").loc["broken", "message"]
    assert re.fullmatch(
        r"RuntimeError: on purpose \(broken\.py, line \d+\); traceback in .+/results/\w+\.json", message
    )


def test_a_helper_is_named_beside_the_plugin(compare_tiny, write_plugin):
    helper = write_plugin("a_helper_of_broken", "def work():\n    raise RuntimeError('in the helper')")
    body = (
        f"import importlib.util; spec = importlib.util.spec_from_file_location('a_helper_of_broken', {str(helper)!r}); "
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); module.work()"
    )
    plugin = write_plugin("broken", LEARNER.replace("BODY", body))
    ran = compare_tiny("--features", "broken", "--regimes", "fixed", "--draws", "1", plugins=[plugin])
    assert re.match(
        r"RuntimeError: in the helper \(broken\.py, line \d+, and a_helper_of_broken\.py, line 2\); traceback in ",
        ran.row("broken")["message"],
    )


def test_a_classifier_and_a_metric_are_named(compare_tiny, write_plugin):
    plugin = write_plugin(
        "judge",
        """
        import featbench

        class Judge(featbench.Classifier):
            name = "judge"
            def fit(self, features, labels, validation, classes, seed):
                raise RuntimeError("no")

        def score(predictions, labels, classes):
            return "high"

        @featbench.hookimpl
        def featbench_classifiers():
            return [Judge()]

        @featbench.hookimpl
        def featbench_metrics():
            return [featbench.Metric("odd", score)]

        @featbench.hookimpl
        def featbench_protocols():
            return [featbench.Protocol(
                name="odd", summary="odd", dataset="tiny", architecture="4F3-Rabs-PA2/2", train_per_class=4,
                preprocessing=featbench.Preprocessing(), test="rest", features=("random",), regimes=("R",),
                classifiers=("nearest", "judge"), draws=1, metric="odd",
            )]
        """,
    )
    ran = compare_tiny("--protocol", "odd", "--features", "random", "--regimes", "R", plugins=[plugin])
    messages = {row["classifier"]: row["message"] for row in ran.rows if row["learner"] == "random"}
    assert re.search(r"^RuntimeError: no \(judge\.py, line 7\); ", messages["judge"])
    assert re.search(r"metric odd gave 'high', .* \(judge\.py, line 9\); ", messages["nearest"])


def test_a_failure_of_featbench_itself_names_no_plugin(compare_tiny, monkeypatch):
    from featbench.experiment.steps import Steps

    monkeypatch.setattr(Steps, "extract_part", dict.__getitem__)
    ran = compare_tiny("--features", "random", "--regimes", "R", "--draws", "1")
    assert re.match(r"TypeError: [^()]+; traceback in ", ran.row("random")["message"])


DATASET = """
import featbench
import numpy as np

class Odd(featbench.Dataset):
    name = "odd"
    def fingerprint(self, data_dir):
        FINGERPRINT
    def load(self, data_dir):
        LOAD

@featbench.hookimpl
def featbench_datasets():
    return [Odd()]
"""

PLANS = {
    "load": ("return '0'", "return {}['x']", r"error: data set odd cannot be read: KeyError: 'x' \(odd\.py, line 10\)"),
    "load exits": ("return '0'", "raise SystemExit(3)", r"error: a plugin ended .*\(odd\.py, line 10\)"),
    "load says why": ("return '0'", "raise featbench.DataError('odd is not here')", "error: odd is not here"),
    "fingerprint": ("return {}['x']", "return None", r"error.*: KeyError: 'x' \(odd\.py, line 8\)"),
}
"""What a data set does, and the line that ends the program before anything is computed."""


@pytest.mark.parametrize("case", PLANS)
def test_what_fails_before_anything_is_computed_is_named_too(compare_tiny, write_plugin, case):
    fingerprint, load, message = PLANS[case]
    plugin = write_plugin("odd", DATASET.replace("FINGERPRINT", fingerprint).replace("LOAD", load))
    options = ("--dataset", "odd", "--regimes", "R", "--quiet")
    ran = compare_tiny(*options, plugins=[plugin])
    assert ran.code in (1, 2)
    assert re.search(f"^featbench: {message}", ran.err, re.M)
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    debugged = compare_tiny(*options, "--debug", plugins=[plugin])
    assert "Traceback (most recent call last):" in debugged.err
    assert debugged.code == ran.code


BREAKS = {
    "at import": ("import featbench\n\nraise RuntimeError('no')", "RuntimeError: no (bad.py, line 3)"),
    "a module that is missing": ("import a_module_that_is_nowhere", "(bad.py, line 1)"),
    "a hook": (
        "import featbench\n@featbench.hookimpl\ndef featbench_learners():\n    return 1 / 0",
        "ZeroDivisionError: division by zero (bad.py, line 4)",
    ),
    "an end of the program": ("import sys\nsys.exit(2)", "SystemExit: 2 (bad.py, line 2)"),
    "a mistake of syntax": ("x = 1\nx = = 2", "SyntaxError: invalid syntax (bad.py, line 2)"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_plugin_that_cannot_be_loaded_is_named_with_its_line(run, write_plugin, case):
    source, message = BREAKS[case]
    ran = run("list", "learners", "--plugin", write_plugin("bad", source))
    assert message in ran.err.splitlines()[0]
