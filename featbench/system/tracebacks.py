"""The lines of plugins in a traceback: where somebody who wrote a plugin looks first."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType, TracebackType

LIBRARY = sysconfig.get_path("stdlib")


def find_plugin_line(error: BaseException) -> str:
    """Return where in a plugin an error arose, as `noise.py, line 7`, or "" if no plugin took part.

    That is the innermost line of the plugin's own file, followed by that of another file of the user if it lies deeper.
    Where an error has a cause, the cause's place counts if it has none itself.
    """
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        lines = list(_list_plugin_lines(at.__traceback__))
        if lines:
            own = [line for line in lines if line[0] == lines[0][0]][-1]
            deepest = lines[-1]
            return format_line(*own) if own == deepest else f"{format_line(*own)}, and {format_line(*deepest)}"
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return ""


def describe_error(error: BaseException) -> str:
    """Return type and message of an error, as in `ValueError: no image`."""
    try:
        message = str(error)
    except Exception:  # the error of a plugin may have a method of its own that fails
        message = "its message cannot be shown"
    name = type(error).__name__
    return f"{name}: {message}" if message else name


def _list_plugin_lines(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    """Yield file and line of each call that lies in a plugin, the outermost first."""
    packages = {point.module.partition(".")[0] for point in entry_points(group="featbench")}
    for frame, line in traceback.walk_tb(trace):
        if _is_of_plugin(frame, packages):
            yield frame.f_code.co_filename, line


def _is_of_plugin(frame: FrameType, packages: set[str]) -> bool:
    """Whether a call lies in code that is neither featbench's nor Python's nor that of an installed library."""
    module = str(frame.f_globals.get("__name__", ""))
    package = module.partition(".")[0]
    # Plugins that are named by their file have modules of this name, wherever the file lies.
    if package in packages or module.startswith("featbench_file_"):
        return True
    file = frame.f_code.co_filename
    if package == "featbench" or (file.startswith("<") and not file.startswith("<ipython")):
        return False
    return not file.startswith(LIBRARY) and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def format_line(file: str, line: int) -> str:
    """Return a line of a file as messages name it: without the folder, which seldom tells more."""
    return f"{Path(file).name}, line {line}"
