"""What hooks must return, and what learners, classifiers and the other things must be."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import Any, get_args

from featbench.built_in import Command
from featbench.classification.classifier import AnyClassifier, Classifier, MapClassifier
from featbench.data.dataset import Dataset
from featbench.errors import PluginError
from featbench.evaluation.metrics import Metric
from featbench.evaluation.protocol import Protocol
from featbench.evaluation.published import PublishedTable
from featbench.evaluation.regimes import Family
from featbench.learning.learner import FeatureLearner, FilterLearner, NetworkLearner
from featbench.plugin_checks.parameters import check_parameters

KINDS: Mapping[str, Any] = {
    "learners": FeatureLearner,
    "classifiers": AnyClassifier,
    "datasets": Dataset,
    "metrics": Metric,
    "protocols": Protocol,
    "tables": PublishedTable,
    "commands": Command,
}
"""What plugins give, by the hook that gives it (`featbench_learners`), with the class of each thing."""

FAMILIES: tuple[str, ...] = get_args(Family)


def check_hooks(plugin: object) -> None:
    """Refuse a plugin without hooks, and one with a hook that nobody calls: pluggy would never say a word of it."""
    known = [f"featbench_{kind}" for kind in KINDS]
    # pluggy marks with a dict; whatever else answers to the name, as torch.ops does to every one, is not a hook.
    marks = {name: getattr(getattr(plugin, name, None), "featbench_impl", None) for name in dir(plugin)}
    hooks = [mark.get("specname") or name for name, mark in marks.items() if isinstance(mark, dict)]
    if not hooks:
        raise PluginError(f"it implements no hook: define one of {', '.join(known)} and mark it @featbench.hookimpl")
    for name in hooks:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise PluginError(f"unknown hook {name!r}" + (f": did you mean {close[0]!r}?" if close else ""))


def list_given(given: object, kind: str) -> list[tuple[str, Any]]:
    """Return what a hook gave, each thing with its name; raises `PluginError` for one that is not of its kind."""
    if not isinstance(given, list | tuple):
        raise PluginError(f"featbench_{kind} must return a list, not {type(given).__name__}")
    return [(_check_thing(thing, kind), thing) for thing in given]


def _check_thing(thing: object, kind: str) -> str:
    """Return the name of a learner, classifier, … that keeps its contract."""
    expected = KINDS[kind]
    if kind == "learners":
        if not (isinstance(thing, type) and issubclass(thing, FilterLearner | NetworkLearner)):
            raise PluginError(
                f"featbench_learners must return subclasses of FilterLearner or NetworkLearner, got {thing!r}"
            )
        _check_learner(thing)
    elif not isinstance(thing, expected):
        wanted = "Classifier or MapClassifier" if kind == "classifiers" else expected.__name__
        raise PluginError(f"featbench_{kind} must return instances of {wanted}, got {thing!r}")
    if isinstance(thing, Classifier | MapClassifier):
        _check_attributes(type(thing), {"source": str, "seed_bits": int})
        _check_signature(type(thing), "fit", 5)
    name = _require_name(thing)
    if kind in ("learners", "classifiers"):
        cls = thing if isinstance(thing, type) else type(thing)
        check_parameters(cls)
    return name


def _require_name(thing: object) -> str:
    name = getattr(thing, "name", None)
    # Names are written in lists with commas, with parameters in brackets, and in paths of leaderboard entries.
    if not isinstance(name, str) or not name or set(name) & set(",()/\\ "):
        raise PluginError(f"{thing!r} needs a name: a word without spaces, commas, slashes or brackets")
    if not name.isprintable() or set(name) & set("|=:"):
        raise PluginError(
            f"{thing!r} needs a name that is plain text, without any of | = : and line breaks: not {name!r}"
        )
    return name


def _check_learner(learner: type[FeatureLearner]) -> None:
    if getattr(learner, "family", None) not in FAMILIES:
        raise PluginError(f"{learner.__name__}.family must be one of {', '.join(FAMILIES)}")
    abstract = getattr(learner, "__abstractmethods__", None)
    if abstract:
        raise PluginError(f"{learner.__name__} does not define {', '.join(sorted(abstract))}")
    if learner.gives not in ("maps", "row"):
        raise PluginError(f"{learner.__name__}.gives must be 'maps' or 'row', not {learner.gives!r}")
    flags = dict.fromkeys(("differentiable", "needs_gpu", "samples_images", "constant"), bool)
    _check_attributes(learner, {"initial": str, "source": str, "seed_bits": int, **flags})
    _check_signature(learner, "filters" if issubclass(learner, FilterLearner) else "network", 3)


def _check_attributes(owner: type, kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        value = getattr(owner, name)
        # A text is true to Python, whatever it says: differentiable = "no".
        if type(value) is not kind:
            raise PluginError(f"{owner.__name__}.{name} must be a {kind.__name__}, not {value!r}")


def _check_signature(owner: type, method: str, count: int) -> None:
    """Refuse a method that cannot be called as it will be: with so many arguments besides the instance."""
    function = inspect.getattr_static(owner, method)
    if not isinstance(function, FunctionType):
        return
    try:
        inspect.signature(function).bind(*range(count + 1))
    except TypeError as error:
        raise PluginError(
            f"{owner.__name__}.{method}{inspect.signature(function)} cannot be called with {count} arguments: {error}"
        ) from None
