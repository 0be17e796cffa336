"""Python source files: the text behind a class, and modules loaded from a path."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from featbench.errors import PluginError


def class_source(cls: type) -> str:
    """Return the text of the module that defines a class, or of the class alone; `PluginError` where there is none."""
    # The whole module: what a class computes depends on the functions and constants beside it.
    module = sys.modules.get(cls.__module__)
    try:
        if module is not None and getattr(module, "__file__", None):
            return inspect.getsource(module)
        return inspect.getsource(cls)
    except (OSError, TypeError):
        raise PluginError(
            f"{cls.__name__} has no source file, so that its results could not be kept apart: put it into a .py file"
        ) from None


class _FreshLoader(SourceFileLoader):
    """Loads a plugin from its source, and never from bytecode that Python has cached.

    Python takes cached bytecode for current if the source's time in seconds and its length are the same, which an edit
    may leave as they were: `k=4` in place of `k=3`, saved within a second.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def import_file(path: Path) -> ModuleType:
    """Import a Python file under a name of its own; a file that raises leaves no module behind."""
    # Two files of one name in different folders are two modules.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"featbench_plugin_{path.stem}_{digest}"
    if path.suffix != ".py":
        raise PluginError(f"{path} is not a Python file (.py)")
    loader = _FreshLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses and pickle look a class's module up there.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
