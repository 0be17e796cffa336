"""The source that a loaded module runs, which is not that of its file once that was edited."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType


class SourceLoader(SourceFileLoader):
    """Runs the source that it is given, and never bytecode that Python has cached.

    Python takes cached bytecode for current if the source's time in seconds and its length are the same, which an edit
    may leave as they were: `k=4` in place of `k=3`, saved within a second.
    """

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        super().__init__(name, str(path))
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source."""
        return self.source_to_code(self.source, self.path)


_seen: dict[str, tuple[ModuleSpec | None, bytes]] = {}
"""What the file of a module held when it was first asked for, with the spec that the module then had."""


def read_running_source(module: ModuleType) -> bytes:
    """Return the source that a module runs: what it was loaded from, or what its file held at the first call.

    Raises `OSError` if the file cannot be read.
    """
    spec = getattr(module, "__spec__", None)
    loader = getattr(spec, "loader", None)
    if isinstance(loader, SourceLoader):
        return loader.source
    known = _seen.get(module.__name__)
    # A module that is loaded again, by importlib.reload for instance, has another spec.
    if known is None or known[0] is not spec:
        known = _seen[module.__name__] = spec, Path(str(module.__file__)).read_bytes()
    return known[1]


def is_known(module: ModuleType) -> bool:
    """Whether the source that a module runs is known for certain, not taken from its file long after it was loaded."""
    spec = getattr(module, "__spec__", None)
    if isinstance(getattr(spec, "loader", None), SourceLoader):
        return True
    return module.__name__ in _seen and _seen[module.__name__][0] is spec


def is_edited(module: ModuleType) -> bool:
    """Whether the file of a module no longer holds what the module runs."""
    try:
        return Path(str(module.__file__)).read_bytes() != read_running_source(module)
    except OSError:
        return True


def forget_module(name: str) -> None:
    """Have the next import of a module run its file again."""
    module = sys.modules.pop(name, None)
    package, _, last = name.rpartition(".")
    # `from package import module` looks at the package first.
    if module is not None and getattr(sys.modules.get(package), last, None) is module:
        delattr(sys.modules[package], last)
