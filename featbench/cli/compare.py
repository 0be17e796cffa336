"""`featbench compare`: learners under one protocol, as a table."""

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
    """Run the comparison, and print its table or write it to a file."""
    output = shared.require_writable_file(options.output) if options.output else None
    request = shared.make_request(options)
    from featbench.cli.console import Console
    from featbench.report.table import render

    with Console(quiet=options.quiet) as console:
        workbench = shared.make_workbench(options, console)
        if options.plan:
            print(running.format_plan(workbench.plan(request)))
            return 0
        console.inform(running.describe_device(request.device))
        track: str | bool = False if options.no_track else options.track or True
        comparison = workbench.compare(request, retry=options.retry, track=track)
        console.inform(running.summarise(comparison))
    running.write_output(render(comparison.rows, options.format, workbench.list_baselines(request.protocol)), output)
    return FAILED if comparison.failed or shared.has_broken_named_plugin(workbench, options) else 0
