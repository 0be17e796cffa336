"""Options that several commands share, and the workbench they describe."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featbench.errors import UsageError

if TYPE_CHECKING:
    from featbench.comparison import Workbench
    from featbench.execution.listeners import Listener
    from featbench.experiment.request import Request
    from featbench.registry import Registry


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is compared."""
    group = parser.add_argument_group("what is compared")
    group.add_argument("--protocol", default="digits", metavar="NAME", help="protocol (default: digits)")
    group.add_argument("--features", metavar="LIST", help="learners, as in random,psd(lam=0.5)")
    group.add_argument("--regimes", metavar="LIST", help="among R,U,R+,U+,fixed,fixed+")
    group.add_argument("--classifiers", metavar="LIST", help="classifiers")
    group.add_argument(
        "--stages",
        metavar="ARCHITECTURE",
        help="as in '64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4', or the protocol's name for one",
    )
    group.add_argument("--train-per-class", metavar="N|all", help="training images of each class")
    add_variations(group)


def add_variations(group: argparse._ArgumentGroup) -> None:
    """Add the options that vary what a protocol or a published table declares."""
    group.add_argument("--dataset", metavar="NAME", help="data set in place of the protocol's own")
    group.add_argument("--test-per-class", metavar="N|all", help="at most so many test images of each class")
    group.add_argument("--draws", type=int, metavar="N", help="draws of training images")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where to compute (default: auto)")
    group.add_argument(
        "--precision",
        default="float32",
        metavar="float32|tf32|bf16|fp16",
        help="what filter banks multiply and keep maps in as features are extracted (default: float32)",
    )
    group.add_argument(
        "--refine",
        metavar="SETTINGS",
        help="settings of R+ and U+, as in epochs=30,rate=0.01,refit=true, or the protocol's name for some",
    )
    group.add_argument(
        "--unlabelled",
        metavar="PATH",
        help="folder of images, or data set, to learn filters from; training+PATH: besides the training images",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how cells are run and their table is shown."""
    group = parser.add_argument_group("how it is run and shown")
    group.add_argument("--format", choices=("table", "markdown", "csv", "json"), default="table", help="default: table")
    group.add_argument("--output", metavar="FILE", help="write the table there instead of printing it")
    group.add_argument("--plan", action="store_true", help="print the cells and stop")
    group.add_argument("--retry", action="store_true", help="compute cells that failed before once more")
    group.add_argument("--track", metavar="URI", help="MLflow server (default: MLFLOW_TRACKING_URI, else in the store)")
    group.add_argument("--no-track", action="store_true", help="write nothing to MLflow")
    group.add_argument("--quiet", action="store_true", help="no progress")


def add_workbench(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where data, results and plugins are."""
    group = parser.add_argument_group("where things are")
    group.add_argument("--data-dir", metavar="PATH", help="data sets (default: FEATBENCH_DATA)")
    group.add_argument("--home", metavar="PATH", help="the store (default: FEATBENCH_HOME, else .featbench)")
    group.add_argument(
        "--plugin", action="append", default=[], metavar="FILE.py", help="load a plugin; may be repeated"
    )
    group.add_argument(
        "--skip-bad-images", action="store_true", help="leave out images that cannot be read, and say so"
    )
    group.add_argument("--strict", action="store_true", help="stop at a plugin that cannot be loaded")


def request_of(options: argparse.Namespace) -> Request:
    """Return the request that the options describe."""
    from featbench.experiment.request import Request

    return Request(
        protocol=options.protocol,
        features=names(options.features, "--features"),
        regimes=names(options.regimes, "--regimes"),
        classifiers=names(options.classifiers, "--classifiers"),
        stages=options.stages,
        train_per_class=options.train_per_class,
        **variations_of(options),
    )


def variations_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of `add_variations` say, by the names of a request's fields."""
    names = ("dataset", "test_per_class", "draws", "seed", "device", "precision", "refine", "unlabelled")
    return {name: getattr(options, name) for name in names}


def names(text: str | None, option: str) -> list[str] | None:
    """Split the list of names that was given to an option; None if it was not given."""
    from featbench.experiment.request import split_list

    if text is None:
        return None
    found = split_list(text)
    if not found:
        raise UsageError(f"{option} names nothing")
    return found


def workbench_of(options: argparse.Namespace, listener: Listener | None = None) -> Workbench:
    """Return the workbench that the options describe; plugins that could not be loaded are said."""
    from featbench.comparison import Workbench

    workbench = Workbench(
        plugins=options.plugin,
        strict=options.strict,
        data_dir=options.data_dir,
        home=options.home,
        listener=listener,
        skip_bad_images=options.skip_bad_images,
    )
    say_broken(workbench.registry, options)
    return workbench


def say_broken(registry: Registry, options: argparse.Namespace) -> None:
    """Say which plugins could not be loaded, and why."""
    for record in registry.broken:
        print(
            f"featbench: plugin {record.name} ({record.origin}) could not be loaded: {record.error}",
            file=sys.stderr,
        )
        if getattr(options, "debug", False):
            print(record.traceback, file=sys.stderr)


def named_plugins_broke(workbench: Workbench, options: argparse.Namespace) -> bool:
    """Tell whether a plugin that the user named with --plugin could not be loaded."""
    return any(record.origin in options.plugin for record in workbench.registry.broken)


def writable_file(text: str) -> Path:
    """Return a path that can be written, or raise a `UsageError`: asked before anything is computed."""
    path = Path(text)
    if path.is_dir():
        raise UsageError(f"--output {path} is a folder: name a file")
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--output {path} cannot be written")
    return path
