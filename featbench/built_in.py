"""The plugins that come with featbench, in the order in which they are loaded."""

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
    "featbench.protocols.caltech101",
    "featbench.protocols.caltech101_83",
    "featbench.protocols.caltech101_spm",
    "featbench.protocols.digits",
    "featbench.protocols.jarrett2009",
    "featbench.protocols.lazebnik2006",
    "featbench.protocols.mnist",
    "featbench.protocols.norb",
    "featbench.protocols.yang2009",
)


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
