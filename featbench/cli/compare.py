"""`featbench compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featbench.cli import options as shared
from featbench.cli.main import FAILED
from featbench.errors import UsageError

if TYPE_CHECKING:
    from featbench.cell import Cell
    from featbench.comparison import Comparison


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench compare`."""
    shared.add_request(parser)
    shared.add_workbench(parser)
    group = parser.add_argument_group("how it is run and shown")
    group.add_argument("--format", choices=("table", "markdown", "csv", "json"), default="table", help="default: table")
    group.add_argument("--output", metavar="FILE", help="write the table there instead of printing it")
    group.add_argument("--plan", action="store_true", help="print the cells and stop")
    group.add_argument("--retry", action="store_true", help="compute cells that failed before once more")
    group.add_argument("--track", metavar="URI", help="MLflow server (default: MLFLOW_TRACKING_URI, else in the store)")
    group.add_argument("--no-track", action="store_true", help="write nothing to MLflow")
    group.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Compare, and print or write the table."""
    output = shared.writable_file(options.output) if options.output else None
    request = shared.request_of(options)
    from featbench.cli.console import Console
    from featbench.report.table import render

    with Console(quiet=options.quiet) as console:
        workbench = shared.workbench_of(options, console)
        if options.plan:
            print(_plan(workbench.plan(request)))
            return 0
        console.inform(_device_line(request.device))
        track: str | bool = False if options.no_track else options.track or True
        comparison = workbench.compare(request, retry=options.retry, track=track)
        console.inform(_summary(comparison))
    _deliver(render(comparison.rows, options.format), output)
    return FAILED if comparison.failed or shared.named_plugins_broke(workbench, options) else 0


def _plan(cells: Sequence[Cell]) -> str:
    run = [str(cell) for cell in cells if not cell.skip]
    skipped = dict.fromkeys(f"skipped: {cell.learner} {cell.regime.name}: {cell.skip}" for cell in cells if cell.skip)
    return "\n".join([f"{len(run)} cells", *run, *skipped])


def _device_line(asked: str) -> str:
    from featbench.network import resolve_device

    device = resolve_device(asked).type
    found = "a CUDA device was found" if device == "cuda" else "no CUDA device was found"
    return f"device: {device}" + (f" (auto: {found})" if asked == "auto" else "")


def _summary(comparison: Comparison) -> str:
    runs = [run for run in comparison.runs if run.result.status != "skipped"]
    if not comparison.computed:
        return f"nothing to compute: all {len(runs)} cells were in the store"
    failed = f", {len(comparison.failed)} failed" if comparison.failed else ""
    return f"{comparison.computed} cells computed, {len(runs) - comparison.computed} read from the store{failed}"


def _deliver(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    from featbench.files import write_atomically

    try:
        write_atomically(output, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror or error}") from error
    print(f"wrote {output}", file=sys.stderr)
