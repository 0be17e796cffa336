"""The registry: finds plugins, loads them one by one, and survives the broken ones."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pluggy

from featbench import hookspecs
from featbench.built_in import BUILT_IN, BUILT_IN_COMMANDS, Command
from featbench.classification.classifier import AnyClassifier
from featbench.data.dataset import Dataset
from featbench.errors import PluginError, UnknownNameError, UsageError
from featbench.evaluation.metrics import Metric
from featbench.evaluation.protocol import Protocol
from featbench.evaluation.published import PublishedTable
from featbench.evaluation.task import TASKS
from featbench.learning.learner import FeatureLearner, FilterLearner, NetworkLearner
from featbench.parameters import Choice
from featbench.system.source_files import import_file

KINDS: Mapping[str, Any] = {
    "learners": FeatureLearner,
    "classifiers": AnyClassifier,
    "datasets": Dataset,
    "metrics": Metric,
    "protocols": Protocol,
    "tables": PublishedTable,
    "commands": Command,
}


@dataclass(frozen=True)
class PluginRecord:
    """One plugin: its name, where it came from, what it gave by kind, and its error if it is broken."""

    name: str
    origin: str
    gave: Mapping[str, tuple[str, ...]]
    error: str = ""
    traceback: str = ""


class _MissingMetricError(PluginError):
    """A protocol whose metric no plugin has given yet."""


class Registry:
    """Every learner, classifier, data set, metric, protocol, published table and command that is known, by name."""

    def __init__(self, plugins: Iterable[str | Path | object] = (), *, strict: bool = False) -> None:
        self.strict = strict
        self.records: list[PluginRecord] = []
        self._manager = pluggy.PluginManager("featbench")
        self._manager.add_hookspecs(hookspecs)
        self._things: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self._owners: dict[tuple[str, str], str] = {}
        self._waiting: list[tuple[str, str, Callable[[], object]]] = []
        for module in BUILT_IN:
            self._register(importlib.import_module(module), module, "built in")
        for entry_point in entry_points(group="featbench"):
            self._load(entry_point.name, f"entry point {entry_point.value}", entry_point.load)
        for plugin in plugins:
            self._add(plugin)
        self._settle()

    def add(self, plugin: str | Path | object) -> None:
        """Load one more plugin: the path of a Python file, or an object with hook implementations."""
        self._add(plugin)
        self._settle()

    def _add(self, plugin: str | Path | object) -> None:
        if not isinstance(plugin, str | Path):
            name = getattr(plugin, "__name__", type(plugin).__name__)
            self._load(name, "object", lambda: plugin)
            return
        path = Path(plugin)
        if not path.is_file():
            raise UsageError(f"there is no plugin file {path}")
        self._load(path.stem, str(path), lambda: import_file(path))

    @property
    def broken(self) -> list[PluginRecord]:
        """The plugins that could not be loaded."""
        return [record for record in self.records if record.error]

    @property
    def hint(self) -> str:
        """What to add where a name is unknown: the plugins that may have held it, if any could not be loaded."""
        broken = ", ".join(f"{record.name} ({record.origin})" for record in self.broken)
        return f"; plugins that could not be loaded: {broken}" if broken else ""

    def names(self, kind: str) -> list[str]:
        """Return the names of everything of a kind."""
        return sorted(self._things[kind])

    def learner(self, name: str) -> type[FeatureLearner]:
        """Return the class of a feature learner."""
        found: type[FeatureLearner] = self._get("learners", name)
        return found

    def classifier(self, name: str) -> AnyClassifier:
        """Return a classifier; `logistic(standardise=false)` is one with other parameters than its defaults."""
        choice = Choice.read(name)
        found: AnyClassifier = self._get("classifiers", choice.name)
        return found.create(dict(choice.parameters)) if choice.parameters else found

    def dataset(self, name: str) -> Dataset:
        """Return a data set; `folder:PATH` is the data set folder, of that path."""
        base, colon, argument = name.partition(":")
        found: Dataset = self._get("datasets", base)
        return found.of(argument) if colon else found

    def metric(self, name: str) -> Metric:
        """Return a metric."""
        found: Metric = self._get("metrics", name)
        return found

    def protocol(self, name: str) -> Protocol:
        """Return a protocol."""
        found: Protocol = self._get("protocols", name)
        return found

    def table(self, name: str) -> PublishedTable:
        """Return a published table."""
        found: PublishedTable = self._get("tables", name)
        return found

    def command(self, name: str) -> Command:
        """Return a command."""
        found: Command = self._get("commands", name)
        return found

    def _get(self, kind: str, name: str) -> Any:
        if name not in self._things[kind]:
            raise UnknownNameError(kind.rstrip("s"), name, self._things[kind], self.hint)
        return self._things[kind][name]

    def _load(self, name: str, origin: str, load: Callable[[], object], *, last: bool = False) -> None:
        """Load and register one plugin; whatever it raises is kept in its record and leaves nothing behind.

        One whose protocol names an unknown metric waits for the plugins that come after it, unless this is the `last`
        chance: entry points come in no order that their authors could choose.
        """
        try:
            plugin = load()
            try:
                self._register(plugin, name, origin)
            except _MissingMetricError:
                if last:
                    raise
                self._waiting.append((name, origin, lambda: plugin))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may even call sys.exit
            message = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            message = " ".join(message.split())
            if self.strict:
                raise PluginError(f"plugin {name} ({origin}) cannot be loaded: {message}") from error
            self.records.append(PluginRecord(name, origin, {}, message, traceback.format_exc()))

    def _settle(self) -> None:
        """Register the plugins that waited for the metric of a later one; those whose metric nobody gave are broken."""
        before = 0
        while len(self._waiting) != before:  # one that waited may give the metric that another one waits for
            before = len(self._waiting)
            self._load_waiting(last=False)
        self._load_waiting(last=True)

    def _load_waiting(self, *, last: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for name, origin, load in waiting:
            self._load(name, origin, load, last=last)

    def _register(self, plugin: object, name: str, origin: str) -> None:
        _check_hook_names(plugin)
        identity = f"{name} ({origin})"
        if self._manager.has_plugin(identity) or self._manager.is_registered(plugin):
            raise PluginError(f"{identity} is loaded already: name it once")
        try:
            self._manager.register(plugin, identity)
            gave = self._collect(plugin, identity)
        except BaseException:
            if self._manager.is_registered(plugin):  # since pluggy 1.7 a plugin that it refuses is not
                self._manager.unregister(plugin)
            raise
        for kind, things in gave.items():
            self._things[kind].update(things)
            self._owners.update({(kind, thing): identity for thing in things})
        self.records.append(
            PluginRecord(name, origin, {kind: tuple(things) for kind, things in gave.items() if things})
        )

    def _owner(self, kind: str, name: str) -> str | None:
        """Return who gave a name, if anyone did."""
        return (
            "featbench itself" if kind == "commands" and name in BUILT_IN_COMMANDS else self._owners.get((kind, name))
        )

    def _collect(self, plugin: object, identity: str) -> dict[str, dict[str, Any]]:
        gave: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for kind in KINDS:
            caller = getattr(self._manager.hook, f"featbench_{kind}")
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin:
                    for thing in _as_list(implementation.function(), kind):
                        thing_name = _name_of(thing, kind)
                        owner = identity if thing_name in gave[kind] else self._owner(kind, thing_name)
                        if owner:
                            raise PluginError(
                                f"{kind.rstrip('s')} {thing_name!r} is given by {identity} and by {owner}: rename one"
                            )
                        gave[kind][thing_name] = thing
        for protocol in gave["protocols"].values():
            _check_protocol(protocol, {**self._things["metrics"], **gave["metrics"]})
        return gave


def _check_hook_names(plugin: object) -> None:
    known = [f"featbench_{kind}" for kind in KINDS]
    # pluggy marks with a dict; whatever else answers to the name, as torch.ops does to every one, is no hook.
    marks = {name: getattr(getattr(plugin, name, None), "featbench_impl", None) for name in dir(plugin)}
    hooks = [mark.get("specname") or name for name, mark in marks.items() if isinstance(mark, dict)]
    if not hooks:
        raise PluginError(f"it implements no hook: define one of {', '.join(known)} and mark it @featbench.hookimpl")
    for name in hooks:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise PluginError(f"unknown hook {name!r}" + (f": did you mean {close[0]!r}?" if close else ""))


def _as_list(given: object, kind: str) -> list[object]:
    if not isinstance(given, list | tuple):
        raise PluginError(f"featbench_{kind} must return a list, not {type(given).__name__}")
    return list(given)


def _name_of(thing: object, kind: str) -> str:
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
    if not isinstance(name, str) or not name or set(name) & set(",()/\\ "):
        raise PluginError(f"{thing!r} needs a name: a word without spaces, commas, slashes or brackets")
    return name


def _check_protocol(protocol: Protocol, metrics: Mapping[str, Metric]) -> None:
    """Refuse a protocol that names an unknown metric or task: what it scores would bear a name that means nothing."""
    for kind, name in (("metric", protocol.metric), ("task", protocol.task)):
        if not isinstance(name, str):
            raise PluginError(f"protocol {protocol.name}: its {kind} must be the name of one, not {name!r}")
    if protocol.metric not in metrics:
        raise _MissingMetricError(f"protocol {protocol.name}: {UnknownNameError('metric', protocol.metric, metrics)}")
    if protocol.task not in TASKS:
        raise PluginError(f"protocol {protocol.name}: {UnknownNameError('task', protocol.task, TASKS)}")


def _check_learner(learner: type[FeatureLearner]) -> None:
    families = ("random", "fixed", "unsupervised", "supervised")
    if getattr(learner, "family", None) not in families:
        raise PluginError(f"{learner.__name__}.family must be one of {', '.join(families)}")
    abstract = getattr(learner, "__abstractmethods__", None)
    if abstract:
        raise PluginError(f"{learner.__name__} does not define {', '.join(sorted(abstract))}")
    learner.create({})
