"""What a comparison is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from featbench.parameters import Choice
from featbench.registry import Registry


@dataclass(frozen=True)
class Request:
    """What a comparison is asked for; None means what the protocol declares.

    protocol: None for `digits`, or for one that suits the images of a folder. channels: grey, rgb or opponent.
    thorough: whether the protocol's thorough selection is compared too. train_per_class, test_per_class: a number, or
    "all". stages: an architecture, or the protocol's name for one. refine: settings of R+ and U+, as in
    "epochs=30,rate=0.01", or the protocol's name for some.
    """

    protocol: str | None = None
    dataset: str | None = None
    features: Sequence[str] | None = None
    regimes: Sequence[str] | None = None
    classifiers: Sequence[str] | None = None
    stages: str | None = None
    train_per_class: int | str | None = None
    test_per_class: int | str | None = None
    draws: int | None = None
    seed: int = 0
    device: str = "auto"
    unlabelled: str | None = None
    precision: str = "float32"
    refine: str | None = None
    channels: str | None = None
    thorough: bool = False


def parse_choice(text: str, registry: Registry) -> Choice:
    """Read `psd` or `psd(lam=0.5|1,updates=2000)`; names, parameters and their types are checked."""
    choice = Choice.read(text)
    return registry.learner(choice.name).choice(dict(choice.parameters))


def parse_classifier(text: str, registry: Registry) -> str:
    """Return the canonical text of a classifier with its parameters, so that two spellings of one are one row."""
    choice = Choice.read(text)
    return str(registry.classifier(choice.name).choice(dict(choice.parameters)))


def split_list(text: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]
