"""A command of the `featbench` program, as plugins may add one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """`featbench NAME`: `configure` adds its options to a parser, `run` gives the exit code."""

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


BUILT_IN_COMMANDS = {
    "bench": "measure feature extraction on this machine, beside its convolutions and plain torch",
    "compare": "compare feature learners under one protocol and print the table",
    "data": "list, check, describe and download data sets",
    "filters": "draw the filters that a learner finds",
    "leaderboard": "publish results as leaderboard entries, and render leaderboards",
    "list": "list learners, datasets, protocols, tables, classifiers or plugins",
    "reproduce": "measure a published table anew, and print both beside each other",
    "study": "measure what papers show beside their tables: energies, stability, invariance, codes, numbers of filters",
    "ui": "open MLflow's page on the comparisons of this store",
}
"""Built-in commands; each is a module of featbench.cli, imported when it is called, so that --help answers at once."""
