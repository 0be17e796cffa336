"""Settings of supervised refinement."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from featbench.parameters import Choice, Parametrised
from featbench.refinement.augmentation import Augmentation

OPTIMIZERS = ("sgd", "adamw")

SCHEDULES = ("cosine", "step", "constant")

LARGEST_RATE = 1e9
"""Beyond it a step overflows whatever the gradient."""

DROPS = (0.5, 0.75)
"""Parts of the epochs after which the rates of `step` are divided by ten."""


@dataclass(frozen=True)
class Refinement(Parametrised):
    """Minibatch descent on the mean log-loss; the papers give no settings (Jarrett et al. 2009 says "online SGD").

    Steps are AdamW's: with one pair of rates it trains stages of any scale (docs/refinement.md has what SGD did).

    epochs: passes over the training images, at most. patience: epochs without a better validation score before it
    stops. refit: start anew on all training images, those for validation included, for as many epochs as were best.
    batch: images of a step. optimizer: adamw, or sgd with momentum. rate: of the extractor; head_rate: of the
    classifier layer, whose inputs are standardised and scaled to norm 1. schedule: the rates fall along half a cosine
    over `epochs`, by tens in steps at half and three quarters of them, or not at all (constant). decay: weight decay.
    l1: penalty of the sum of weights' magnitudes. clip: largest norm of the gradient, 0 for any. hidden: units of a
    tanh layer before the classes, whose activity becomes the features; 0 for none.
    shift, rotate, scale, shear, elastic, smooth, flip: distortions of training images, see `Augmentation`.
    """

    name: ClassVar[str] = "refine"

    epochs: int = 30
    patience: int = 10
    refit: bool = False
    batch: int = 16
    optimizer: str = "adamw"
    rate: float = 1e-3
    head_rate: float = 1e-2
    schedule: str = "cosine"
    momentum: float = 0.9
    decay: float = 0.01
    l1: float = 0.0
    clip: float = 0.0
    hidden: int = 0
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    smooth: float = 4.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("rate", "head_rate"):
            if not 0 < getattr(self, name) <= LARGEST_RATE:
                raise ValueError(f"{name} must be positive and at most {LARGEST_RATE:g}, not {getattr(self, name)}")
        for name in ("decay", "l1", "clip", "hidden"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, not {self.momentum}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        self.augmentation  # noqa: B018 - which refuses what it cannot do

    @property
    def augmentation(self) -> Augmentation:
        """The distortions of training images."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    def factor(self, epoch: int) -> float:
        """Return what the rates are multiplied by in an epoch, from 1."""
        done = (epoch - 1) / self.epochs
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 if self.schedule == "constant" else 0.1 ** sum(done >= drop for drop in DROPS)

    @classmethod
    def read(cls, *texts: str) -> Refinement:
        """Read `epochs=30,rate=0.01`, later texts over earlier ones; a `UsageError` names what cannot be read."""
        given: dict[str, Any] = {}
        for text in texts:
            given |= dict(Choice.read(f"{cls.name}({text})").parameters)
        return cls.create(given)

    def __str__(self) -> str:
        """Return the text that gives these settings, those that differ from the defaults."""
        return self.beside(type(self)())

    def beside(self, other: Refinement) -> str:
        """Return the text that makes these settings of others."""
        differing = {name: value for name, value in self.parameters().items() if value != getattr(other, name)}
        return ",".join(f"{name}={value}" for name, value in differing.items())
