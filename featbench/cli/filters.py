"""`featbench filters`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from featbench.cli import options as shared

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
    group.add_argument("--output", default="filters.png", metavar="FILE.png", help="default: filters.png")
    group.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Learn the filters, or read them from the store, and write the picture."""
    output = shared.writable_file(options.output)
    alone = options.protocol is None and options.unlabelled is not None
    options.protocol = options.protocol or "digits"
    options.features = options.features or "psd"
    request = shared.request_of(options)
    from featbench.cli.console import Console
    from featbench.files import write_atomically
    from featbench.gallery import folder_filters, protocol_filters
    from featbench.picture import filters_png

    name = "decoder" if options.decoder else "weight"
    with Console(quiet=options.quiet) as console:
        workbench = shared.workbench_of(options, console)
        console.inform("learning filters")
        if alone:
            weight = folder_filters(workbench, replace(request, stages=request.stages or STAGES), options.stage, name)
        else:
            weight = protocol_filters(workbench, request, options.stage, name)
    write_atomically(output, lambda file: file.write(filters_png(weight)))
    print(f"wrote {output}: {weight.shape[0]} filters of {weight.shape[2]}×{weight.shape[3]}", file=sys.stderr)
    return 0
