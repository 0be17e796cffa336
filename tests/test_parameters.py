from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.errors import UnknownNameError, UsageError
from featbench.parameters import Choice, Parametrised


@dataclass(frozen=True)
class Thing(Parametrised):
    name: ClassVar[str] = "thing"

    flag: bool = True
    count: int = 3
    weight: float = 0.5
    kind: str = "plain"

    def __post_init__(self):
        if self.count < 0:
            raise ValueError("count must not be negative")


class Bare(Parametrised):
    name = "bare"


values = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.from_regex(r"[a-z][a-z-]{0,6}", fullmatch=True)
names = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
words = ("true", "false", "inf", "nan", "infinity")
safe = values.filter(lambda value: value not in words)


@settings(derandomize=True, deadline=None, database=None, max_examples=200)
@given(names, st.dictionaries(names, safe, max_size=4))
def test_a_choice_is_read_as_it_is_printed(name, parameters):
    choice = Choice.of(name, parameters)
    read = Choice.read(str(choice))
    assert read == choice
    assert [type(value) for _, value in read.parameters] == [type(value) for _, value in choice.parameters]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thing", Choice("thing")),
        (" thing () ", Choice("thing")),
        ("thing(b=1,a=x)", Choice("thing", (("a", "x"), ("b", 1)))),
        ("thing( a = 1e3 , b = -2 )", Choice("thing", (("a", 1000.0), ("b", -2)))),
        ("thing(a=TRUE,b=False)", Choice("thing", (("a", True), ("b", False)))),
        ("thing(a=,b=1,)", Choice("thing", (("a", ""), ("b", 1)))),
    ],
)
def test_spellings_are_read(text, expected):
    read = Choice.read(text)
    assert read == expected
    assert [type(value) for _, value in read.parameters] == [type(value) for _, value in expected.parameters]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot read '': write NAME or NAME\(parameter=value"),
        ("thing(a=1", "cannot read 'thing"),
        ("thing)", "cannot read 'thing"),
        ("thing other", "cannot read 'thing other'"),
        ("(a=1)", "cannot read"),
        ("thing(a)", r"cannot read 'a' in 'thing\(a\)': write parameter=value"),
        ("thing(a=1,b=2,a=3)", r"'thing\(a=1,b=2,a=3\)' gives a twice"),
    ],
)
def test_what_cannot_be_read_is_said(text, message):
    with pytest.raises(UsageError, match=message):
        Choice.read(text)


def test_a_thing_is_built_with_its_parameters():
    thing = Thing.create({"count": 7, "kind": "odd"})
    assert thing == Thing(count=7, kind="odd")
    assert thing.parameters() == {"flag": True, "count": 7, "weight": 0.5, "kind": "odd"}
    assert Bare.create({}).parameters() == {}


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"cuont": 1}, UnknownNameError, "unknown parameter of thing 'cuont': did you mean 'count'"),
        ({"name": "other"}, UnknownNameError, "unknown parameter of thing 'name'"),
        ({"flag": 1}, UsageError, "thing: parameter flag takes a bool, not 1"),
        ({"count": True}, UsageError, "thing: parameter count takes a int, not True"),
        ({"count": 1.0}, UsageError, "thing: parameter count takes a int, not 1.0"),
        ({"weight": "much"}, UsageError, "thing: parameter weight takes a float, not 'much'"),
        ({"weight": True}, UsageError, "thing: parameter weight takes a float, not True"),
        ({"weight": float("nan")}, UsageError, "thing: parameter weight takes a float, not nan"),
        ({"weight": float("inf")}, UsageError, "thing: parameter weight takes a float, not inf"),
        ({"kind": 3}, UsageError, "thing: parameter kind takes a str, not 3"),
        ({"count": -1}, UsageError, "thing: count must not be negative"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, error, message):
    with pytest.raises(error, match=message):
        Thing.create(parameters)


def test_what_has_no_parameters_takes_none():
    with pytest.raises(UnknownNameError, match="unknown parameter of bare 'x': known: none"):
        Bare.create({"x": 1})


def test_a_choice_leaves_out_defaults_and_has_one_type_for_each_parameter():
    assert Thing.choice({}) == Thing.choice({"weight": 0.5, "flag": True, "count": 3}) == Choice("thing")
    choice = Thing.choice({"weight": 2, "count": 4})
    assert str(choice) == str(Thing.choice({"count": 4, "weight": 2.0})) == "thing(count=4,weight=2.0)"
    assert Thing.create(dict(choice.parameters)) == Thing(weight=2, count=4)
    assert str(Bare.choice({})) == "bare"
