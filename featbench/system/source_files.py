"""Python source files: the text behind a class or a function, and modules loaded from a path."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from featbench.errors import PluginError


def read_source(thing: type | Callable[..., Any]) -> str:
    """Return the text of the module that defines a class or a function, or of it alone where the module has no file.

    Raises `PluginError` where there is neither.
    """
    # The whole module: what it computes depends on the functions and constants beside it.
    module = sys.modules.get(thing.__module__)
    try:
        if module is not None and getattr(module, "__file__", None):
            return inspect.getsource(module)
        return inspect.getsource(thing)
    except (OSError, TypeError):
        raise PluginError(
            f"{thing.__name__} has no source file, so that its results could not be kept apart: put it into a .py file"
        ) from None


class _SourceLoader(SourceFileLoader):
    """Runs the source that it is given, and never bytecode that Python has cached.

    Python takes cached bytecode for current if the source's time in seconds and its length are the same, which an edit
    may leave as they were: `k=4` in place of `k=3`, saved within a second.
    """

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        super().__init__(name, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._source, self.path)


def import_file(path: Path, *, reuse: bool = False) -> ModuleType:
    """Import a Python file under a name of its own, which its path and its content decide.

    reuse: return the module that an earlier import of the same content made, if there is one, instead of running the
    file again. A file that raises leaves no module behind. Raises `PluginError` if it is not a .py file, `OSError` if
    it cannot be read, and whatever the file itself raises.
    """
    if path.suffix != ".py":
        raise PluginError(f"{path} is not a Python file (.py)")
    # Read once: what is hashed is what runs, even if the file is edited meanwhile.
    source = path.read_bytes()
    # Two files of one name in different folders are two modules; so are two contents of one file.
    digest = hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()[:16]
    name = f"featbench_file_{path.stem}_{digest}"
    earlier = sys.modules.get(name)
    if reuse and earlier is not None:
        return earlier
    loader = _SourceLoader(name, path, source)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses and pickle look a class's module up there.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        if earlier is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = earlier
        raise
    return module
