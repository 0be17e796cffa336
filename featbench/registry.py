"""The registry: finds plugins, loads them one by one, and survives the broken ones."""

from __future__ import annotations

import importlib
import logging
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
from featbench.learning.learner import FeatureLearner
from featbench.parameters import Choice
from featbench.plugin_checks.protocols import MissingMetricError, check_protocol
from featbench.plugin_checks.things import KINDS, check_hooks, list_given
from featbench.system.global_state import keep_global_state
from featbench.system.plugin_origins import Version, can_import, describe_code
from featbench.system.source_files import import_file, keep_sources
from featbench.system.tracebacks import describe_error, find_plugin_line
from featbench.system.user_files import expand_user

log = logging.getLogger("featbench")


@dataclass(frozen=True)
class PluginRecord:
    """One plugin: its name, where it came from, what it gave by kind, and its error if it is broken."""

    name: str
    origin: str
    gave: Mapping[str, tuple[str, ...]]
    error: str = ""
    traceback: str = ""


class Registry:
    """Every learner, classifier, data set, metric, protocol, published table and command that is known, by name."""

    def __init__(self, plugins: Iterable[str | Path | object] = (), *, strict: bool = False) -> None:
        self.strict = strict
        self.records: list[PluginRecord] = []
        self._manager = pluggy.PluginManager("featbench")
        self._manager.add_hookspecs(hookspecs)
        self._things: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self._owners: dict[tuple[str, str], str] = {}
        self._code: dict[str, str] = {}
        self._waiting: list[tuple[str, str, Callable[[], object], Version]] = []
        for module in BUILT_IN:
            self._register(importlib.import_module(module), module, "built in")
        for point in entry_points(group="featbench"):
            # What an entry point names may be an object of any module, so that the package's version counts as well.
            version = None if point.dist is None else (point.dist.name, point.dist.version)
            self._load(point.name, f"entry point {point.value}", point.load, version=version)
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
        path = expand_user(plugin)
        if path.is_file():
            self._load(path.stem, str(path), lambda: import_file(path))
        elif can_import(str(plugin)):
            self._load(str(plugin), str(plugin), lambda: importlib.import_module(str(plugin)))
        else:
            raise UsageError(f"there is no plugin file {path}, and no module of this name")

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
        found: type[FeatureLearner] = self._find("learners", name)
        return found

    def classifier(self, name: str) -> AnyClassifier:
        """Return a classifier; `logistic(standardise=false)` is one with other parameters than its defaults."""
        choice = Choice.read(name)
        found: AnyClassifier = self._find("classifiers", choice.name)
        return found.create(dict(choice.parameters)) if choice.parameters else found

    def dataset(self, name: str) -> Dataset:
        """Return a data set; `folder:PATH` is the data set folder, of that path."""
        base, colon, argument = name.partition(":")
        found: Dataset = self._find("datasets", base)
        return found.of(argument) if colon else found

    def metric(self, name: str) -> Metric:
        """Return a metric."""
        found: Metric = self._find("metrics", name)
        return found

    def protocol(self, name: str) -> Protocol:
        """Return a protocol."""
        found: Protocol = self._find("protocols", name)
        return found

    def table(self, name: str) -> PublishedTable:
        """Return a published table."""
        found: PublishedTable = self._find("tables", name)
        return found

    def command(self, name: str) -> Command:
        """Return a command."""
        found: Command = self._find("commands", name)
        return found

    def code(self, kind: str, name: str) -> str | None:
        """Return the hash of the code of the plugin that gave a thing, as it ran when it was loaded.

        That is the plugin's own modules, with all of its own that they import, and the version of its package. None for
        what is built in.
        """
        return self._code.get(self._owners[kind, name])

    def _find(self, kind: str, name: str) -> Any:
        if name not in self._things[kind]:
            raise UnknownNameError(kind.rstrip("s"), name, self._things[kind], self.hint)
        return self._things[kind][name]

    def _load(
        self, name: str, origin: str, load: Callable[[], object], *, version: Version = None, last: bool = False
    ) -> None:
        """Load and register one plugin; whatever it raises is kept in its record and leaves nothing behind.

        One whose protocol names an unknown metric waits for the plugins that come after it, unless this is the `last`
        chance: entry points come in no order that their authors could choose.
        """
        try:
            # A plugin may set variables of the environment that it needs later.
            with keep_global_state(environment=False):
                plugin = load()
            try:
                with keep_global_state():
                    self._register(plugin, name, origin)
                self._code[f"{name} ({origin})"] = self._hash_code(plugin, name, origin, version)
            except MissingMetricError:
                if last:
                    raise
                self._waiting.append((name, origin, lambda: plugin, version))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may even call sys.exit
            # Somebody's broken plugin must not keep the others from work: whoever needs it learns of it by `hint`.
            place = find_plugin_line(error)
            message = str(error) if isinstance(error, PluginError) else describe_error(error)
            message = " ".join(message.split()) + (f" ({place})" if place else "")
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
        for name, origin, load, version in waiting:
            self._load(name, origin, load, version=version, last=last)

    def _hash_code(self, plugin: object, name: str, origin: str, version: Version) -> str:
        """Return the hash of a plugin's code, now that all that loading it imports is there."""
        identity = f"{name} ({origin})"
        things = [self._things[kind][thing] for (kind, thing), owner in self._owners.items() if owner == identity]
        code = describe_code(plugin, things, version)
        keep_sources(code.modules)
        for module in code.find_edited():
            log.warning(
                "plugin %s: %s was edited after it was imported; what runs is the earlier code, and its results are "
                "kept under that: reload it, or start Python again",
                *(name, module.path),
            )
        return code.hash

    def _register(self, plugin: object, name: str, origin: str) -> None:
        """Take what a plugin gives, all of it or nothing."""
        check_hooks(plugin)
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

    def _find_owner(self, kind: str, name: str) -> str | None:
        """Return who gave a name, if anyone did."""
        # The built-in commands come from no plugin: their modules are not loaded before they are called.
        if kind == "commands" and name in BUILT_IN_COMMANDS:
            return "featbench itself"
        return self._owners.get((kind, name))

    def _collect(self, plugin: object, identity: str) -> dict[str, dict[str, Any]]:
        """Call the hooks of one plugin, and return what it gives by kind and name."""
        gave: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for kind in KINDS:
            # A hook's caller knows every plugin that implements it; only this one's things are wanted.
            caller = getattr(self._manager.hook, f"featbench_{kind}")
            own = [one for one in caller.get_hookimpls() if one.plugin is plugin]
            for name, thing in (pair for one in own for pair in list_given(one.function(), kind)):
                owner = identity if name in gave[kind] else self._find_owner(kind, name)
                if owner:
                    raise PluginError(f"{kind.rstrip('s')} {name!r} is given by {identity} and by {owner}: rename one")
                gave[kind][name] = thing
        for protocol in gave["protocols"].values():
            check_protocol(protocol, {**self._things["metrics"], **gave["metrics"]})
        return gave
