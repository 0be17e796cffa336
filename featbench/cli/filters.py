"""`featbench filters`: a picture of the filters that a learner finds."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace

from featbench.cli import options as shared
from featbench.cli import running
from featbench.errors import UsageError

ORDERS = ("variance", "frequency", "orientation")

STAGES = "64F12"
"""Architecture for a folder of images if none is given: filters of 12×12 pixels, as in the papers' pictures."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench filters`."""
    parser.description = (
        "Draws the filters that one learner (--features, default psd) finds on the first draw of a protocol. With "
        "--unlabelled and without --protocol it learns on that folder alone, whose images are then turned to grey, "
        f"standardised and locally contrast-normalised; --stages defaults to {STAGES}."
    )
    shared.add_request(parser, features="psd")
    shared.add_workbench(parser)
    parser.set_defaults(protocol=None)
    group = parser.add_argument_group("what is drawn")
    group.add_argument(
        "--stage", type=int, default=1, metavar="N", help="number of the stage whose filters are drawn (default: 1)"
    )
    group.add_argument(
        "--decoder", action="store_true", help="draw the atoms of the decoder instead of the filters of the encoder"
    )
    group.add_argument(
        "--sort",
        choices=ORDERS,
        help="order of the filters: the variance of their weights, or the frequency or orientation of their waves "
        "(default: the order in which they were learned)",
    )
    group.add_argument(
        "--map",
        metavar="ROWSxCOLUMNS",
        help="rows and columns of the picture, such as 16x8 (default: the map of the filters if they lie on one, else "
        "about square)",
    )
    group.add_argument(
        "--output",
        type=shared.read_text,
        default="filters.png",
        metavar="FILE.png",
        help="the picture (default: filters.png; -: standard output)",
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Learn the filters, or read them from the store, and write the picture."""
    output = shared.require_writable_file(options.output)
    grid = _read_rows_and_columns(options.map) if options.map else None
    if options.sort and grid:
        raise UsageError("--sort changes the order that a map shows: give --sort or --map, not both")
    # Asked before the defaults are filled in, since a request always has a protocol.
    alone = options.protocol is None and options.unlabelled is not None
    options.protocol = options.protocol or "digits"
    options.features = options.features or "psd"
    request = shared.make_request(options)
    from featbench.cli.console import Console
    from featbench.report.filters import filters_png
    from featbench.studies.gallery import learn_on_folder, learn_under_protocol, put_on_map, sort_filters

    name = "decoder" if options.decoder else "weight"
    with Console(quiet=options.quiet) as console:
        workbench = shared.make_workbench(options, console)
        console.inform("learning filters")
        if alone:
            shown = learn_on_folder(workbench, replace(request, stages=request.stages or STAGES), options.stage, name)
        else:
            shown = learn_under_protocol(workbench, request, options.stage, name)
    if options.sort:
        shown = sort_filters(shown, options.sort)
    if grid:
        shown = put_on_map(shown, *grid)
    filters, _, height, width = shown.weight.shape
    picture = filters_png(shown.weight, shown.grid, colour=shown.colour)
    running.write_output(picture, output, f": {filters} filters of {height}×{width}")
    return 0


def _read_rows_and_columns(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise UsageError(f"cannot read --map {text!r}: write ROWSxCOLUMNS, such as 16x8")
    return int(match.group(1)), int(match.group(2))
