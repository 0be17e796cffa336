"""Parameters that no user could write, and attributes of the wrong kind, are refused by name when a plugin loads."""

from textwrap import indent

import pytest

from featbench.errors import UnknownNameError
from featbench.registry import Registry

HEAD = """
import dataclasses, enum, pathlib, typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Optional, Union
import numpy as np
import featbench

class Colour(str, enum.Enum):
    RED = "red"

"""

LEARNER = """
@dataclass(frozen=True)
class Mine(featbench.FilterLearner):
    name = "mine"
    family = "fixed"
{body}
    def filters(self, bank, patches, seed):
        return np.ones(bank.shape, np.float32)

@featbench.hookimpl
def featbench_learners():
    return [Mine]
"""

CLASSIFIER = """
@dataclass(frozen=True)
class Mine(featbench.Classifier):
    name = "mine"
{body}
    def fit(self, features, labels, validation, classes, seed):
        return None

@featbench.hookimpl
def featbench_classifiers():
    return [Mine()]
"""

WANTED = "parameters are bool, int, float or str, each annotated and with a default"

FIELDS = {
    "list": ("u: list = field(default_factory=list)", f"Mine: parameter u is a list: {WANTED}"),
    "list of numbers": ("u: list[int] = field(default_factory=lambda: [1, 2])", "parameter u is a list"),
    "plain list": ("u: list = []", "mutable default <class 'list'> for field u"),
    "dict": ("u: dict = field(default_factory=dict)", "parameter u is a dict"),
    "set": ("u: set = field(default_factory=set)", "parameter u is a set"),
    "frozenset": ("u: frozenset = frozenset()", "parameter u is a frozenset"),
    "tuple": ("u: tuple[int, ...] = (1, 2)", "parameter u is a tuple"),
    "array": ("u: np.ndarray = field(default_factory=lambda: np.zeros(3))", "parameter u is a numpy.ndarray"),
    "numpy integer": ("u: int = np.int64(3)", "parameter u is a numpy.int64"),
    "numpy float": ("u: float = np.float64(3)", "parameter u is a numpy.float64"),
    "complex": ("u: complex = 1j", "parameter u is a complex"),
    "bytes": ("u: bytes = b'x'", "parameter u is a bytes"),
    "path": ("u: pathlib.Path = pathlib.Path('x')", "parameter u is a pathlib.*Path"),
    "function": ("u: object = len", "parameter u is a builtin_function"),
    "class": ("u: type = int", "parameter u is a type"),
    "enum": ("u: Colour = Colour.RED", r"parameter u is a featbench_file_.*\.Colour"),
    "Any without a default that tells": ("u: Any = None", f"parameter u is annotated as Any: {WANTED}"),
    "object without a default that tells": ("u: object = None", "parameter u is annotated as object"),
    "optional list": ("u: Optional[list] = None", r"parameter u is annotated as Optional\[list\]"),
    "list or None": ("u: list | None = None", r"parameter u is annotated as list \| None"),
    "number or list": ("u: Union[int, list] = 3", r"parameter u is annotated as Union\[int, list\]"),
    "array or None": ("u: np.ndarray | None = None", r"parameter u is annotated as numpy.ndarray \| None"),
    "None alone": ("u: None = None", "parameter u is annotated as NoneType"),
    "literal of bytes": ("u: Literal[b'x', 'y'] = 'y'", "parameter u is annotated as Literal"),
    "type variable": ("u: typing.TypeVar('T') = 3", "parameter u is annotated as ~T"),
    "not a number": ("u: float = float('nan')", "parameter u has the default nan: take a finite one, or None"),
    "infinity": ("u: float = float('inf')", "parameter u has the default inf"),
    "no default": ("u: int", "missing 1 required positional argument: 'u'"),
}

GOOD = (
    *(
        "u: int = 3",
        "u: float = 0.5",
        "u: bool = True",
        "u: str = 'x'",
        "u: int | None = None",
        "u: Optional[str] = None",
    ),
    *("u: Literal['a', 'b'] = 'a'", "u: float | str = 'auto'", "u: Any = 3", "u: ClassVar[list] = [1]", "u = [1]"),
    *("u: 'int' = 3", "u: 'Unknown' = 3", "_u: int = 3", "u: int = field(default=3, metadata={'x': 1})", "pass"),
)


def refuse(write_plugin, source):
    path = write_plugin("broken", HEAD + source)
    (record,) = Registry([path]).broken
    assert (record.name, record.origin) == ("broken", str(path))
    return record.error


def fill(source, body):
    return source.replace("{body}", indent(body, "    "))


@pytest.mark.parametrize("source", [LEARNER, CLASSIFIER], ids=["learner", "classifier"])
@pytest.mark.parametrize("case", FIELDS)
def test_parameters_that_no_user_could_write_are_refused(write_plugin, source, case):
    body, why = FIELDS[case]
    error = refuse(write_plugin, fill(source, body))
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(error)


@pytest.mark.parametrize("body", GOOD)
def test_parameters_that_users_can_write_are_taken(write_plugin, body):
    for source in (LEARNER, CLASSIFIER):
        assert Registry([write_plugin("good", HEAD + fill(source, body))]).broken == []


