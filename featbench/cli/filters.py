"""`featbench filters`."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace

from featbench.cli import options as shared
from featbench.errors import UsageError

ORDERS = ("variance", "frequency", "orientation")

STAGES = "64F12"
"""What is learned on a folder of images if no architecture is given: 12×12 patches, as in the papers' pictures."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench filters`."""
    parser.description = (
        "Draws the filters that one learner (--features, default psd) finds: on the first draw of a protocol, "
        "or, with --unlabelled and no --protocol, on that folder alone (then grey, standardised and locally "
        f"contrast-normalised; --stages defaults to {STAGES})."
    )
    shared.add_request(parser)
    shared.add_workbench(parser)
    parser.set_defaults(protocol=None)
    group = parser.add_argument_group("what is drawn")
    group.add_argument("--stage", type=int, default=1, metavar="N", help="stage whose filters are drawn (default: 1)")
    group.add_argument(
        "--decoder", action="store_true", help="draw the decoder's atoms in place of the encoder's filters"
    )
    group.add_argument(
        "--sort",
        choices=ORDERS,
        help="by the variance of their weights, or the frequency or orientation of their waves (default: as learned)",
    )
    group.add_argument(
        "--map",
        metavar="ROWSxCOLUMNS",
        help="the grid they are drawn on; learners whose filters lie on a map are drawn on it (default: a square)",
    )
    group.add_argument("--output", default="filters.png", metavar="FILE.png", help="default: filters.png")
    group.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Learn the filters, or read them from the store, and write the picture."""
    output = shared.writable_file(options.output)
    grid = _rows_and_columns(options.map) if options.map else None
    if options.sort and grid:
        raise UsageError("--sort takes filters off their map: give --sort or --map, not both")
    alone = options.protocol is None and options.unlabelled is not None
    options.protocol = options.protocol or "digits"
    options.features = options.features or "psd"
    request = shared.request_of(options)
    from featbench.cli.console import Console
    from featbench.report.filters import filters_png
    from featbench.studies.gallery import folder_filters, protocol_filters, put_on_map, sort_filters
    from featbench.system.files import write_atomically

    name = "decoder" if options.decoder else "weight"
    with Console(quiet=options.quiet) as console:
        workbench = shared.workbench_of(options, console)
        console.inform("learning filters")
        if alone:
            shown = folder_filters(workbench, replace(request, stages=request.stages or STAGES), options.stage, name)
        else:
            shown = protocol_filters(workbench, request, options.stage, name)
    if options.sort:
        shown = sort_filters(shown, options.sort)
    if grid:
        shown = put_on_map(shown, *grid)
    write_atomically(output, lambda file: file.write(filters_png(shown.weight, shown.grid, colour=shown.colour)))
    filters, _, height, width = shown.weight.shape
    print(f"wrote {output}: {filters} filters of {height}×{width}", file=sys.stderr)
    return 0


def _rows_and_columns(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise UsageError(f"cannot read --map {text!r}: write ROWSxCOLUMNS, as 16x8")
    return int(match.group(1)), int(match.group(2))
