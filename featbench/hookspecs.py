"""The hooks a plugin may implement. Built-ins use the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featbench.built_in import Command
    from featbench.classification.classifier import AnyClassifier
    from featbench.data.dataset import Dataset
    from featbench.evaluation.metrics import Metric
    from featbench.evaluation.protocol import Protocol
    from featbench.evaluation.published import PublishedTable
    from featbench.learning.learner import FeatureLearner

hookspec = pluggy.HookspecMarker("featbench")
hookimpl = pluggy.HookimplMarker("featbench")


@hookspec
def featbench_learners() -> Sequence[type[FeatureLearner]]:  # type: ignore[empty-body]
    """Return feature learners: subclasses of `FilterLearner` or `NetworkLearner`."""


@hookspec
def featbench_classifiers() -> Sequence[AnyClassifier]:  # type: ignore[empty-body]
    """Return classifiers: instances of `Classifier` or of `MapClassifier`."""


@hookspec
def featbench_datasets() -> Sequence[Dataset]:  # type: ignore[empty-body]
    """Return data sets: instances of `Dataset`."""


@hookspec
def featbench_metrics() -> Sequence[Metric]:  # type: ignore[empty-body]
    """Return metrics, by which protocols score: instances of `Metric`."""


@hookspec
def featbench_protocols() -> Sequence[Protocol]:  # type: ignore[empty-body]
    """Return protocols: instances of `Protocol`."""


@hookspec
def featbench_tables() -> Sequence[PublishedTable]:  # type: ignore[empty-body]
    """Return published tables for `featbench reproduce NAME`: instances of `PublishedTable`."""


@hookspec
def featbench_commands() -> Sequence[Command]:  # type: ignore[empty-body]
    """Return commands for `featbench NAME`."""
