from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
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
def test_what_cannot_be_read_is_reported(text, message):
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
        ({"count": True}, UsageError, "thing: parameter count takes an int, not True"),
        ({"count": 1.0}, UsageError, "thing: parameter count takes an int, not 1.0"),
        ({"weight": "much"}, UsageError, "thing: parameter weight takes a float, not 'much'"),
        ({"weight": True}, UsageError, "thing: parameter weight takes a float, not True"),
        ({"weight": float("nan")}, UsageError, "thing: parameter weight takes a finite float, not nan"),
        ({"weight": float("inf")}, UsageError, "thing: parameter weight takes a finite float, not inf"),
        ({"weight": -np.inf}, UsageError, "thing: parameter weight takes a finite float, not -inf"),
        ({"weight": 10**400}, UsageError, "thing: parameter weight takes a float, not 10000"),
        ({"weight": 1 + 0j}, UsageError, r"thing: parameter weight takes a float, not \(1\+0j\)"),
        ({"weight": np.ones(1)}, UsageError, r"thing: parameter weight takes a float, not array\(\[1"),
        ({"count": np.float64(3)}, UsageError, "thing: parameter count takes an int, not 3.0"),
        ({"count": np.True_}, UsageError, "thing: parameter count takes an int, not True"),
        ({"flag": np.int64(1)}, UsageError, "thing: parameter flag takes a bool, not 1"),
        ({"flag": "yes"}, UsageError, "thing: parameter flag takes a bool, not 'yes'"),
        ({"kind": None}, UsageError, "thing: parameter kind takes a str, not None"),
        ({"kind": b"odd"}, UsageError, "thing: parameter kind takes a str, not b'odd'"),
        ({"kind": 3}, UsageError, "thing: parameter kind takes a str, not 3"),
        ({"count": -1}, UsageError, "thing: count must not be negative"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, error, message):
    with pytest.raises(error, match=message):
        Thing.create(parameters)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ({"count": np.int64(7)}, {"count": 7}),
        ({"count": np.uint8(7)}, {"count": 7}),
        ({"count": np.array(7)}, {"count": 7}),
        ({"count": torch.tensor(7)}, {"count": 7}),
        ({"weight": np.float64(0.25)}, {"weight": 0.25}),
        ({"weight": np.float32(0.25)}, {"weight": 0.25}),
        ({"weight": np.float16(0.25)}, {"weight": 0.25}),
        ({"weight": np.int32(2)}, {"weight": 2}),
        ({"flag": np.False_}, {"flag": False}),
        ({"kind": np.str_("odd")}, {"kind": "odd"}),
        ({"kind": np.array("odd")}, {"kind": "odd"}),
    ],
)
def test_scalars_of_numpy_and_torch_are_those_of_python(written, plain):
    thing = Thing.create(written)
    assert thing == Thing.create(plain)
    ((name, value),) = plain.items()
    assert type(getattr(thing, name)) is type(value)
    assert str(Thing.choice(written)) == str(Thing.choice(plain))


@dataclass(frozen=True)
class Picky(Thing):
    name: ClassVar[str] = "picky"

    def __post_init__(self):
        raise UnknownNameError("kind", self.kind, ["plane"])


def test_an_error_of_featbench_that_a_class_raises_is_passed_on_as_it_is():
    with pytest.raises(UnknownNameError, match=r"^unknown kind 'plain': did you mean 'plane'"):
        Picky.create({})


def test_what_has_no_parameters_takes_none():
    with pytest.raises(UnknownNameError, match="unknown parameter of bare 'x': known: none"):
        Bare.create({"x": 1})


def test_a_choice_leaves_out_defaults_and_has_one_type_for_each_parameter():
    assert Thing.choice({}) == Thing.choice({"weight": 0.5, "flag": True, "count": 3}) == Choice("thing")
    choice = Thing.choice({"weight": 2, "count": 4})
    assert str(choice) == str(Thing.choice({"count": 4, "weight": 2.0})) == "thing(count=4,weight=2.0)"
    assert Thing.create(dict(choice.parameters)) == Thing(weight=2, count=4)
    assert str(Bare.choice({})) == "bare"


