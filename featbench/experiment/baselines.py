"""Baselines: the rows that a protocol adds to every table, to compare the others with."""

from __future__ import annotations

from collections.abc import Sequence

from featbench.evaluation.protocol import Protocol
from featbench.evaluation.regimes import Regime, parse_regimes
from featbench.experiment.cell import Cell
from featbench.experiment.refusals import is_map_classifier
from featbench.experiment.request import parse_choice, parse_classifier
from featbench.parameters import Choice
from featbench.registry import Registry

Pair = tuple[Choice, Regime]
"""A learner, and the regime that it runs under."""


def find_baseline_pairs(protocol: Protocol, registry: Registry) -> list[Pair]:
    """Return the learners of a protocol's baselines, each with its regime."""
    learners = [parse_choice(baseline.learner, registry) for baseline in protocol.baselines]
    return list(zip(learners, parse_regimes(baseline.regime for baseline in protocol.baselines), strict=True))


def choose_baseline_classifiers(protocol: Protocol, classifiers: Sequence[str], registry: Registry) -> list[list[str]]:
    """Return the classifiers of each baseline in a comparison of these classifiers."""
    # Baselines go with classifiers of rows: the grey values of raw pixels, one by one, are not local vectors.
    of_rows = [name for name in classifiers if not is_map_classifier(name, registry)]
    chosen = []
    for baseline in protocol.baselines:
        if baseline.classifier is not None:
            chosen.append([parse_classifier(baseline.classifier, registry)])
        else:
            chosen.append(of_rows or [parse_classifier(baseline.otherwise, registry)])
    return chosen


def is_baseline(cell: Cell, registry: Registry) -> bool:
    """Whether a cell belongs to a row that its protocol adds to every table."""
    return (cell.learner, cell.regime) in find_baseline_pairs(registry.protocol(cell.protocol), registry)
