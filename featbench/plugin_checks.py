"""What the registry asks of a plugin before it takes what the plugin gives: mistakes are named where they were made."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from featbench.built_in import Command
from featbench.classification.classifier import AnyClassifier
from featbench.data.dataset import Dataset
from featbench.errors import PluginError, UnknownNameError
from featbench.evaluation.metrics import Metric
from featbench.evaluation.protocol import Protocol
from featbench.evaluation.published import PublishedTable
from featbench.evaluation.regimes import Family
from featbench.evaluation.task import TASKS
from featbench.learning.learner import FeatureLearner, FilterLearner, NetworkLearner

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


class MissingMetricError(PluginError):
    """A protocol whose metric no plugin has given yet."""


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
    name = getattr(thing, "name", None)
    # Names are written in lists with commas, with parameters in brackets, and in paths of leaderboard entries.
    if not isinstance(name, str) or not name or set(name) & set(",()/\\ "):
        raise PluginError(f"{thing!r} needs a name: a word without spaces, commas, slashes or brackets")
    return name


def _check_learner(learner: type[FeatureLearner]) -> None:
    if getattr(learner, "family", None) not in FAMILIES:
        raise PluginError(f"{learner.__name__}.family must be one of {', '.join(FAMILIES)}")
    abstract = getattr(learner, "__abstractmethods__", None)
    if abstract:
        raise PluginError(f"{learner.__name__} does not define {', '.join(sorted(abstract))}")
    # One that refuses its own defaults would break every comparison that names it, and the list of learners.
    learner.create({})


def check_protocol(protocol: Protocol, metrics: Mapping[str, Metric]) -> None:
    """Refuse a protocol that names an unknown metric or task: what it scores would bear a name that means nothing."""
    for kind, name in (("metric", protocol.metric), ("task", protocol.task)):
        if not isinstance(name, str):
            raise PluginError(f"protocol {protocol.name}: its {kind} must be the name of one, not {name!r}")
    if protocol.metric not in metrics:
        raise MissingMetricError(f"protocol {protocol.name}: {UnknownNameError('metric', protocol.metric, metrics)}")
    if protocol.task not in TASKS:
        raise PluginError(f"protocol {protocol.name}: {UnknownNameError('task', protocol.task, TASKS)}")
