"""Python source files: the text behind a class or a function, and modules loaded from a path with their helpers."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from featbench.errors import PluginError
from featbench.system.plugin_code import FEATBENCH, OwnModule, find_own_modules, is_own, list_parents
from featbench.system.running_source import SourceLoader, forget_module, is_known, read_running_source


def read_source(thing: type | Callable[..., Any]) -> str:
    """Return the text of the module that defines a class or a function, or of it alone where the module has no file.

    It is the text that the module runs, whatever its file holds now. Raises `PluginError` where there is neither.
    """
    # The whole module: what it computes depends on the functions and constants beside it.
    module = sys.modules.get(thing.__module__)
    try:
        if module is not None and getattr(module, "__file__", None):
            return importlib.util.decode_source(read_running_source(module))
        return inspect.getsource(thing)
    except (OSError, TypeError, SyntaxError, UnicodeDecodeError):
        raise PluginError(
            f"{thing.__name__} has no source file, so that its results could not be kept apart: put it into a .py file"
        ) from None


class _HelperFinder(MetaPathFinder):
    """Has the modules of plugins' own loaded from the very source that their keys hold, and never from bytecode."""

    def __init__(self) -> None:
        self._sources: dict[str, bytes] = {}
        self._loading = 0

    def keep(self, modules: Iterable[OwnModule]) -> None:
        """Have those of the modules that are not loaded yet run the source that they come with, once they are."""
        later = [module for module in modules if module.name not in sys.modules]
        self._sources.update({os.path.realpath(module.path): module.source for module in later})

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Take whatever a user's module imports inside the block."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        self._loading += 1
        try:
            yield
        finally:
            self._loading -= 1

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that the other finders give for a module of a plugin's own, with a loader of ours."""
        if not self._loading and not self._sources:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is None or type(spec.loader) is not SourceFileLoader or spec.origin is None:
            return None
        # Once: a module that is loaded again, because it was edited, is to run what its file holds then.
        source, file = self._sources.pop(os.path.realpath(spec.origin), None), Path(spec.origin)
        if source is None and self._loading and is_own(file) and not file.is_relative_to(FEATBENCH):
            source = file.read_bytes()
        if source is None:
            return None
        spec.loader = SourceLoader(name, file, source)
        return spec


_finder = _HelperFinder()

keep_sources = _finder.keep


def import_file(path: Path, *, reuse: bool = False) -> ModuleType:
    """Import a Python file under a name of its own, which its path, its content and that of its helpers decide.

    Helpers, the modules that it imports from its own folder or package, run again as well where they were edited.
    reuse: return the module that an earlier import of the same content made, if there is one, instead of running the
    file again. A file that raises leaves no module behind. Raises `PluginError` if it is not a .py file or not text,
    `OSError` if it cannot be read, and whatever the file itself raises.
    """
    if path.suffix != ".py":
        raise PluginError(f"{path} is not a Python file (.py)")
    # Read once: what is hashed is what runs, even if the file is edited meanwhile.
    source = path.read_bytes()
    _require_text(path, source)
    importlib.invalidate_caches()  # a helper may have been written a moment ago
    helpers = find_helpers(path, source)
    # Two files of one name in different folders are two modules; so are two contents of one file.
    digest = hashlib.sha256(str(path.resolve()).encode() + source)
    for helper in helpers:
        digest.update(helper.name.encode() + helper.source)
    name = f"featbench_file_{path.stem}_{digest.hexdigest()[:16]}"
    earlier = sys.modules.get(name)
    if reuse and earlier is not None:
        return earlier
    _forget_old_helpers(helpers, path.parent)
    _finder.keep(helpers)
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceLoader(name, path, source))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses and pickle look a class's module up there.
    sys.modules[name] = module
    try:
        with _finder.loading(), _noting_paths():
            spec.loader.exec_module(module)  # type: ignore[union-attr]
    except BaseException:
        if earlier is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = earlier
        raise
    return module


def find_helpers(path: Path, source: bytes) -> list[OwnModule]:
    """Return the modules of its own that a Python file imports, as an import would find them now."""
    return find_own_modules([OwnModule("", source, path)], loaded=False)[1:]


_added_paths: set[str] = set()
"""Folders that plugins have added to Python's path."""


@contextmanager
def _noting_paths() -> Iterator[None]:
    before = set(sys.path)
    try:
        yield
    finally:
        _added_paths.update(set(sys.path) - before)


def _forget_old_helpers(helpers: Sequence[OwnModule], folder: Path) -> None:
    """Have helpers imported again if any runs another source than its file holds, or was taken from another folder."""
    own = [one for one in helpers if not one.path.is_relative_to(FEATBENCH) and one.name != "__main__"]
    # All of them: one that was not edited may hold what it took from one that was.
    if any(_is_old(one, folder) for one in own):
        for name in {name for one in own for name in list_parents(one.name)}:
            forget_module(name)


def _is_old(helper: OwnModule, folder: Path) -> bool:
    module = sys.modules.get(helper.name)
    if module is None:
        return False
    file = os.path.realpath(str(module.__file__))
    if file != os.path.realpath(helper.path):
        return True
    # Found where another plugin has made Python look: this plugin may make it look elsewhere.
    if not Path(file).is_relative_to(os.path.realpath(folder)) and any(file.startswith(one) for one in _added_paths):
        return True
    return not is_known(module) or read_running_source(module) != helper.source


def _require_text(path: Path, source: bytes) -> None:
    """Raise a `PluginError` unless a source can be read in the encoding that it declares, UTF-8 by default."""
    # Python itself overlooks such bytes in comments, and says of others neither where they are nor what to do.
    try:
        importlib.util.decode_source(source)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise PluginError(f"{path} {_describe_misread(source, error)}") from None


def _describe_misread(source: bytes, error: SyntaxError | UnicodeDecodeError) -> str:
    if isinstance(error, SyntaxError):
        try:
            source.decode()
        except UnicodeDecodeError as found:
            return _describe_misread(source, found)
        return f"cannot be read as text: {error.msg}; save it as UTF-8"
    line = source[: error.start].count(b"\n") + 1
    return (
        f"is not text in {error.encoding}: byte 0x{source[error.start]:02x} in line {line}; save it as UTF-8, or "
        "declare its encoding in its first line, as in # coding: latin-1"
    )
