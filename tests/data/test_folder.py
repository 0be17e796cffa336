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
    assert find_file(tmp_path, "set", ["set"], "a", "b") == tmp_path / "set/b"
    (tmp_path / "set/a").write_text("")
    assert find_file(tmp_path, "set", ["set"], "a", "b") == tmp_path / "set/a"
    for path in ("set/a", "set/b"):
        (tmp_path / path).unlink()
    assert find_file(tmp_path, "set", ["set"], "b", "a") == tmp_path / "b"


@pytest.mark.parametrize(
    "spelling",
    [
        *(
            "train-a.idx",
            "train.a.idx",
            "train_a.idx",
            "Train-A.IDX",
            "train a-idx",
            "TRAIN__A--idx.gz",
            "train-a-idx.GZ",
        ),
        *("train-a-idx/train-a-idx", "train-a.idx/train.a.idx", "train-a-idx.gz/Train-a-idx.gz"),
        *("train_a_idx/train-a.idx", "train-a-idx/train-a-idx"),
    ],
)
@pytest.mark.parametrize("below", [".", "set", "set/raw"])
def test_a_file_is_found_in_the_spellings_of_unpackers_and_mirrors(tmp_path, spelling, below):
    (tmp_path / below / spelling).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / below / spelling).write_text("")
    found = find_file(tmp_path, "set", ["set", "set/raw"], "train-a-idx.gz", "train-a-idx")
    assert found == tmp_path / below / spelling


@pytest.mark.parametrize(
    "other",
    [
        *("train-a-idx.part", "train-a-idx (1)", "train-a-idx.gz.gz", "._train-a-idx", ".train-a-idx", "train-aidx"),
        *("traina-idx", "train-a-idx.zip", "xtrain-a-idx", "train-a-idx2", "train-b-idx", "train-a-idx/other"),
        *("deep/train-a-idx", "train-a-idx/train-a-idx/train-a-idx", "train-b-idx/train-a-idx"),
    ],
)
def test_another_name_is_not_taken_for_the_file(tmp_path, other):
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / other).write_text("")
    with pytest.raises(DataError, match="there is no train-a-idx in"):
        find_file(tmp_path, "set", ["set"], "train-a-idx")


def test_the_exact_name_goes_before_other_spellings_and_a_file_before_one_in_a_folder(tmp_path):
    (tmp_path / "a-b").mkdir()
    for name in ("a-b/a-b", "a.b", "A_B"):
        (tmp_path / name).write_text("")
    assert find_file(tmp_path, "set", [], "a_b", "A-b") == tmp_path / "A_B"
    assert find_file(tmp_path, "set", [], "a.b") == tmp_path / "a.b"
    (tmp_path / "a.b").unlink()
    (tmp_path / "A_B").unlink()
    assert find_file(tmp_path, "set", [], "a.b") == tmp_path / "a-b/a-b"


def test_a_file_that_is_in_no_place_is_an_error_with_names_and_places(tmp_path):
    (tmp_path / "set/a").mkdir(parents=True)
    message = f"set: there is no a or b in {tmp_path / 'set'} or {tmp_path}, in no other spelling either .* fetch set`"
    with pytest.raises(DataError, match=message):
        find_file(tmp_path, "set", ["set"], "a", "b")
    for missing in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match=f"there is no folder {missing}: set FEATBENCH_DATA or --data-dir"):
            find_file(missing, "set", ["set"], "a")


@pytest.mark.parametrize("folder", ["~/own data", "~", "~/ünï", "~/a~b", "~/./x/../y"])
@pytest.mark.parametrize("by", ["given", "path", "environment"])
def test_a_tilde_stands_for_the_users_own_folder(monkeypatch, tmp_path, folder, by):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FEATBENCH_DATA", folder if by == "environment" else "elsewhere")
    given = {"given": folder, "path": Path(folder), "environment": None}[by]
    assert resolve_data_folder(given) == Path(folder.replace("~", str(tmp_path), 1))


def test_without_a_data_folder_the_message_says_how_to_name_one():
    with pytest.raises(DataError, match=r"data set set needs a: set FEATBENCH_DATA or --data-dir .* data fetch set"):
        find_file(None, "set", ["set"], "a", "b")


def test_the_first_folder_that_exists_is_found(tmp_path):
    assert find_folder(tmp_path, ["a", Path("b", "c")]) is None
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "a").write_text("a file")
    assert find_folder(tmp_path, ["a", Path("b", "c")]) == tmp_path / "b/c"
    assert find_folder(tmp_path, ["b", Path("b", "c")]) == tmp_path / "b"