# Several values of a parameter.


def test_several_values_are_read_and_printed():
    choice = Choice.read("psd(lam=0.2|0.5, updates = 20 | 30 |1e3,kind=a|b,rate=1)")
    assert dict(choice.parameters) == {"lam": (0.2, 0.5), "updates": (20, 30, 1000.0), "kind": ("a", "b"), "rate": 1}
    assert str(choice) == "psd(kind=a|b,lam=0.2|0.5,rate=1,updates=20|30|1000.0)"
    assert Choice.read(str(choice)) == choice
    assert hash(choice) == hash(Choice.read(str(choice)))


@settings(derandomize=True, deadline=None, database=None, max_examples=100)
@given(st.dictionaries(names, safe | st.lists(safe, min_size=2, max_size=4).map(tuple), max_size=4))
def test_choices_with_several_values_are_read_as_they_are_printed(parameters):
    choice = Choice.of("thing", parameters)
    assert Choice.read(str(choice)) == choice


def test_alternatives_are_the_product_of_all_values():
    choice = Choice.read("thing(count=1|2,kind=odd,weight=0.1|0.2|0.3)")
    assert [str(one) for one in choice.alternatives()] == [
        f"thing(count={count},kind=odd,weight={weight})" for count in (1, 2) for weight in (0.1, 0.2, 0.3)
    ]
    for plain in (Choice("thing"), Choice.read("thing(count=1)")):
        assert plain.alternatives() == [plain]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thing(weight=1|1.0)", "thing(weight=1.0)"),
        ("thing(weight=1|2)", "thing(weight=1.0|2.0)"),
        ("thing(weight=2|1|2.0|1)", "thing(weight=2.0|1.0)"),
        ("thing(weight=0.5|5e-1)", "thing"),
        ("thing(weight=0.5|1)", "thing(weight=0.5|1.0)"),
        ("thing(count=3|4,flag=true|true)", "thing(count=3|4)"),
        ("thing(flag=true|false,kind=plain)", "thing(flag=True|False)"),
        ("thing(kind=b|a,count=2|1)", "thing(count=2|1,kind=b|a)"),
    ],
)
def test_the_canonical_choice_has_each_value_once_and_of_one_type(text, expected):
    choice = Thing.choice(dict(Choice.read(text).parameters))
    assert str(choice) == expected
    assert Thing.choice(dict(choice.parameters)) == choice
    for alternative in choice.alternatives():
        Thing.create(dict(alternative.parameters))


def test_values_of_one_kind_keep_their_type():
    parameters = dict(Thing.choice({"weight": (1, 2), "count": (1, 2)}).parameters)
    assert [type(value) for value in parameters["weight"]] == [float, float]
    assert [type(value) for value in parameters["count"]] == [int, int]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("thing(weight=0.1|much)", UsageError, "thing: parameter weight takes a float, not 'much'"),
        ("thing(weight=much|0.1)", UsageError, "thing: parameter weight takes a float, not 'much'"),
        ("thing(weight=0.1|)", UsageError, "thing: parameter weight takes a float, not ''"),
        ("thing(weight=0.1|nan)", UsageError, "thing: parameter weight takes a finite float, not nan"),
        ("thing(count=1|2.5)", UsageError, "thing: parameter count takes an int, not 2.5"),
        ("thing(count=1|-1)", UsageError, "thing: count must not be negative"),
        ("thing(cuont=1|2)", UnknownNameError, "unknown parameter of thing 'cuont': did you mean 'count'"),
    ],
)
def test_a_value_that_does_not_fit_is_named_among_those_that_do(text, error, message):
    with pytest.raises(error, match=message):
        Thing.choice(dict(Choice.read(text).parameters))


def test_a_thing_is_built_with_one_value_of_each_parameter():
    with pytest.raises(UsageError, match=r"thing: parameter weight takes a float, not \(0.1, 0.2\)"):
        Thing.create({"weight": (0.1, 0.2)})
