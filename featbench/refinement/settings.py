"""Settings of supervised refinement."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from featbench.learning.schedules import cosine_decay
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
    """Settings of supervised refinement: minibatch gradient descent on the mean log-loss of a classifier layer.

    Every setting has a default, and all of them can be given as text, as in ``--refine "epochs=20,rate=0.002"``.

    Parameters
    ----------
    epochs : int, default 30
        Passes over the training images, at most.
    patience : int, default 10
        Epochs without a better validation score after which training stops.
    refit : bool, default False
        Whether the network is then trained again from its start on all training images, those held out for validation
        included, for as many epochs as were best.
    batch : int, default 16
        Images of a step.
    optimizer : {"adamw", "sgd"}, default "adamw"
        AdamW (Loshchilov, Hutter 2019), or stochastic gradient descent with `momentum`.
    rate : float, default 1e-3
        Learning rate of the extractor, in (0, 1e9].
    head_rate : float, default 1e-2
        Learning rate of the classifier layer, whose inputs are standardised and scaled to norm 1; in (0, 1e9].
    schedule : {"cosine", "step", "constant"}, default "cosine"
        How both rates fall over `epochs`: along half a cosine; to a tenth at half and again at three quarters of them;
        or not at all.
    momentum : float, default 0.9
        Of `sgd`, in [0, 1). AdamW keeps its usual 0.9 and 0.999.
    decay : float, default 0.01
        Weight decay of all parameters. AdamW applies it apart from the gradient; with `sgd` it is an L2 penalty.
    l1 : float, default 0
        Factor of the penalty Σ|w| over weights of more than one dimension.
    clip : float, default 0
        Largest L2 norm of the gradient over all parameters; 0 for any.
    hidden : int, default 0
        Units of a tanh layer between extractor and classifier layer, whose activity becomes the features; 0 for none.
    shift : float, default 0
        Distortion of training images: translation in pixels. This setting and those below are explained at
        `featbench.Augmentation`.
    rotate : float, default 0
        Rotation in degrees.
    scale : float, default 0
        Change of size, as a fraction.
    shear : float, default 0
        Shear, as the tangent of an angle.
    elastic : float, default 0
        Strength of an elastic distortion in pixels.
    smooth : float, default 4
        Smoothness of the elastic distortion in pixels.
    flip : bool, default False
        Whether images are mirrored at random.

    Raises
    ------
    ValueError
        If a value lies outside its range. The message names the setting.

    Notes
    -----
    The papers give no settings; Jarrett et al. 2009 says "online SGD". AdamW is the default because its steps do not
    depend on the scale of the gradients: one pair of rates trains stages of any scale. docs/refinement.md compares the
    two.
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
        self.augmentation  # noqa: B018 - built to be checked: it refuses values out of range

    @property
    def augmentation(self) -> Augmentation:
        """The distortions of training images."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    def compute_rate_factor(self, epoch: int) -> float:
        """Return what both learning rates are multiplied by in an epoch, counted from 1; in the first it is 1.

        The schedule is laid out over `epochs`, even if `patience` or a refit ends training earlier.
        """
        done = (epoch - 1) / self.epochs
        if self.schedule == "cosine":
            return cosine_decay(done)
        return 1.0 if self.schedule == "constant" else 0.1 ** sum(done >= drop for drop in DROPS)

    @classmethod
    def read(cls, *texts: str) -> Refinement:
        """Read settings from texts such as `epochs=30,rate=0.01`; where several name a setting, the last one counts.

        So a protocol's settings come first, and a user's after them. Settings that no text names have their defaults. A
        `UsageError` names what cannot be read.
        """
        given: dict[str, Any] = {}
        for text in texts:
            given |= dict(Choice.read(f"{cls.name}({text})").parameters)
        return cls.create(given)

    def __str__(self) -> str:
        """Return the text from which `read` makes these settings: those that differ from the defaults."""
        return self.format_changes(type(self)())

    def format_changes(self, other: Refinement) -> str:
        """Return the text that, read after that of `other`, gives these settings: those in which they differ."""
        differing = {name: value for name, value in self.parameters().items() if value != getattr(other, name)}
        return ",".join(f"{name}={value}" for name, value in differing.items())
