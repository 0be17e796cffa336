"""`featbench compare`: learners under one protocol, as a table."""

from __future__ import annotations

import argparse
import sys

from featbench.cli import options as shared
from featbench.cli import running
from featbench.cli.main import FAILED
from featbench.cli.streams import emit


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench compare`."""
    shared.add_request(parser)
    shared.add_workbench(parser)
    shared.add_running(parser)
    parser.add_argument(
        "--details",
        metavar="FOLDER",
        help="write each complete row's classes, confusions and wrong images into this folder, as `featbench explain` "
        "does",
    )


def run(options: argparse.Namespace) -> int:
    """Run the comparison, and print its table or write it to a file."""
    output = shared.require_writable_file(options.output)
    request = shared.make_request(options)
    from featbench.cli.console import Console
    from featbench.conclusion.answer import answer
    from featbench.details.explain import explain_all, list_options, require_writable_folder
    from featbench.execution.stored_comparison import StoredComparison
    from featbench.report.table import render
    from featbench.system.printable import make_printable

    folder = None if options.details is None else require_writable_folder(options.details)
    with Console(quiet=options.quiet, debug=options.debug) as console:
        workbench = shared.make_workbench(options, console)
        if options.plan:
            emit(f"{running.format_plan(workbench.plan(request))}\n")
            return 0
        console.inform(running.describe_device(request.device))
        track: str | bool = False if options.no_track else options.track or True
        comparison = workbench.compare(request, retry=options.retry, track=track)
        console.inform(running.summarise(comparison))
    named = list_options(options.plugin, options.data_dir, options.home, options.skip_bad_images)
    text = render(comparison.rows, options.format, workbench.list_baselines(comparison.protocol))
    if options.format == "table" and (words := answer(workbench, comparison, request, named)):
        text += f"\n{words}"
    running.write_output(text, output)
    if folder is not None:
        with console:
            stored = StoredComparison.read(workbench.store, workbench.registry, comparison.key)
            page = explain_all(workbench, stored, folder, named)
        print(f"wrote {make_printable(page)}", file=sys.stderr)
    skipped = running.warn_if_all_skipped(comparison, request, workbench.registry)
    return FAILED if skipped or comparison.failed or shared.has_broken_named_plugin(workbench, options) else 0
