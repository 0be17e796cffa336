import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import featbench
from featbench.store.keys import compute_code_version
from featbench.store.provenance import CHECKOUT, PACKAGES, describe_run, record_run
from featbench.system.hashing import content_hash


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout that featbench seems to have been imported from; returns a function that runs git in it."""
    root = tmp_path / "checkout"
    (root / "featbench").mkdir(parents=True)
    (root / "featbench/__init__.py").write_text("")
    (root / "pyproject.toml").write_text("")
    assert Path(featbench.__file__).parents[1] == CHECKOUT
    monkeypatch.setattr("featbench.store.provenance.CHECKOUT", root)

    def git(*arguments):
        settings = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", "-C", root, *settings, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git.root = root
    return git


def test_a_run_is_described_by_its_versions_and_its_machine():
    described = describe_run()
    assert described["versions"] == {name: importlib.metadata.version(name) for name in PACKAGES}
    assert {"featbench", "torch", "numpy", "scikit-learn"} <= set(PACKAGES)
    assert described["python"] == platform.python_version()
    assert described["numerics"] == compute_code_version()
    assert described["threads"] == torch.get_num_threads()
    assert described["cores"] == os.cpu_count()
    assert described["cpu"]
    assert (described["gpu"] is None) == (not torch.cuda.is_available())


def test_a_run_says_its_commit_and_that_it_is_clean(checkout):
    checkout("init", "--quiet")
    checkout("add", ".")
    checkout("commit", "--quiet", "-m", "first")
    described = describe_run()
    assert (described["commit"], described["dirty"]) == (checkout("rev-parse", "HEAD"), False)


@pytest.mark.parametrize(
    "name, dirty",
    [("featbench/__init__.py", True), ("featbench/new.py", True), ("pyproject.toml", True), ("leaderboards/x", False)],
)
def test_an_edit_of_the_sources_makes_a_run_dirty(checkout, name, dirty):
    checkout("init", "--quiet")
    checkout("add", ".")
    checkout("commit", "--quiet", "-m", "first")
    path = checkout.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("edited")
    assert describe_run()["dirty"] is dirty


def test_what_is_no_checkout_has_no_commit(checkout):
    described = describe_run()
    assert (described["commit"], described["dirty"]) == (None, None)


def test_a_folder_inside_of_another_checkout_has_no_commit(checkout):
    # An installed featbench may lie below somebody's own repository.
    checkout("init", "--quiet", checkout.root.parent)
    checkout("commit", "--quiet", "--allow-empty", "-m", "somebody's own")
    assert checkout("rev-parse", "HEAD")
    assert (describe_run()["commit"], describe_run()["dirty"]) == (None, None)


def test_without_git_or_without_a_commit_a_run_is_described_all_the_same(checkout, monkeypatch):
    checkout("init", "--quiet")
    assert (describe_run()["commit"], describe_run()["dirty"]) == (None, None)
    assert shutil.which("git")
    monkeypatch.setenv("PATH", "")
    assert (describe_run()["commit"], describe_run()["dirty"]) == (None, None)


def test_the_same_run_is_recorded_once(store):
    key = record_run(store)
    path = store.home / "provenance" / f"{key}.json"
    written = path.stat().st_mtime_ns
    assert record_run(store) == key
    assert path.stat().st_mtime_ns == written
    ((found, document),) = store.records("provenance")
    assert found == key == content_hash(document)


def test_every_result_refers_to_its_provenance(compare_tiny, write_learner, store):
    broken = write_learner("broken", "raise RuntimeError")
    compare_tiny("--features", "broken", "--regimes", "U", "--draws", "1", plugins=[broken])
    results = [document for _, document in store.records("results")]
    ((key, document),) = store.records("provenance")
    assert [result["provenance"] for result in results] == [key] * 3
    assert {result["status"] for result in results} == {"ok", "failed"}
    assert document["versions"]["torch"] == importlib.metadata.version("torch")


def test_provenance_is_no_part_of_a_key(compare_tiny, monkeypatch):
    first = compare_tiny("--regimes", "R")
    monkeypatch.setattr("featbench.store.provenance.platform.python_version", lambda: "another")
    again = compare_tiny("--regimes", "R")
    assert "nothing to compute" in again.err
    assert again.rows == first.rows
