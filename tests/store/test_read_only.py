"""A store that cannot be written: its results are read, and what is missing is an error before anything is computed."""

import errno
import os

import pytest

from featbench.store.store import Store


def fail_with(number):
    def fail(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    return fail


REASONS = [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOLCK, errno.ESTALE]
"""What the disk may say; permissions alone would not stop a test that runs as root."""


@pytest.fixture(params=REASONS, ids=lambda number: errno.errorcode[number])
def read_only(request):
    """Write nothing for as long as the context lasts."""

    def stop(monkeypatch):
        monkeypatch.setattr("featbench.store.records.write_atomically", fail_with(request.param))
        return os.strerror(request.param)

    return stop


def list_files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_store_whose_results_suffice_prints_its_table(compare_tiny, home, read_only, log):
    first = compare_tiny("--regimes", "R", "--quiet")
    before = list_files(home)
    with pytest.MonkeyPatch.context() as patch:
        reason = read_only(patch)
        again = compare_tiny("--regimes", "R", track=True)
        quiet = compare_tiny("--regimes", "R", "--quiet")
    assert (again.code, quiet.code) == (0, 0)
    assert again.rows == quiet.rows == first.rows
    assert quiet.err == ""
    assert "nothing to compute: all 6 cells were in the store" in again.err
    assert f"the store {home} cannot be written ({reason}): it holds all results, and nothing is tracked" in again.err
    assert list_files(home) == before


def test_a_store_whose_results_do_not_suffice_is_an_error_before_anything_is_computed(
    compare_tiny, write_learner, home, read_only, log
):
    learner = write_learner("counted")
    compare_tiny("--regimes", "R", "--quiet")
    before = list_files(home)
    with pytest.MonkeyPatch.context() as patch:
        reason = read_only(patch)
        ran = compare_tiny("--features", "counted", "--regimes", "U", "--quiet", plugins=[learner])
    assert (ran.code, ran.out, log.count("counted")) == (2, "", 0)
    assert f"cannot write {home}: {reason}; 2 of 6 cells are not in it, the first: counted U nearest draw 0" in ran.err
    assert "--home or FEATBENCH_HOME" in ran.err
    assert list_files(home) == before


def test_an_empty_store_is_an_error_before_images_are_read(compare_tiny, home, read_only, log):
    with pytest.MonkeyPatch.context() as patch:
        reason = read_only(patch)
        ran = compare_tiny("--regimes", "R", "--quiet")
    assert (ran.code, ran.out, log.lines()) == (2, "", [])
    assert f"cannot write {home}: {reason}; it holds no results on tiny" in ran.err


def test_a_plan_needs_no_store_that_can_be_written(compare_tiny, home, read_only):
    with pytest.MonkeyPatch.context() as patch:
        read_only(patch)
        ran = compare_tiny("--regimes", "R", "--plan")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "6 cells")
    assert not home.exists()


def test_a_failed_cell_is_not_tried_again_where_nothing_can_be_kept(compare_tiny, write_learner, home, read_only):
    learner = write_learner("broken", "raise RuntimeError('on purpose')", "random")
    options = ("--features", "broken", "--regimes", "R", "--quiet")
    assert compare_tiny(*options, plugins=[learner]).code == 1
    with pytest.MonkeyPatch.context() as patch:
        read_only(patch)
        shown = compare_tiny(*options, plugins=[learner])
        retried = compare_tiny(*options, "--retry", plugins=[learner])
    assert (shown.code, shown.row("broken")["status"]) == (1, "failed")
    assert retried.code == 2
    assert "2 of 6 cells are not in it" in retried.err


def test_damage_in_a_store_that_cannot_be_written_is_said_and_counts_as_missing(compare_tiny, home, monkeypatch):
    compare_tiny("--regimes", "R", "--quiet")
    next((home / "results").glob("*.json")).write_text("garbage")
    with monkeypatch.context() as patch:
        patch.setattr("featbench.store.records.write_atomically", fail_with(errno.EROFS))
        patch.setattr(os, "replace", fail_with(errno.EROFS))
        ran = compare_tiny("--regimes", "R", "--quiet")
    assert ran.code == 2
    assert "is damaged, and cannot be moved away (Read-only file system): it is not used" in ran.err
    assert "1 of 6 cells are not in it" in ran.err


def test_a_store_with_a_folder_that_belongs_to_somebody_else_cannot_be_written(store, monkeypatch):
    store.write_record("results", "key", {})
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "results" not in str(path) and access(path, mode))
    assert Store(store.home).write_problem == "results: Permission denied"


@pytest.mark.parametrize("number", REASONS, ids=lambda number: errno.errorcode[number])
def test_a_disk_that_fails_while_results_are_written_keeps_those_that_are_finished(
    compare_tiny, write_learner, home, log, monkeypatch, number
):
    learner, sync = write_learner("counted"), os.fsync
    options = ("--features", "counted", "--regimes", "U", "--draws", "3", "--quiet")

    def fill_up(descriptor):
        if log.count("counted") == 2:
            fail_with(number)()
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_up)
        ran = compare_tiny(*options, plugins=[learner])
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert os.strerror(number) in ran.err
    assert list(home.rglob("*.tmp")) == []
    assert compare_tiny(*options, plugins=[learner]).row("counted")["n"] == 3
    assert log.count("counted") == 4
