from pathlib import Path

import pytest

from featbench.data.folder import find_file, find_folder, resolve_data_folder
from featbench.errors import DataError


@pytest.mark.parametrize("given", ["data", Path("data")])
def test_the_folder_that_is_given_goes_before_that_of_the_environment(monkeypatch, given):
    monkeypatch.setenv("FEATBENCH_DATA", "elsewhere")
    assert resolve_data_folder(given) == Path("data")


@pytest.mark.parametrize("given", [None, ""])
def test_the_environment_names_the_folder_where_none_is_given(monkeypatch, given):
    monkeypatch.setenv("FEATBENCH_DATA", "elsewhere")
    assert resolve_data_folder(given) == Path("elsewhere")


@pytest.mark.parametrize("given", [None, ""])
def test_nothing_and_what_is_empty_name_no_folder(monkeypatch, given):
    monkeypatch.delenv("FEATBENCH_DATA", raising=False)
    assert resolve_data_folder(given) is None
    monkeypatch.setenv("FEATBENCH_DATA", "")
    assert resolve_data_folder(given) is None


def test_a_file_in_the_sets_own_folder_goes_before_one_beside_it_and_the_first_name_before_others(tmp_path):
    (tmp_path / "set").mkdir()
    for path in ("set/b", "a", "b"):
        (tmp_path / path).write_text("")
    assert find_file(tmp_path, "set", "set", "a", "b") == tmp_path / "set/b"
    (tmp_path / "set/a").write_text("")
    assert find_file(tmp_path, "set", "set", "a", "b") == tmp_path / "set/a"
    for path in ("set/a", "set/b"):
        (tmp_path / path).unlink()
    assert find_file(tmp_path, "set", "set", "b", "a") == tmp_path / "b"


def test_a_folder_of_the_name_is_not_the_file(tmp_path):
    (tmp_path / "set/a").mkdir(parents=True)
    with pytest.raises(DataError, match=f"set: a is neither in {tmp_path / 'set'} nor in {tmp_path}: put it there"):
        find_file(tmp_path, "set", "set", "a")


def test_without_a_data_folder_the_message_says_how_to_name_one():
    with pytest.raises(DataError, match=r"data set set needs a: set FEATBENCH_DATA or --data-dir .* data fetch set"):
        find_file(None, "set", "set", "a", "b")


def test_the_first_folder_that_exists_is_found(tmp_path):
    assert find_folder(tmp_path, ["a", Path("b", "c")]) is None
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "a").write_text("a file")
    assert find_folder(tmp_path, ["a", Path("b", "c")]) == tmp_path / "b/c"
    assert find_folder(tmp_path, ["b", Path("b", "c")]) == tmp_path / "b"
