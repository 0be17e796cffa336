"""What `compare` and `reproduce` say and write besides their tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featbench.errors import UsageError

if TYPE_CHECKING:
    from featbench.comparison import Comparison
    from featbench.experiment.cell import Cell

BEGAN = time.monotonic()
"""When the command began."""


def plan_text(cells: Sequence[Cell], name_of: Callable[[Cell], str] = str) -> str:
    """Return the cells that would run, and what is skipped and why."""
    run = [name_of(cell) for cell in cells if not cell.skip]
    skipped = dict.fromkeys(f"skipped: {cell.learner} {cell.regime.name}: {cell.skip}" for cell in cells if cell.skip)
    return "\n".join([f"{len(run)} cells", *run, *skipped])


def device_line(asked: str) -> str:
    """Say where it is computed, and why there."""
    from featbench.devices.selection import resolve_device

    device = resolve_device(asked).type
    found = "a CUDA device was found" if device == "cuda" else "no CUDA device was found"
    return f"device: {device}" + (f" (auto: {found})" if asked == "auto" else "")


def summary(comparison: Comparison) -> str:
    """Say how much was computed, and how much was read."""
    runs = [run for run in comparison.runs if run.result.status != "skipped"]
    if not comparison.computed:
        return f"nothing to compute: all {len(runs)} cells were in the store"
    failed = f", {len(comparison.failed)} failed" if comparison.failed else ""
    found = f"{comparison.computed} cells computed, {len(runs) - comparison.computed} read from the store{failed}"
    return f"{found}; {_cost()}"


def _cost() -> str:
    """Say how long this command has run, and its largest memory where the system tells it."""
    minutes, seconds = divmod(round(time.monotonic() - BEGAN), 60)
    took = f"{minutes} min {seconds} s"
    if sys.platform == "win32":
        return took
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{took}, at most {largest / 2**30:.1f} GiB of memory"


def deliver(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file."""
    if output is None:
        sys.stdout.write(text)
        return
    from featbench.system.files import write_atomically

    try:
        write_atomically(output, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror or error}") from error
    print(f"wrote {output}", file=sys.stderr)
