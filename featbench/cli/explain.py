"""`featbench explain`: a row of a comparison looked at closely, as files and as a page."""

from __future__ import annotations

import argparse
import sys

from featbench.cli import options as shared
from featbench.cli.main import FAILED


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench explain`."""
    parser.description = (
        "Writes how well each class is recognised, what it is taken for, and the images that were predicted wrong, for "
        "one row of a comparison that ran before, as files and as a page that needs no network. Nothing is computed "
        "again."
    )
    parser.add_argument(
        "row",
        nargs="?",
        default="best",
        metavar="ROW",
        help="best (the default), the row's number in the printed table, or what it is called there, as in "
        "'psd U logistic'",
    )
    parser.add_argument(
        "--output", default="details", metavar="FOLDER", help="folder that is written (default: ./details)"
    )
    parser.add_argument(
        "--comparison", metavar="KEY", help="beginning of the key of a comparison (default: the last one that ran)"
    )
    shared.add_workbench(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Write the details of the row."""
    from featbench.cli.console import Console
    from featbench.details.collect import collect_details
    from featbench.details.explain import list_options, require_writable_folder, write_details
    from featbench.execution.stored_comparison import StoredComparison
    from featbench.system.printable import make_printable

    folder = require_writable_folder(options.output)
    with Console(quiet=options.quiet) as console:
        workbench = shared.make_workbench(options, console)
        comparison = StoredComparison.read(workbench.store, workbench.registry, options.comparison)
        details = collect_details(workbench, comparison, comparison.find_row(options.row))
        named = list_options(options.plugin, options.data_dir, options.home, options.skip_bad_images)
        page = write_details(details, folder, named)
    print(f"wrote {make_printable(page)}: {details.row}", file=sys.stderr)
    return FAILED if shared.has_broken_named_plugin(workbench, options) else 0
