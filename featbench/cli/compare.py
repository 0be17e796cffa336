"""`featbench compare`."""

from __future__ import annotations

import argparse

from featbench.cli import options as shared
from featbench.cli import running
from featbench.cli.main import FAILED


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench compare`."""
    shared.add_request(parser)
    shared.add_workbench(parser)
    shared.add_running(parser)


def run(options: argparse.Namespace) -> int:
    """Compare, and print or write the table."""
    output = shared.writable_file(options.output) if options.output else None
    request = shared.request_of(options)
    from featbench.cli.console import Console
    from featbench.report.table import render

    with Console(quiet=options.quiet) as console:
        workbench = shared.workbench_of(options, console)
        if options.plan:
            print(running.plan_text(workbench.plan(request)))
            return 0
        console.inform(running.device_line(request.device))
        track: str | bool = False if options.no_track else options.track or True
        comparison = workbench.compare(request, retry=options.retry, track=track)
        console.inform(running.summary(comparison))
    running.deliver(render(comparison.rows, options.format), output)
    return FAILED if comparison.failed or shared.named_plugins_broke(workbench, options) else 0
