"""The code of a plugin: the modules of its own that it is made of, found by their imports, and their hashes.

A plugin's results are kept under this code. Own are modules that no package manager installed, and those of the
plugin's own package. Imports are read from the source, so that those inside functions count before they have run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from featbench.system.hashing import code_hash
from featbench.system.running_source import read_running_source

INSTALLED = ("site-packages", "dist-packages")
"""Folders of packages that a package manager installed."""

LIBRARY = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))

FEATBENCH = Path(__file__).parents[1]

HASHED_BY_FILE = ("datasets", "plugins", "classifiers", "protocols")
"""featbench's own folders of plugins: the keys hold the code of all its other folders anyway."""


@dataclass(frozen=True)
class Imports:
    """What a source imports: absolute names, some of which may be of things in modules, and files that it names."""

    names: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class OwnModule:
    """A module of a plugin's own: its name, the source that it runs or will run, its file, and whether it is a package.

    name: as it is imported; "" for the plugin itself, whose file may have any name.
    """

    name: str
    source: bytes
    path: Path
    is_package: bool = False

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def hash_modules(modules: Iterable[OwnModule]) -> Mapping[str, str]:
    """Return the hash of each module's code by its name: the same wherever the files lie."""
    return {module.name: _hash_source(module.source) for module in modules}


def find_own_modules(roots: Iterable[OwnModule], package: str = "", *, loaded: bool = True) -> list[OwnModule]:
    """Return modules with all modules of their own that they import, directly or not.

    package: the top-level package whose modules are own even where they are installed. loaded: take the source that a
    loaded module runs; else that of the file which an import would find now, the plugin's own folder first.
    """
    found: dict[str, OwnModule] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module.name in found:
            continue
        found[module.name] = module
        waiting += _list_imported(module, package, loaded=loaded)
    return list(found.values())


def is_own(path: Path, name: str = "", package: str = "") -> bool:
    """Whether a module is a user's: neither Python's, nor featbench's, nor that of an installed package.

    package: the top-level package that is the plugin's own, installed or not.
    """
    if package and name.split(".")[0] == package:
        return True
    if path.is_relative_to(FEATBENCH):
        return path.relative_to(FEATBENCH).parts[0] in HASHED_BY_FILE
    return not set(INSTALLED) & set(path.parts) and not any(path.is_relative_to(folder) for folder in LIBRARY)


def describe_module(module: ModuleType, name: str | None = None) -> OwnModule | None:
    """Return a module that is loaded, or None where it has no file; name: in place of its own."""
    file = getattr(module, "__file__", None)
    if not file:
        return None
    try:
        source = read_running_source(module)
    except OSError:
        return None
    return OwnModule(module.__name__ if name is None else name, source, Path(file), hasattr(module, "__path__"))


def _list_imported(module: OwnModule, package: str, *, loaded: bool) -> Iterator[OwnModule]:
    imports = read_imports(module.source, module.package)
    folder = module.path.parent
    for name in imports.names:
        imported = _find_module(name, folder, loaded=loaded)
        if imported is not None and is_own(imported.path, name, package):
            yield imported
    for name in imports.files:
        path = folder / name
        if path.is_file() and path != module.path:
            yield OwnModule(name, path.read_bytes(), path)


def _find_module(name: str, folder: Path, *, loaded: bool) -> OwnModule | None:
    """Return the module that an import of a name gives or would give, without importing anything."""
    module = sys.modules.get(name)
    if loaded and module is not None:
        return describe_module(module, name)
    spec = _find_spec(name, folder)
    if spec is None or not spec.origin or not spec.has_location:
        return None
    path = Path(spec.origin)
    try:
        return OwnModule(name, path.read_bytes(), path, spec.submodule_search_locations is not None)
    except OSError:  # inside an archive, for instance
        return None


def _find_spec(name: str, folder: Path) -> ModuleSpec | None:
    """Return how a module would be loaded; the plugin's own folder comes first, which it may add to the path later."""
    head, *rest = name.split(".")
    inside = PathFinder.find_spec(head, [str(folder)]) is not None
    spec = _ask_finders(head, [str(folder)] if inside else None)
    for end in range(1, len(rest) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        # A folder without __init__.py: what is found in it depends on the whole path, once it is asked.
        plain = inside and end == 1 and spec.origin is None
        locations = [str(folder / head)] if plain else list(spec.submodule_search_locations)
        spec = _ask_finders(".".join([head, *rest[:end]]), locations)
    return spec


def _ask_finders(name: str, where: list[str] | None) -> ModuleSpec | None:
    # All finders, since packages that are installed for development have finders of their own.
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, where)
        except Exception:  # somebody's finder: the import itself will say what is wrong
            continue
        if spec is not None:
            return spec
    return None


@lru_cache(maxsize=512)
def read_imports(source: bytes, package: str) -> Imports:
    """Return what a source imports, anywhere in it; package: what its relative imports start from."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled code, or a file that the plugin does without
        return Imports((), ())
    names: list[str] = []
    files: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _resolve("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        elif isinstance(node, ast.Call):
            names += [_resolve(name, package) for name in _read_dynamic_imports(node)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
            files.append(node.value)
    # To import a module is to run the packages around it.
    run = (one for name in names if name for one in list_parents(name))
    return Imports(tuple(dict.fromkeys(run)), tuple(dict.fromkeys(files)))


def list_parents(name: str) -> list[str]:
    """Return the packages around a module, the outermost first, and the module itself."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _read_dynamic_imports(call: ast.Call) -> Iterator[str]:
    """Yield the module that `import_module("…")` or `__import__("…")` names, if it is written out."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    if called in ("import_module", "__import__") and isinstance(first, ast.Constant) and isinstance(first.value, str):
        yield first.value


def _resolve(name: str, package: str) -> str:
    """Return the absolute name of a module; "" for what a file that belongs to no package imports relatively."""
    try:
        return importlib.util.resolve_name(name, package) if name.startswith(".") else name
    except ImportError:
        return ""


@lru_cache(maxsize=512)
def _hash_source(source: bytes) -> str:
    try:
        return code_hash(source)
    except (SyntaxError, ValueError, RecursionError):  # compiled code, or no Python at all: every byte counts
        return hashlib.sha256(source).hexdigest()
