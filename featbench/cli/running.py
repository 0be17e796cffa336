"""What several commands print besides their tables: the plan, the device, a summary; and where output goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featbench.cli.streams import emit
from featbench.errors import UsageError
from featbench.system.user_files import write_through

if TYPE_CHECKING:
    from featbench.comparison import Comparison
    from featbench.experiment.cell import Cell
    from featbench.experiment.request import Request
    from featbench.registry import Registry

BEGAN = time.monotonic()
"""Start of the command, on the monotonic clock."""


def format_plan(cells: Sequence[Cell], name_of: Callable[[Cell], str] = str) -> str:
    """Return the number of cells that would run, a line for each, and a line for each reason to skip some."""
    run = [name_of(cell) for cell in cells if not cell.skip]
    skipped = dict.fromkeys(f"skipped: {cell.learner} {cell.regime.name}: {cell.skip}" for cell in cells if cell.skip)
    return "\n".join([f"{len(run)} cells", *run, *skipped])


def describe_device(asked: str) -> str:
    """Return a line that names the device, and why it was chosen if the user left the choice (auto)."""
    from featbench.devices.selection import resolve_device

    device = resolve_device(asked).type
    found = "a CUDA device was found" if device == "cuda" else "no CUDA device was found"
    return f"device: {device}" + (f" (auto: {found})" if asked == "auto" else "")


def summarise(comparison: Comparison) -> str:
    """Return a line about a comparison: how many cells were computed, read from the store, and failed."""
    runs = [run for run in comparison.runs if run.result.status != "skipped"]
    if not comparison.computed:
        return f"nothing to compute: all {len(runs)} cells were in the store"
    failed = f", {len(comparison.failed)} failed" if comparison.failed else ""
    found = f"{comparison.computed} cells computed, {len(runs) - comparison.computed} read from the store{failed}"
    return f"{found}; {_describe_cost()}"


def warn_if_all_skipped(comparison: Comparison, request: Request, registry: Registry) -> bool:
    """Whether everything that was asked for was skipped; if so, stderr says what to ask for instead."""
    from featbench.experiment.suggestions import list_asked_cells, suggest_regimes

    asked = list_asked_cells([run.cell for run in comparison.runs], request, registry)
    if not asked or not all(cell.skip for cell in asked):
        return False
    instead = "; ".join(suggest_regimes(asked, registry))
    remedy = f"what would run: {instead}" if instead else "change what it asks for"
    print(f"featbench: everything that was asked for was skipped, and the table says why; {remedy}", file=sys.stderr)
    return True


def _describe_cost() -> str:
    """Return how long this command has run, and its peak memory where the system reports it."""
    minutes, seconds = divmod(round(time.monotonic() - BEGAN), 60)
    took = f"{minutes} min {seconds} s"
    if sys.platform == "win32":
        return took
    import resource

    # ru_maxrss is in bytes on macOS and in kilobytes on Linux.
    unit = 1 if sys.platform == "darwin" else 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{took}, at most {largest / 2**30:.1f} GiB of memory"


def write_output(content: str | bytes, output: Path | None, note: str = "") -> None:
    """Print a command's result, or write it to the file that `require_writable_file` returned.

    note: what the line on stderr about the file adds. Raises `UsageError` if the file cannot be written.
    """
    if output is None:
        emit(content)
        return
    # Names of files may hold bytes that are not UTF-8.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        write_through(output, data)
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror or error}") from error
    print(f"wrote {output}{note}", file=sys.stderr)
