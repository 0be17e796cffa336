"""`featbench reproduce`: a published table, measured again and printed beside the published numbers."""

from __future__ import annotations

import argparse
import sys

from featbench.cli import options as shared
from featbench.cli import running
from featbench.cli.main import FAILED
from featbench.cli.streams import emit


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench reproduce`."""
    parser.add_argument("table", metavar="TABLE", help="name of the published table, as in `featbench list tables`")
    group = parser.add_argument_group("what is measured")
    group.add_argument("--rows", metavar="LIST", help="rows of the table, such as R,RR,G (default: all)")
    group.add_argument("--columns", metavar="LIST", help="columns of the table, such as Rabs-N-PA (default: all)")
    shared.add_variations(group)
    shared.add_workbench(parser)
    shared.add_running(parser)


def run(options: argparse.Namespace) -> int:
    """Measure the table, and print it beside the published numbers or write it to a file."""
    output = shared.require_writable_file(options.output)
    rows, columns = shared.read_names(options.rows, "--rows"), shared.read_names(options.columns, "--columns")
    from featbench.cli.console import Console
    from featbench.experiment.request import Request
    from featbench.reproduction.measure import plan_table, reproduce
    from featbench.reproduction.report import render, render_claims

    request = Request(**shared.read_variations(options))
    with Console(quiet=options.quiet, debug=options.debug) as console:
        workbench = shared.make_workbench(options, console)
        plan = plan_table(workbench, workbench.registry.table(options.table), request, rows, columns)
        names = {cell: f"{row} {column or cell.classifier} draw {cell.draw}" for cell, (row, column) in plan.items()}
        if options.plan:
            emit(f"{running.format_plan(list(plan), names.__getitem__)}\n")
            return 0
        console.name_of = names.__getitem__
        console.inform(running.describe_device(options.device))
        track: str | bool = False if options.no_track else options.track or True
        found = reproduce(
            workbench, options.table, request, rows=rows, columns=columns, retry=options.retry, track=track
        )
        console.inform(running.summarise(found.comparison))
    running.write_output(render(found, options.format), output)
    # The other formats hold the claims as well. These are read by programs, which expect rows alone.
    if options.format in ("csv", "json"):
        print(render_claims(found), file=sys.stderr)
    skipped = running.warn_if_all_skipped(found.comparison, request, workbench.registry)
    return FAILED if skipped or found.comparison.failed or shared.has_broken_named_plugin(workbench, options) else 0
