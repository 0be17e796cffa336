"""`featbench data`: data sets listed, described, verified and downloaded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from featbench.cli import options as shared
from featbench.cli.main import FAILED
from featbench.cli.streams import emit

if TYPE_CHECKING:
    from pathlib import Path

    from featbench.data.dataset import Dataset

ACTIONS = {
    "list": "list every data set, and whether this machine has a copy",
    "info": "describe a data set and the local copy",
    "verify": "check the files of the local copy, and read every image",
    "fetch": "download a data set",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench data list`, `info`, `verify` and `fetch`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS))
    for action, summary in ACTIONS.items():
        own = actions.add_parser(action, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if action != "list":
            own.add_argument("name", metavar="NAME", help="name of the data set, as in `featbench data list`")
        shared.add_workbench(own)
        own.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(options: argparse.Namespace) -> int:
    """Run the action that was named."""
    from featbench.data.folder import resolve_data_folder
    from featbench.registry import Registry

    registry = Registry(options.plugin, strict=options.strict)
    shared.report_broken_plugins(registry, options)
    data_dir = resolve_data_folder(options.data_dir)
    if options.action == "list":
        return _list({name: registry.dataset(name) for name in registry.names("datasets")}, data_dir)
    act = {"info": _info, "verify": _verify, "fetch": _fetch}[options.action]
    return act(options.name, registry.dataset(options.name), data_dir)


def _list(datasets: dict[str, Dataset], data_dir: Path | None) -> int:
    from featbench.data.inventory import explain_absence, get_summary

    width = max(map(len, datasets))
    for name, dataset in datasets.items():
        state = "not here" if explain_absence(name, dataset, data_dir) else "here"
        emit(f"{name:<{width}}  {state:<8}  {get_summary(dataset)}\n")
    return 0


def _info(name: str, dataset: Dataset, data_dir: Path | None) -> int:
    from featbench.data.inventory import describe

    for label, text in describe(name, dataset, data_dir):
        emit(f"{label:<10}{text}\n")
    return 0


def _verify(name: str, dataset: Dataset, data_dir: Path | None) -> int:
    from featbench.cli.console import Console
    from featbench.data.verification import verify

    with Console() as console:
        found = verify(name, dataset, data_dir, console.step)
    for note in found.notes:
        emit(f"{note}\n")
    for problem in found.problems:
        emit(f"problem: {problem}\n")
    emit(f"{found.summary}\n")
    return FAILED if found.problems else 0


def _fetch(name: str, dataset: Dataset, data_dir: Path | None) -> int:
    from featbench.cli.console import Console
    from featbench.data.inventory import fetch

    with Console() as console:
        fetch(name, dataset, data_dir, lambda line: emit(f"{line}\n"), console.step)
    return 0
