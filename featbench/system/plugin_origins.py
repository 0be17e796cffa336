"""Where a plugin comes from: its modules, its package, and the code that its results are kept under."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType

from featbench.system.hashing import content_hash
from featbench.system.plugin_code import INSTALLED, OwnModule, describe_module, find_own_modules, hash_modules, is_own
from featbench.system.running_source import is_edited

Version = tuple[str, str] | None
"""Name and version of the distribution that installed a plugin."""

FILE_PREFIX = "featbench_file_"
"""What the names of modules that were loaded from a file begin with."""


@dataclass(frozen=True)
class Code:
    """All that decides what a plugin computes: its own modules, and the version of the package that it came with."""

    modules: Sequence[OwnModule]
    version: Version

    @cached_property
    def hash(self) -> str:
        """The hash of the code, the same on every machine."""
        return content_hash({"modules": dict(hash_modules(self.modules)), "version": self.version})

    def find_edited(self) -> Iterator[OwnModule]:
        """Yield modules whose files no longer hold what they run."""
        for one in self.modules:
            module = sys.modules.get(one.name)
            if module is not None and is_edited(module):
                yield one


def can_import(name: str) -> bool:
    """Whether a text is the name of a module that can be imported."""
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def describe_code(plugin: object, things: Iterable[object], version: Version = None) -> Code:
    """Return the code of a plugin that was loaded.

    plugin: a module, or an object with hooks. things: what it gave, classes or instances, whose classes may come from
    other modules. version: of its distribution, where an entry point says so; else it is looked up.
    """
    main = _find_module(plugin)
    package = "" if main is None or main.__name__.startswith(FILE_PREFIX) else main.__name__.partition(".")[0]
    roots = [] if main is None else [describe_module(main, None if package else "")]
    roots += [describe_module(module) for module in _list_modules(things) if module is not main]
    own = [one for one in roots if one is not None and is_own(one.path, one.name, package)]
    return Code(find_own_modules(own, package), version or _find_version(main, package))


def _find_module(plugin: object) -> ModuleType | None:
    """Return the module of a plugin; None for an object of a class that is Python's or featbench's."""
    if isinstance(plugin, ModuleType):
        return plugin
    module = sys.modules.get(type(plugin).__module__)
    file = getattr(module, "__file__", None)
    return module if file and is_own(Path(file)) else None


def _list_modules(things: Iterable[object]) -> Iterator[ModuleType]:
    """Yield the modules that define classes, those that they inherit from, and the functions of metrics."""
    for thing in things:
        cls = thing if isinstance(thing, type) else type(thing)
        names = [base.__module__ for base in cls.__mro__]
        function = getattr(thing, "function", None)
        names += [function.__module__] if function is not None else []
        yield from (sys.modules[name] for name in names if name in sys.modules)


def _find_version(main: ModuleType | None, package: str) -> Version:
    """Return the distribution of a package, where a package manager installed it."""
    file = getattr(main, "__file__", None)
    # Only then: to list the packages of all distributions takes a moment.
    if not package or not file or not set(INSTALLED) & set(Path(file).parts):
        return None
    names = packages_distributions().get(package)
    return (names[0], version(names[0])) if names else None
