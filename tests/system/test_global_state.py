"""What plugins change of the process is given back, wherever they are called."""

import os
import random
import warnings

import numpy as np
import pytest
import torch
from helpers.plugin_sources import LEARNER

from featbench.registry import Registry
from featbench.system.global_state import keep_global_state


def chdir():
    os.chdir("/")


def draw():
    random.random(), np.random.random(), torch.rand(3)


CHANGES = {
    "default type": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "threads": (lambda: torch.set_num_threads(3), torch.get_num_threads),
    "no gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "matmul precision": (lambda: torch.set_float32_matmul_precision("medium"), torch.get_float32_matmul_precision),
    "deterministic": (lambda: torch.use_deterministic_algorithms(True), torch.are_deterministic_algorithms_enabled),
    "numpy's errors": (lambda: np.seterr(all="raise"), np.geterr),
    "numpy's printing": (lambda: np.set_printoptions(precision=2), np.get_printoptions),
    "folder": (chdir, os.getcwd),
    "new variable": (lambda: os.environ.update(FEATBENCH_X="1"), lambda: os.environ.get("FEATBENCH_X")),
    "changed variable": (lambda: os.environ.update(FEATBENCH_HOME="/"), lambda: os.environ.get("FEATBENCH_HOME")),
    "removed variable": (lambda: os.environ.pop("FEATBENCH_HOME"), lambda: os.environ.get("FEATBENCH_HOME")),
    "ignored warnings": (lambda: warnings.simplefilter("ignore"), lambda: list(warnings.filters)),
    "warnings as errors": (lambda: warnings.simplefilter("error"), lambda: list(warnings.filters)),
    "reset warnings": (warnings.resetwarnings, lambda: list(warnings.filters)),
    "Python's generator": (lambda: random.seed(1), random.getstate),
    "numpy's generator": (lambda: np.random.seed(1), lambda: np.random.get_state()[1].tolist()),
    "torch's generator": (lambda: torch.manual_seed(1), lambda: torch.get_rng_state().tolist()),
    "all generators": (draw, lambda: (random.getstate(), np.random.get_state()[2], torch.get_rng_state().tolist())),
}


@pytest.fixture(autouse=True)
def undone():
    with keep_global_state():
        yield


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_changed_inside_is_given_back(what):
    change, read = CHANGES[what]
    before = read()
    with keep_global_state():
        change()
        assert read() != before
    assert read() == before
    with pytest.raises(ZeroDivisionError), keep_global_state():
        change()
        raise ZeroDivisionError
    assert read() == before


def test_the_environment_may_be_left_as_it_is(monkeypatch):
    monkeypatch.setenv("FEATBENCH_X", "0")
    with keep_global_state(environment=False):
        os.environ["FEATBENCH_X"] = "1"
        torch.set_num_threads(3)
    assert os.environ["FEATBENCH_X"] == "1"
    assert torch.get_num_threads() != 3


def test_a_folder_that_is_gone_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    with keep_global_state():
        os.chdir("/")
        (tmp_path / "gone").rmdir()
    os.chdir("/")


SPOIL = """
import os, random, warnings
import numpy as np
import torch
def spoil():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(7)
    torch.set_grad_enabled(False)
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    np.seterr(all="raise")
    os.chdir("/")
    warnings.simplefilter("error")
"""


def read_all():
    return [read() for name, (_, read) in CHANGES.items() if "variable" not in name]


def test_a_plugin_that_sets_everything_when_it_is_loaded_changes_nothing(write_plugin):
    before = read_all()
    hook = "import featbench\n@featbench.hookimpl\ndef featbench_learners():\n    spoil()\n    return []\n"
    path = write_plugin("spoiling", SPOIL + "spoil()\n" + hook)
    assert Registry([path]).broken == []
    assert read_all() == before


def test_plugins_that_set_everything_when_they_are_called_change_no_number(compare_tiny, write_plugin, tiny, tmp_path):
    source = SPOIL + LEARNER.replace("NAME", "spoiling").replace("FAMILY", "unsupervised")
    learner = write_plugin("spoiling", source.replace("BODY", "        spoil()\n        return weight"))
    options = ("--classifiers", "nearest,logistic")
    expected = compare_tiny("--features", "random", *options)
    before = read_all()
    spoiled = SPOIL + tiny.read_text().replace(
        "    def predict(self",
        "    def predict(self, features):\n        spoil()\n        return self.answer(features)\n    def answer(self",
    )
    tiny.write_text(
        spoiled.replace('        log("load")', '        log("load")\n        spoil()').replace(
            "return _Means(", "spoil()\n        return _Means("
        )
    )
    ran = compare_tiny("--features", "spoiling,random", *options, "--home", tmp_path / "other", plugins=[learner])
    assert ran.code == 0, ran.err
    assert read_all() == before
    scores = {(row["learner"], row["regime"], row["classifier"]): row["scores"] for row in ran.rows}
    for row in expected.rows:
        assert scores[row["learner"], row["regime"], row["classifier"]] == row["scores"]
