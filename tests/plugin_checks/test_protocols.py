"""Fields of protocols that make no sense are refused when the protocol registers, each by its name."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

import featbench
from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Baseline, Protocol, Selection
from featbench.registry import Registry

GIVEN = {
    "name": "mine",
    "summary": "",
    "dataset": "digits",
    "architecture": "4F3",
    "preprocessing": Preprocessing(),
    "train_per_class": 2,
    "test": "rest",
    "features": ("random",),
}


def register(**changes):
    protocol = Protocol(**{**GIVEN, **changes})
    return Registry([SimpleNamespace(featbench_protocols=featbench.hookimpl(lambda: [protocol]))])


WRONG = {
    "train_per_class": [1, 0, -3, 2.5, "x", "5", True, np.int64(5), float("nan"), (5,), [5], 1j],
    "test_per_class": [0, -1, 2.5, "all", True, np.int64(3), float("inf"), [3], "", {}],
    "draws": [0, -1, None, 1.0, "5", True, np.int64(3), float("nan"), [1], ()],
    "validation_fraction": [0, 1, 0.0, 1.0, -0.1, 1.5, None, "1/6", float("nan"), True, np.float32(0.5)],
    "test": ["other", "Rest", "", None, 1, "held_out", True, b"rest", ("rest",), "fixed "],
    "features": [(), [], "random", None, 3, {"random"}, (3,), ("",), (None,), ("psd(lam",), ("a b",), ("psd(lam)",)],
    "regimes": [(), "R", None, ("Q",), ("R", "r"), (1,), ("",), {"R"}, ("R,U",), ("R R",), (None,)],
    "classifiers": [(), "logistic", None, (3,), ("knn(k",), ("",), {"knn"}, iter(("knn",)), ("knn(k=1,k=2)",)],
    "architecture": ["", None, "64", "64F", "x", 3, "4F3-", "4F3 >", "4F3-what", ("4F3",), "0F3"],
    "architectures": [
        None,
        "4F3",
        [("a", "4F3")],
        {"a": "x"},
        {"a": 3},
        {3: "4F3"},
        {"": "4F3"},
        {"a": None},
        {"a": ""},
    ],
    "preprocessing": [None, "grey", {}, {"size": 3}, Preprocessing, 3, (), (8, 8), [Preprocessing()], True],
    "metric": ["", None, 3, ["accuracy"], "f1", "Accuracy", b"accuracy", True, ("accuracy",), " "],
    "task": ["", None, 3, "regression", "Classification", ["classification"], True, b"", ("classification",), " "],
    "dataset": ["", None, 3, ("digits",), b"digits", " ", True, ["digits"], {}, 1.5],
    "summary": [None, 3, b"", ["x"], True, (), {}, 1.5, object, len],
    "source": [None, 3, b"", ["x"], True, (), {}, 1.5, object, len],
    "refinement": [None, 3, "epochs", "epochs=x", "what=3", "epochs=-1", b"", {"epochs": 3}, ["epochs=3"]],
    "refinements": [
        None,
        "x",
        {"a": "what=3"},
        {"a": 3},
        {3: "epochs=3"},
        {"": ""},
        [],
        {"a": None},
        {"a": "epochs=x"},
    ],
    "baselines": [
        None,
        "chance",
        ("chance",),
        Baseline("chance"),
        (3,),
        {Baseline("chance")},
        ({"learner": "chance"},),
    ],
    "own_classifiers": [None, {"psd": "knn"}, {"psd": ()}, {3: ("knn",)}, {"": ("knn",)}, [], "psd", {"psd": (3,)}, 3],
    "thorough": ["psd", ("psd",), {}, 3, True, Selection(features="psd"), Selection(regimes=("Q",)), Selection((3,))],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_field_that_makes_no_sense_is_refused_by_its_name(field, value):
    registry = register(**{field: value})
    (record,) = registry.broken
    assert record.error.startswith("protocol mine: ")
    assert "mine" not in registry.names("protocols")
    # Regimes, tasks, metrics and architectures are refused by what is wrong with them.
    told = (field, "regime", "cannot read", "filters", "token", "size", "position", "expected", "twice")
    assert any(word in record.error for word in told), record.error


@pytest.mark.parametrize("field", ["learner", "classifier", "otherwise", "regime"])
@pytest.mark.parametrize("value", ["", 3, ("chance",), b"x", True, "a b", "a(b"])
def test_baselines_out_of_range_are_refused(field, value):
    baseline = dataclasses.replace(Baseline("chance"), **{field: value})
    (record,) = register(baselines=(baseline,)).broken
    assert re.search(r"protocol mine: (baselines|cannot read|unknown regime)", record.error)


GOOD = [
    *({"train_per_class": value} for value in (2, 5, 10**6, None)),
    *({"test": value} for value in ("rest", "fixed", "held-out")),
    *({"validation_fraction": value} for value in (0.01, 0.5, 0.99, 1 / 6)),
    *({"test_per_class": value} for value in (1, 5, None)),
    *({"features": value} for value in (["psd"], ("psd(lam=0.5|1)", "nobody-yet"))),
    *({"regimes": value} for value in (("R",), ["RR", "U+U+"], ("fixed+",))),
    *({"preprocessing": value} for value in (Preprocessing(size=1), Preprocessing(lcn=1), Preprocessing(channels=3))),
    *({"architectures": value} for value in ({}, {"two": "4F3 > 4F3"})),
    *({"baselines": value} for value in ((), [Baseline("random", regime="R")])),
    {"refinement": "epochs=3", "refinements": {"slow": "rate=0.001"}},
    {"dataset": "nobody-yet"},
]


@pytest.mark.parametrize("given", GOOD)
def test_fields_that_make_sense_are_taken(given):
    registry = register(**given)
    assert [record.error for record in registry.broken] == []
    assert "mine" in registry.names("protocols")
