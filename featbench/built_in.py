"""What comes with featbench: the modules of its plugins, its commands, and the class of a command.

Names alone: a module is imported when the registry loads it, a command's when it is called, so that `featbench --help`
answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

BUILT_IN = (
    "featbench.plugins.baselines",
    "featbench.plugins.random",
    "featbench.plugins.gabor",
    "featbench.plugins.conv_psd",
    "featbench.plugins.ipsd",
    "featbench.plugins.lista",
    "featbench.plugins.psd",
    "featbench.plugins.pyramids",
    "featbench.plugins.sparse_coding",
    "featbench.plugins.kmeans",
    "featbench.plugins.pca",
    "featbench.plugins.ica",
    "featbench.plugins.rbm",
    "featbench.plugins.autoencoder",
    "featbench.plugins.sift",
    "featbench.plugins.convnet",
    "featbench.plugins.module",
    "featbench.classifiers.logistic",
    "featbench.classifiers.guess",
    "featbench.classifiers.knn",
    "featbench.classifiers.mlp",
    "featbench.classifiers.svm",
    "featbench.classifiers.pmk_svm",
    "featbench.classifiers.pyramid_match_svm",
    "featbench.datasets.caltech101",
    "featbench.datasets.cifar",
    "featbench.datasets.digits",
    "featbench.datasets.folder",
    "featbench.datasets.mnist",
    "featbench.datasets.natural",
    "featbench.datasets.norb",
    "featbench.datasets.stl10",
    "featbench.datasets.svhn",
    "featbench.protocols.metrics",
    "featbench.protocols.caltech101",
    "featbench.protocols.caltech101_83",
    "featbench.protocols.caltech101_spm",
    "featbench.protocols.digits",
    "featbench.protocols.jarrett2009",
    "featbench.protocols.lazebnik2006",
    "featbench.protocols.mnist",
    "featbench.protocols.norb",
    "featbench.protocols.own_images",
    "featbench.protocols.yang2009",
)
"""Modules of the built-in plugins, in the order in which the registry loads them."""


@dataclass(frozen=True)
class Command:
    """A command of the command line, `featbench NAME`.

    A plugin returns its commands from the hook `featbench_commands`.

    Parameters
    ----------
    name : str
        What is typed after `featbench`.
    summary : str
        One line that says what the command does. `featbench NAME --help` begins with it.
    configure : callable
        Receives the command's `argparse.ArgumentParser` and adds the options to it; returns nothing. `--debug` is added
        afterwards if the command does not add it.
    run : callable
        Receives the parsed options, an `argparse.Namespace`, and returns the exit code: 0 for success, 1 if something
        failed, 2 if the request or the data is wrong. A `FeatbenchError` that it raises is printed without a traceback,
        and ends the program with code 2.

    Examples
    --------
    >>> def configure(parser):
    ...     parser.add_argument("--name", default="world")
    >>> def run(options):
    ...     print(f"hello, {options.name}")
    ...     return 0
    >>> hello = Command("hello", "greet someone", configure, run)
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


BUILT_IN_COMMANDS = {
    "bench": "measure feature extraction on this machine, beside its convolutions and plain torch",
    "compare": "compare feature learners under one protocol and print the table",
    "data": "list, check, describe and download data sets",
    "explain": "show a row's classes, confusions and wrong images, as files and as a page",
    "export": "write a row of a comparison as a model for new images",
    "filters": "draw the filters that a learner finds",
    "leaderboard": "publish results as leaderboard entries, and render leaderboards",
    "list": "list learners, datasets, metrics, protocols, tables, classifiers or plugins",
    "predict": "predict the classes of new images with an exported model",
    "reproduce": "measure a published table again, and print both side by side",
    "study": "measure what papers show beside their tables: energies, stability, invariance, codes, numbers of filters",
    "ui": "serve MLflow's page with the comparisons of this store",
}
"""Built-in commands and their summaries; `featbench compare` is the module featbench.cli.compare, and so on."""
