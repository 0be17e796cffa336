"""`featbench export`: a row of a comparison as a model, for new images."""

from __future__ import annotations

import argparse
import sys

from featbench.cli import options as shared
from featbench.cli.main import FAILED


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench export`."""
    parser.description = (
        "Writes one row of a comparison that ran before, as it was fitted on one draw, to a folder of JSON and "
        "safetensors: for `featbench predict`, and for featbench.load in Python. It is written only if it predicts for "
        "the draw's test images what the comparison did."
    )
    parser.add_argument(
        "row",
        nargs="?",
        default="best",
        metavar="ROW",
        help="best (the default), the row's number in the printed table, or what it is called there, as in "
        "'psd U logistic'",
    )
    parser.add_argument("--output", default="model", metavar="FOLDER", help="folder that is written (default: ./model)")
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="draw that it was fitted on (default: 0)")
    parser.add_argument(
        "--comparison", metavar="KEY", help="beginning of the key of a comparison (default: the last one that ran)"
    )
    parser.add_argument("--force", action="store_true", help="replace a model that is there already")
    shared.add_workbench(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Fit the row again, or read it from the store, and write it."""
    from featbench.cli.console import Console
    from featbench.execution.stored_comparison import StoredComparison
    from featbench.model.exporting import fit_model
    from featbench.model.folder import require_place, write_model
    from featbench.system.printable import make_printable
    from featbench.system.user_files import expand_user

    folder = expand_user(options.output)
    require_place(folder, force=options.force)
    with Console(quiet=options.quiet) as console:
        workbench = shared.make_workbench(options, console)
        comparison = StoredComparison.read(workbench.store, workbench.registry, options.comparison)
        row = comparison.find_row(options.row)
        document, parts = fit_model(workbench, comparison, row, options.draw)
        write_model(folder, document, parts)
    score = document["score"]
    measured = f"{score['metric']} {score['value']:.4g} {score['unit']}".rstrip()
    print(
        f"wrote {make_printable(folder)}: {row.name}, as fitted on draw {options.draw} ({measured} on its test images)",
        file=sys.stderr,
    )
    return FAILED if shared.has_broken_named_plugin(workbench, options) else 0
