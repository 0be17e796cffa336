"""Options that several commands share, and the request and workbench that they describe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featbench.errors import UsageError
from featbench.system.user_files import expand_user, find_obstacle, is_standard_output

if TYPE_CHECKING:
    from featbench.comparison import Workbench
    from featbench.execution.listeners import Listener
    from featbench.experiment.request import Request
    from featbench.registry import Registry


def add_request(parser: argparse.ArgumentParser, features: str = "the protocol's") -> None:
    """Add the options that describe a request: what is compared. `features` is the default that --help prints."""
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--protocol",
        type=read_text,
        metavar="NAME",
        help="the protocol (default: digits; for --dataset folder:PATH one that suits the images)",
    )
    group.add_argument(
        "--features", metavar="LIST", help=f"learners, such as random,psd(lam=0.5) (default: {features})"
    )
    group.add_argument(
        "--regimes", metavar="LIST", help="regimes among R,U,R+,U+,fixed,fixed+ (default: the protocol's)"
    )
    group.add_argument(
        "--classifiers", metavar="LIST", help="classifiers, such as logistic,knn(k=5) (default: the protocol's)"
    )
    group.add_argument(
        "--stages",
        metavar="ARCHITECTURE",
        help="architecture, such as '64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4', or the protocol's name for one",
    )
    group.add_argument("--train-per-class", metavar="N|all", help="number of training images of each class")
    add_variations(group)
    group.add_argument(
        "--thorough", action="store_true", help="compare the protocol's thorough selection of learners and regimes too"
    )


def add_variations(group: argparse._ArgumentGroup) -> None:
    """Add the options that override what a protocol or a published table declares."""
    group.add_argument("--dataset", type=read_text, metavar="NAME", help="data set, instead of the protocol's own")
    group.add_argument("--test-per-class", metavar="N|all", help="largest number of test images of each class")
    group.add_argument("--draws", type=int, metavar="N", help="number of draws of training images")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where to compute (default: auto)")
    group.add_argument(
        "--precision",
        default="float32",
        metavar="float32|tf32|bf16|fp16",
        help="number format of filter banks during feature extraction (default: float32)",
    )
    group.add_argument(
        "--refine",
        type=read_text,
        metavar="SETTINGS",
        help="settings of R+ and U+, such as epochs=30,rate=0.01,refit=true, or the protocol's name for some",
    )
    group.add_argument(
        "--channels",
        metavar="grey|rgb|opponent",
        help="what becomes of the images' colours (default: the protocol's, which is grey unless it says otherwise)",
    )
    group.add_argument(
        "--unlabelled",
        type=read_text,
        metavar="PATH",
        help="folder of images, or data set, to learn filters from in place of the training images; training+PATH: "
        "from both",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options that control how cells are run and how their table is shown."""
    group = parser.add_argument_group("how it is run and shown")
    group.add_argument(
        "--format",
        choices=("table", "markdown", "csv", "json"),
        default="table",
        help="format of the table (default: table)",
    )
    group.add_argument(
        "--output",
        type=read_text,
        metavar="FILE",
        help="write the table to this file instead of printing it (-: print it)",
    )
    group.add_argument("--plan", action="store_true", help="print the cells that would run, and stop")
    group.add_argument("--retry", action="store_true", help="compute failed cells again")
    group.add_argument(
        "--track",
        type=read_text,
        metavar="URI",
        help="MLflow server (default: MLFLOW_TRACKING_URI, else a database in the store)",
    )
    group.add_argument("--no-track", action="store_true", help="write nothing to MLflow")
    group.add_argument("--quiet", action="store_true", help="show no progress")


def add_workbench(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the folders of data and results, and plugins."""
    group = parser.add_argument_group("where things are")
    group.add_argument("--data-dir", metavar="PATH", help="folder of the data sets (default: FEATBENCH_DATA)")
    group.add_argument(
        "--home", type=read_text, metavar="PATH", help="the store (default: FEATBENCH_HOME, else .featbench)"
    )
    group.add_argument(
        "--plugin",
        action="append",
        type=read_text,
        default=[],
        metavar="FILE.py",
        help="load this plugin; may be repeated",
    )
    group.add_argument(
        "--skip-bad-images", action="store_true", help="leave out images that cannot be read, and list them"
    )
    group.add_argument("--strict", action="store_true", help="fail if a plugin cannot be loaded")


def make_request(options: argparse.Namespace) -> Request:
    """Return the request that the options describe."""
    from featbench.experiment.request import Request

    return Request(
        protocol=options.protocol,
        features=read_names(options.features, "--features"),
        regimes=read_names(options.regimes, "--regimes"),
        classifiers=read_names(options.classifiers, "--classifiers"),
        stages=options.stages,
        train_per_class=options.train_per_class,
        thorough=options.thorough,
        **read_variations(options),
    )


def read_variations(options: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the options of `add_variations`, by the names of a request's fields."""
    from featbench.experiment.variations import list_requested_variations

    return {name: getattr(options, name) for name in list_requested_variations()}


def read_text(text: str) -> str:
    """Return the value of an option that must not be empty: a script's unset variable must not mean "the default"."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: give a value, or leave the option out")
    return text


def read_names(text: str | None, option: str) -> list[str] | None:
    """Split the list of names that an option was given; None if the option was not given.

    Raises `UsageError` for an empty list: an option that was given must not mean "the default".
    """
    from featbench.experiment.request import split_list

    if text is None:
        return None
    found = split_list(text)
    if not found:
        raise UsageError(f"{option} is empty: give at least one name")
    return found


def make_workbench(options: argparse.Namespace, listener: Listener | None = None) -> Workbench:
    """Return the workbench that the options describe; prints which plugins could not be loaded."""
    from featbench.comparison import Workbench

    workbench = Workbench(
        plugins=options.plugin,
        strict=options.strict,
        data_dir=options.data_dir,
        home=options.home,
        listener=listener,
        skip_bad_images=options.skip_bad_images,
    )
    report_broken_plugins(workbench.registry, options)
    return workbench


def report_broken_plugins(registry: Registry, options: argparse.Namespace) -> None:
    """Print on stderr which plugins could not be loaded and why; with --debug, the tracebacks as well."""
    for record in registry.broken:
        print(
            f"featbench: plugin {record.name} ({record.origin}) could not be loaded: {record.error}",
            file=sys.stderr,
        )
        if getattr(options, "debug", False):
            print(record.traceback, file=sys.stderr)


def has_broken_named_plugin(workbench: Workbench, options: argparse.Namespace) -> bool:
    """Return whether a plugin that the user named with --plugin could not be loaded."""
    # Broken plugins that are merely installed are reported, but do not fail the command.
    named = {str(expand_user(plugin)) for plugin in options.plugin}
    return any(record.origin in named for record in workbench.registry.broken)


def require_writable_file(text: str | None) -> Path | None:
    """Return the path of a file that can be written; None for standard output, which is `-` and the default.

    Commands call this first: hours of computing must not end at a folder that does not exist. Raises `UsageError` for a
    file that cannot be written.
    """
    if text is None or text == "-":
        return None
    path = expand_user(text)
    if is_standard_output(path):
        return None
    obstacle = " is a folder: name a file" if text.endswith("/") else find_obstacle(path)
    if obstacle:
        raise UsageError(f"--output {path}{obstacle}")
    return path
