"""Keywords of `featbench.compare`: what is taken, in what form, and what is refused under which name."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import featbench
from featbench.errors import UnknownNameError, UsageError
from featbench.experiment.keywords import read_plugins, read_request, read_track
from featbench.experiment.request import Request
from featbench.parameters import Choice
from featbench.registry import Registry


@pytest.fixture(scope="module")
def registry():
    return Registry()


def built_in(registry, name, **parameters):
    return registry.learner(name).create(parameters)


class Unregistered(featbench.FilterLearner):
    name, family = "unregistered", "random"

    def filters(self, bank, patches, seed):
        return np.zeros(bank.shape)


class Impostor(Unregistered):
    name = "psd"


@dataclass(frozen=True)
class Wordy(Unregistered):
    name: ClassVar[str] = "wordy"

    text: str = ""


class WordyPlugin:
    @featbench.hookimpl
    def featbench_learners(self):
        return [Wordy]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"features": "psd"}, ["psd"]),
        ({"features": "random, psd(lam=0.5,updates=3)"}, ["random", "psd(lam=0.5,updates=3)"]),
        ({"features": np.str_("psd")}, ["psd"]),
        ({"features": np.array("psd")}, ["psd"]),
        ({"features": ("random", "psd")}, ["random", "psd"]),
        ({"features": np.array(["random", "psd"])}, ["random", "psd"]),
        ({"features": np.array(["random", "psd"], dtype=object)}, ["random", "psd"]),
        ({"features": pd.Series(["random", "psd"])}, ["random", "psd"]),
        ({"features": pd.Index(["random", "psd"])}, ["random", "psd"]),
        ({"features": {"random", "psd", "gabor"}}, ["gabor", "psd", "random"]),
        ({"features": frozenset(["random", "psd"])}, ["psd", "random"]),
        ({"features": {"random": 1, "psd": 2}.keys()}, ["random", "psd"]),
        ({"features": (name for name in ["random", "psd"])}, ["random", "psd"]),
        ({"regimes": "R"}, ["R"]),
        ({"regimes": "R,U+"}, ["R", "U+"]),
        ({"regimes": ("R", "U")}, ["R", "U"]),
        ({"regimes": {"U", "R"}}, ["R", "U"]),
        ({"classifiers": "knn(k=3)"}, ["knn(k=3)"]),
        ({"classifiers": np.array(["knn", "logistic"])}, ["knn", "logistic"]),
    ],
)
def test_names_come_in_whatever_holds_them(registry, given, expected):
    ((name, _),) = given.items()
    found = getattr(read_request(registry, given), name)
    assert found == expected
    assert {type(one) for one in found} == {str}


@pytest.mark.parametrize("name", ["features", "regimes", "classifiers"])
@pytest.mark.parametrize("value", ["", " , ", [], (), set(), np.array([]), iter([]), pd.Series([], dtype=object)])
def test_a_list_without_a_name_is_refused(registry, name, value):
    with pytest.raises(UsageError, match=f"^{name} is empty: name at least one, or leave the argument out$"):
        read_request(registry, {name: value})


@pytest.mark.parametrize("name", ["features", "regimes", "classifiers"])
@pytest.mark.parametrize("value", [3, 3.0, True, b"psd", {"psd": {}}, [None], ["R", 3], [["R"]], np.ones((2, 2)), [""]])
def test_what_are_no_names_is_refused(registry, name, value):
    with pytest.raises(UsageError, match=f"^{name} takes "):
        read_request(registry, {name: value})


def test_learners_and_classifiers_are_given_as_classes_and_instances_too(registry):
    psd = registry.learner("psd")
    request = read_request(
        registry, {"features": [psd, psd(lam=0.5), "random"], "classifiers": registry.classifier("knn")}
    )
    assert request.features == ["psd", "psd(lam=0.5)", "random"]
    assert request.classifiers == ["knn"]
    assert read_request(registry, {"features": psd}).features == ["psd"]
    knn = registry.classifier("knn(k=3)")
    assert read_request(registry, {"classifiers": [type(knn), knn]}).classifiers == ["knn", "knn(k=3)"]


def test_what_a_learner_is_written_as_is_read_as_the_same_learner(registry):
    psd = registry.learner("psd")
    for learner in (psd(rate=1e-5), psd(lam=2), psd(centre=False, nonlinearity="shrink")):
        (text,) = read_request(registry, {"features": [learner]}).features
        assert psd.create(dict(Choice.read(text).parameters)) == learner


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (Unregistered, UnknownNameError, "unknown learner 'unregistered'"),
        (Unregistered(), UnknownNameError, "unknown learner 'unregistered'"),
        (Impostor, UsageError, "features: psd is registered as another class than the one given"),
        (Impostor(), UsageError, "features: psd is registered as another class than the one given"),
        (featbench.FilterLearner, UsageError, "features takes names"),
        (dict, UsageError, "features takes names"),
        (featbench.Refinement(), UnknownNameError, "unknown learner 'refine'"),
    ],
)
def test_only_learners_that_are_registered_are_taken(registry, value, error, message):
    with pytest.raises(error, match=message):
        read_request(registry, {"features": value})


@pytest.mark.parametrize("text", ["a,b", "a|b", "3", "true", " a", "1e5"])
def test_an_instance_whose_parameters_cannot_be_written_is_refused(text):
    known = Registry([WordyPlugin()])
    assert read_request(known, {"features": Wordy("plain")}).features == ["wordy(text=plain)"]
    with pytest.raises(UsageError, match=r"^features: .* has parameters that cannot be written as text"):
        read_request(known, {"features": Wordy(text)})


@pytest.mark.parametrize("name", ["draws", "seed", "train_per_class", "test_per_class"])
@pytest.mark.parametrize("value", [np.int64(5), np.uint8(5), np.int16(5), np.array(5), torch.tensor(5), 5])
def test_integers_of_numpy_are_integers(registry, name, value):
    found = getattr(read_request(registry, {name: value}), name)
    assert (found, type(found)) == (5, int)


@pytest.mark.parametrize("name", ["draws", "seed", "train_per_class", "test_per_class"])
@pytest.mark.parametrize("value", [True, np.True_, 5.0, np.float64(5), np.nan, [5], np.array([5]), (5,), b"5", 5j])
def test_what_is_no_integer_is_refused(registry, name, value):
    with pytest.raises(UsageError, match=f"^{name} takes an integer, not "):
        read_request(registry, {name: value})


def test_a_seed_is_any_integer_and_is_needed(registry):
    assert [read_request(registry, {"seed": seed}).seed for seed in (-1, 0, 2**70)] == [-1, 0, 2**70]
    for seed in (None, "0", "7"):
        with pytest.raises(UsageError, match=f"^seed takes an integer, not {seed!r}"):
            read_request(registry, {"seed": seed})


def test_numbers_of_images_may_be_text_as_on_the_command_line(registry):
    request = read_request(registry, {"train_per_class": "all", "test_per_class": np.str_("5"), "draws": None})
    assert (request.train_per_class, request.test_per_class, request.draws) == ("all", "5", None)


@pytest.mark.parametrize(
    ("refine", "expected"),
    [
        ({"epochs": 30}, "epochs=30"),
        ({"epochs": np.int64(30), "rate": np.float32(0.5)}, "epochs=30,rate=0.5"),
        ({"rate": 1}, "rate=1"),
        ({"refit": True}, "refit=True"),
        ({"optimizer": "sgd", "momentum": 0.5}, "optimizer=sgd,momentum=0.5"),
        ("epochs=30", "epochs=30"),
        ({}, ""),
    ],
)
def test_settings_of_refinement_are_a_text_or_a_mapping(registry, refine, expected):
    found = read_request(registry, {"refine": refine}).refine
    assert found == expected
    assert featbench.Refinement.read(found) == featbench.Refinement.create(
        dict(Choice.read(f"refine({found})").parameters)
    )


def test_a_refinement_has_all_settings(registry):
    settings = featbench.Refinement(epochs=3, shift=2.5, flip=True)
    text = read_request(registry, {"refine": settings}).refine
    assert featbench.Refinement.read("epochs=9,optimizer=sgd,rate=0.3", text) == settings


@pytest.mark.parametrize(
    ("refine", "message"),
    [
        ({"epoch": 3}, "unknown parameter of refine 'epoch': did you mean 'epochs'"),
        ({"epochs": 0}, "refine: epochs must be at least 1"),
        ({"epochs": 3.5}, "refine: parameter epochs takes an int, not 3.5"),
        ({"epochs": [3, 4]}, r"refine: parameter epochs takes an int, not \[3, 4\]"),
        ({"rate": np.inf}, "refine: parameter rate takes a finite float, not inf"),
        ({3: 4}, "refine takes a mapping of names to values, and 3 is no name"),
        (featbench.Refinement(epochs=2.5), "refine: parameter epochs takes an int, not 2.5"),
        ([("epochs", 3)], "refine takes a text or a mapping"),
        ({"epochs"}, "refine takes a text or a mapping"),
        (3, "refine takes a text or a mapping"),
        (True, "refine takes a text or a mapping"),
    ],
)
def test_settings_of_refinement_that_make_no_sense_are_refused(registry, refine, message):
    with pytest.raises(UsageError, match=message):
        read_request(registry, {"refine": refine})


def test_paths_are_paths_with_the_home_folder_put_in(registry, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    for given, expected in [
        ({"dataset": Path("photos")}, "folder:photos"),
        ({"dataset": Path("~/photos")}, "folder:/home/someone/photos"),
        ({"dataset": "digits"}, "digits"),
        ({"unlabelled": Path("~/x")}, "/home/someone/x"),
        ({"unlabelled": "~/x"}, "/home/someone/x"),
        ({"unlabelled": "training+~/x"}, "training+/home/someone/x"),
        ({"unlabelled": "training+berkeley"}, "training+berkeley"),
    ]:
        ((name, _),) = given.items()
        assert getattr(read_request(registry, given), name) == expected


def test_an_architecture_and_a_device_are_taken_as_they_print(registry):
    architecture = featbench.Architecture.parse("4F3-Rabs > 8F3:2-PA2/2")
    request = read_request(registry, {"stages": architecture, "device": torch.device("cpu")})
    assert (request.stages, request.device) == (str(architecture), "cpu")


@pytest.mark.parametrize("name", ["protocol", "dataset", "stages", "device", "precision", "unlabelled", "channels"])
@pytest.mark.parametrize("value", [3, True, ["digits"], b"digits", "", " "])
def test_what_is_no_text_is_refused(registry, name, value):
    with pytest.raises(UsageError, match=f"^{name} takes a text, not "):
        read_request(registry, {name: value})


def test_none_leaves_open_what_can_be_left_open(registry):
    names = ("protocol", "dataset", "features", "regimes", "classifiers", "stages", "draws", "unlabelled", "refine")
    assert read_request(registry, dict.fromkeys(names)) == Request()
    for name in ("seed", "device", "precision", "thorough"):
        with pytest.raises(UsageError, match=f"^{name} takes "):
            read_request(registry, {name: None})


@pytest.mark.parametrize("value", [1, 0, "yes", "", None, [], np.int64(1)])
def test_a_flag_is_true_or_false(registry, value):
    assert read_request(registry, {"thorough": np.True_}).thorough is True
    with pytest.raises(UsageError, match=r"^thorough takes True or False, not "):
        read_request(registry, {"thorough": value})


def test_one_plugin_need_not_be_in_a_list(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    plugin = SimpleNamespace()
    for given, expected in [
        ("p.py", [Path("p.py")]),
        (Path("p.py"), [Path("p.py")]),
        (np.str_("p.py"), [Path("p.py")]),
        ("~/p.py", [Path("/home/someone/p.py")]),
        (np, [np]),
        (plugin, [plugin]),
        (("p.py", plugin), [Path("p.py"), plugin]),
        ({"q.py", "p.py"}, [Path("p.py"), Path("q.py")]),
        (np.array(["p.py"]), [Path("p.py")]),
        ([], []),
        ((), []),
        (None, []),
    ]:
        assert read_plugins(given) == expected


@pytest.mark.parametrize("value", [3, [3], [None], {"p.py": 1}, b"p.py", [b"p.py"], True, "", [""], [["p.py"]], [{}]])
def test_what_are_no_plugins_is_refused(value):
    with pytest.raises(UsageError, match=r"^plugins takes "):
        read_plugins(value)


def test_tracking_is_an_address_or_a_flag():
    assert [read_track(one) for one in (True, np.False_, "http://x", Path("/x"))] == [True, False, "http://x", "/x"]
    for value in (None, 1, 0, "", [], b"http://x"):
        with pytest.raises(UsageError, match=r"^track takes True, False or the address"):
            read_track(value)
