"""`featbench predict`: the classes of new images, by a model that `featbench export` wrote."""

from __future__ import annotations

import argparse
import sys

from featbench.cli import options as shared
from featbench.cli import running


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench predict`."""
    parser.description = (
        "Prints the class of each image with its probability, or its margin where the classifier gives no "
        "probabilities. CSV and JSON have those of all classes."
    )
    parser.add_argument("model", metavar="MODEL", help="folder that `featbench export` wrote")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files, or folders of images")
    parser.add_argument(
        "--format", choices=("text", "csv", "json"), default="text", help="format of the output (default: text)"
    )
    parser.add_argument("--output", metavar="FILE", help="write to this file instead of printing; - is stdout")
    parser.add_argument(
        "--skip-bad-images", action="store_true", help="leave out images that cannot be read, and list them"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="load this plugin; may be repeated"
    )
    parser.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="FILE.py",
        help="run this file, where the model needs it for module(file=…); may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Predict, and print or write what was predicted."""
    output = shared.require_writable_file(options.output)
    from featbench.cli.console import Console
    from featbench.model.inputs import read_inputs
    from featbench.model.loading import load
    from featbench.model.rendering import render_predictions

    with Console(quiet=options.quiet) as console:
        model = load(options.model, plugins=options.plugin, code=options.code)
        inputs = read_inputs(options.paths)
        found = model.examine(
            inputs,
            skip_bad=options.skip_bad_images,
            progress=lambda done, total: console.step("predicting, image", done, total),
        )
        for line in found.left_out:
            console.say(f"featbench: left out: {line}")
        if inputs.ignored:
            console.inform(f"{inputs.ignored} files and folders are no images, and were left out")
    running.write_output(render_predictions(model, inputs, found, options.format), output)
    sys.stderr.flush()
    return 0
