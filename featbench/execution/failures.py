"""Why a cell failed, in a sentence that names the line of the plugin to look at."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from featbench.devices.failures import is_out_of_memory
from featbench.errors import FeatbenchError, PluginError
from featbench.experiment.cell import Cell
from featbench.parameters import Choice
from featbench.registry import Registry
from featbench.system.tracebacks import describe_error, find_plugin_line, format_line


def describe_failure(error: BaseException, cell: Cell, registry: Registry) -> str:
    """Return what went wrong in a cell, and where in a plugin, as in `ValueError: no image (noise.py, line 7)`."""
    if is_out_of_memory(error):
        return (
            f"{cell.device} has no memory left: {get_first_line(error)}; free some, or compare fewer filters or "
            "smaller images, and run again with --retry"
        )
    message = str(error) if isinstance(error, FeatbenchError) else describe_error(error)
    place = find_plugin_line(error)
    if not place and isinstance(error, PluginError):
        # What a plugin returned is refused when none of its lines is being run.
        place = _find_definition(message, cell, registry)
    return f"{message} ({place})" if place else message


def get_first_line(error: BaseException) -> str:
    """Return the first line of an error's message: those of torch and CUDA go on with advice of their own."""
    return str(error).strip().partition("\n")[0]


def _find_definition(message: str, cell: Cell, registry: Registry) -> str:
    """Return where the plugin of a cell that a message names is defined, or ""."""
    classifier = Choice.read(cell.classifier).name
    things: dict[str, type | Callable[..., Any]] = {
        cell.learner.name: registry.learner(cell.learner.name),
        classifier: type(registry.classifier(classifier)),
        cell.metric: registry.metric(cell.metric).function,
    }
    for name, thing in things.items():
        if not thing.__module__.startswith("featbench.") and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message):
            try:
                return format_line(str(inspect.getsourcefile(thing)), inspect.getsourcelines(thing)[1])
            except (OSError, TypeError):
                return ""
    return ""