@pytest.mark.parametrize("source", [LEARNER, CLASSIFIER], ids=["learner", "classifier"])
@pytest.mark.parametrize("body", ["u: int = 3", "u: int", "u: 'float' = 2.0", "one: int = 1\nother: str = ''"])
def test_fields_of_a_class_that_is_no_dataclass_are_refused(write_plugin, source, body):
    error = refuse(write_plugin, fill(source.replace("@dataclass(frozen=True)\n", ""), body))
    assert "Mine has fields (" in error
    assert "and is no dataclass, so that they are no parameters: put @dataclass(frozen=True) above it" in error


@pytest.mark.parametrize("body", ["name: str = 'mine'", "u: ClassVar[int] = 3", "u = 3"])
def test_attributes_of_a_class_that_is_no_dataclass_are_no_fields(write_plugin, body):
    source = fill(LEARNER.replace("@dataclass(frozen=True)\n", ""), body)
    assert Registry([write_plugin("good", HEAD + source)]).broken == []


ATTRIBUTES = {
    "differentiable = 'no'": "Mine.differentiable must be a bool, not 'no'",
    "differentiable = 0": "Mine.differentiable must be a bool, not 0",
    "needs_gpu = None": "Mine.needs_gpu must be a bool, not None",
    "samples_images = 'yes'": "Mine.samples_images must be a bool, not 'yes'",
    "initial = None": "Mine.initial must be a str, not None",
    "initial = 3": "Mine.initial must be a str, not 3",
    "source = ['paper']": "Mine.source must be a str",
    "gives = 'rows'": "Mine.gives must be 'maps' or 'row', not 'rows'",
    "gives = None": "Mine.gives must be 'maps' or 'row', not None",
    "seed_bits = '32'": "Mine.seed_bits must be a int, not '32'",
    "seed_bits = True": "Mine.seed_bits must be a int, not True",
    "family = 'Fixed'": "Mine.family must be one of random, fixed, unsupervised, supervised",
    "family = None": "Mine.family must be one of",
    "name = 'two words'": "needs a name: a word without spaces",
    "name = 'a|b'": "needs a name that is plain text, without any of | = : and line breaks: not 'a|b'",
    "name = 'a=b'": "needs a name that is plain text",
    "name = 'a:b'": "needs a name that is plain text",
    "name = 'a\\nb'": "needs a name that is plain text",
    "name = 'a\\tb'": "needs a name that is plain text",
    "name = 'a\\x1b[31mb'": "needs a name that is plain text",
    "name = b'mine'": "needs a name",
    "name = None": "needs a name",
}


@pytest.mark.parametrize("body", ATTRIBUTES)
def test_attributes_of_the_wrong_kind_are_refused(write_plugin, body):
    assert ATTRIBUTES[body] in refuse(write_plugin, fill(LEARNER, body))


SIGNATURES = (
    "self",
    "self, bank",
    "self, bank, patches",
    "self, bank, patches, seed, more",
    "self, *, bank",
    "bank",
    "",
)


@pytest.mark.parametrize("given", SIGNATURES)
def test_methods_that_cannot_be_called_are_refused(write_plugin, given):
    error = refuse(write_plugin, fill(LEARNER, "").replace("self, bank, patches, seed", given))
    assert f"Mine.filters({given}) cannot be called with 3 arguments" in error
    error = refuse(
        write_plugin, fill(CLASSIFIER, "").replace("self, features, labels, validation, classes, seed", given)
    )
    assert f"Mine.fit({given}) cannot be called with 5 arguments" in error


@pytest.mark.parametrize("given", ["self, bank, patches, seed=0", "self, *given", "self, bank, patches, seed, more=1"])
def test_methods_that_can_be_called_are_taken(write_plugin, given):
    source = fill(LEARNER, "").replace("self, bank, patches, seed", given).replace("bank.shape", "1")
    assert Registry([write_plugin("good", HEAD + source)]).broken == []


RETURNED = {
    "a generator": "(one for one in [Mine])",
    "a set": "{Mine}",
    "a class": "Mine",
    "an instance": "Mine()",
    "instances": "[Mine()]",
    "a name": "['mine']",
    "the contract": "[featbench.FilterLearner]",
    "a classifier": "[featbench.Classifier]",
    "a nested list": "[[Mine]]",
    "twice the same": "[Mine, Mine]",
    "a name that is taken": "[type('Psd', (Mine,), {'name': 'psd'})]",
    "a dict": "{'mine': Mine}",
    "nothing": "None",
}


@pytest.mark.parametrize("case", RETURNED)
def test_a_hook_that_returns_something_else_is_refused_and_sinks_nobody(write_plugin, case):
    broken = write_plugin("broken", HEAD + fill(LEARNER, "").replace("return [Mine]", f"return {RETURNED[case]}"))
    good = write_plugin("good", HEAD + fill(LEARNER, "").replace('"mine"', '"good"'))
    registry = Registry([broken, good])
    assert [record.name for record in registry.broken] == ["broken"]
    assert "good" in registry.names("learners")
    assert "mine" not in registry.names("learners")


def test_an_attribute_without_annotation_is_no_parameter_and_an_error_says_so(write_plugin):
    learner = Registry([write_plugin("good", HEAD + fill(LEARNER, "u = 3\nk: int = 1"))]).learner("mine")
    with pytest.raises(UnknownNameError, match="known: k; u of Mine is no parameter, since it has no annotation"):
        learner.create({"u": 4})
    with pytest.raises(UnknownNameError, match=r"known: k$"):
        learner.create({"filters": 4})
