"""Protocols: data set, preprocessing, split rule, draws, metric, and the grid that is run by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from featbench.data.maps import Preprocessing

Metric = Literal["accuracy", "mean-per-class-accuracy"]


@dataclass(frozen=True)
class Protocol:
    """A declared protocol; it holds no logic.

    train_per_class: training images of each class, None for all. validation_fraction: the part of them held out while
    something is chosen. test: "rest" (all images that are not trained on) or "fixed" (the data set's own test split).
    test_per_class: at most so many test images of each class, None for all. architectures: more of them by name, for
    `--stages`. features, regimes, classifiers: what a comparison runs if it is not told. refinement: settings of R+ and
    U+ as in "epochs=30,rate=0.01", where they are not the defaults; refinements: others by name, for `--refine`, which
    go on top. source: paper.
    """

    name: str
    summary: str
    dataset: str
    architecture: str
    preprocessing: Preprocessing
    train_per_class: int | None
    test: Literal["rest", "fixed"]
    features: tuple[str, ...]
    regimes: tuple[str, ...] = ("R", "U", "R+", "U+", "fixed")
    classifiers: tuple[str, ...] = ("logistic",)
    validation_fraction: float = 1 / 6
    test_per_class: int | None = None
    draws: int = 5
    metric: Metric = "accuracy"
    architectures: Mapping[str, str] = field(default_factory=dict)
    refinement: str = ""
    refinements: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
