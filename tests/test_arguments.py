"""Arguments of Python callers: what is made plain, and what is refused under which name."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from featbench.arguments import (
    naming_arguments,
    read_integer,
    read_list,
    read_mapping,
    read_number,
    read_path,
    show,
    suggest_arguments,
    unwrap_scalar,
)
from featbench.errors import DataError, FeatbenchError, UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.True_, True),
        (np.str_("a"), "a"),
        (np.array(3), 3),
        (np.array("a"), "a"),
        (torch.tensor(3), 3),
        (torch.tensor(True), True),
        (3, 3),
        ("a", "a"),
        (None, None),
    ],
)
def test_scalars_become_those_of_python(scalar, plain):
    assert unwrap_scalar(scalar) == plain
    assert type(unwrap_scalar(scalar)) is type(plain)


def test_what_has_elements_is_no_scalar():
    for value in (np.array([3]), torch.ones(1), [3], {"a": 3}):
        assert unwrap_scalar(value) is value


@pytest.mark.parametrize("value", ["3", None, True, np.nan, np.inf, 1j, [1.0], 10**400, np.array([1.0])])
def test_a_number_is_finite_and_real(value):
    assert [read_number("rate", one) for one in (3, np.float16(0.5), np.int8(-1))] == [3.0, 0.5, -1.0]
    with pytest.raises(UsageError, match=r"^rate takes a finite number, not "):
        read_number("rate", value)


def test_a_path_has_its_home_folder_and_is_not_empty(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    found = [read_path("home", one) for one in ("~/x", Path("~/x"), "~", "a~/x", "~nobody-at-all/x", np.str_("x"))]
    expected = ["/home/someone/x", "/home/someone/x", "/home/someone", "a~/x", "~nobody-at-all/x", "x"]
    assert found == [Path(one) for one in expected]
    for value in ("", b"x", 3, None, ["x"], "a\0b", True):
        with pytest.raises(UsageError, match=r"^home takes a path, not "):
            read_path("home", value)


def test_the_elements_of_a_list_come_in_order_but_for_those_of_a_set():
    assert read_list("names", ("b", "a")) == ["b", "a"]
    assert read_list("names", {"b", "c", "a"}) == ["a", "b", "c"]
    assert read_list("names", np.array([2, 1])) == [2, 1]
    assert [type(one) for one in read_list("names", np.array([2, 1]))] == [int, int]


def test_a_mapping_has_names():
    assert read_mapping("settings", {np.str_("a"): np.int64(1)}) == {"a": 1}
    for value in ([("a", 1)], "a=1", None, 3, {1: 2}, {None: 2}):
        with pytest.raises(UsageError, match=r"^settings takes a mapping of names to values"):
            read_mapping("settings", value)


def test_a_value_that_is_long_is_shown_as_what_it_is():
    assert show(np.float64(0.5)) == "0.5"
    assert show(np.zeros((30, 40))) == "ndarray of shape [30, 40]"
    assert show(list(range(100))) == "list"
    with pytest.raises(UsageError, match=r"^seed takes an integer, not ndarray of shape \[99\]$"):
        read_integer("seed", np.zeros(99))


@suggest_arguments
def greet(name: str, *, loud: bool = False) -> str:
    """Greet somebody."""
    return name.upper() if loud else name


def test_an_unknown_argument_is_named_with_the_one_that_was_meant():
    assert (greet("a"), greet(name="a", loud=True)) == ("a", "A")
    assert list(inspect.signature(greet).parameters) == ["name", "loud"]
    assert greet.__doc__ == "Greet somebody."
    with pytest.raises(TypeError, match=r"keyword argument 'laud': did you mean 'loud'\?$"):
        greet("a", laud=True)
    with pytest.raises(TypeError, match=r"^greet\(\) got an unexpected keyword argument 'xyz'$"):
        greet("a", xyz=True)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        greet()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("--draws must be at least 1", "draws must be at least 1"),
        ("ask for fewer with --train-per-class", "ask for fewer with train_per_class"),
        ("use --device cpu or --device auto", "use device cpu or device auto"),
        ("a smaller one, as in --refine batch=8", "a smaller one, as in refinement batch=8"),
        ("(--seed)", "(seed)"),
        ("there is no file /a--b/--c", "there is no file /a--b/--c"),
        ("a -- b --- c --", "a -- b --- c --"),
    ],
)
def test_errors_name_arguments_in_place_of_options(said, expected):
    with pytest.raises(UsageError) as caught, naming_arguments(refine="refinement"):
        raise UsageError(said)
    assert str(caught.value) == expected


def test_errors_keep_their_kind_and_those_of_others_their_words():
    with pytest.raises(UnknownNameError, match="unknown option of draws 'a'"), naming_arguments():
        raise UnknownNameError("option of --draws", "a", ["b"])
    with pytest.raises(KeyError, match="--draws"), naming_arguments():
        raise KeyError("--draws")


def test_what_callers_do_wrong_is_a_value_error():
    assert issubclass(UsageError, ValueError)
    assert issubclass(DataError, ValueError)
    assert not issubclass(FeatbenchError, ValueError)
