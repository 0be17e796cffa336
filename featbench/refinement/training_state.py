"""How far a run of training has come, and what it found: plain values that a checkpoint keeps as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

SEARCH, REFIT = "refining", "refining on all"
"""The two runs of training: in the first, validation images decide on the epochs; the second takes all images."""

Document = dict[str, Any]
"""A JSON object."""


class ValidationScore(NamedTuple):
    """Accuracy in [0, 1], and minus the log-loss, which breaks ties: as tuples compare, larger is better."""

    accuracy: float
    negative_loss: float


NO_SCORE = ValidationScore(-1.0, -math.inf)
"""Below every score of a network whose features are finite."""


@dataclass(frozen=True)
class RefinementReport:
    """What refinement did.

    epochs: how many were trained. best_epoch: whose weights were kept, 0 for the start. rate: of the extractor, after
    any reduction. validation_before, validation_after: accuracy in percent, of the start and of the kept weights.
    train_loss: mean log-loss in the last epoch of a refit on all images; None without one.
    """

    epochs: int
    best_epoch: int
    rate: float
    validation_before: float
    validation_after: float
    train_loss: float | None = None

    def to_document(self) -> Document:
        """Return what results hold of a refinement: its fields, without `train_loss` where there was no refit."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RefinementReport:
        """Read what `to_document` returned."""
        return cls(**document)


@dataclass
class TrainingState:
    """How far a run of training has come: which run it is, in which epoch, after how many of its batches.

    run: `SEARCH` or `REFIT`. slowdown: what the learning rates of the settings are divided by. search: in a refit,
    what the search before it found. epoch: from 1. batch: batches of the epoch that are done. loss_sum: of their mean
    losses. best_epoch, best_score: of the weights that are kept. loss_scale: of fp16. pieces: into how many a batch is
    divided, for want of memory. finished: whether the run is over. seconds: all that training took so far.

    Nothing here is the state of a random number generator. What is drawn depends on the seed, the epoch and the batch,
    so that these numbers are enough to go on with the same bits.
    """

    run: str
    slowdown: float = 1.0
    search: RefinementReport | None = None
    epoch: int = 1
    batch: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_score: ValidationScore = NO_SCORE
    loss_scale: float = 1.0
    pieces: int = 1
    finished: bool = False
    seconds: float = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has been done yet."""
        return self.epoch == 1 and self.batch == 0

    @property
    def mean_loss(self) -> float:
        """The mean log-loss over those batches of the epoch that are done."""
        return self.loss_sum / self.batch

    @property
    def has_score(self) -> bool:
        """Whether validation images were ever scored; a refit has none."""
        return self.best_epoch > 0 or self.best_score.accuracy >= 0

    def to_document(self) -> Document:
        """Return the state as JSON."""
        # JSON has no infinity, which the log-loss may be: numbers as text keep it, and every bit of the others.
        score = [str(value) for value in self.best_score]
        search = None if self.search is None else self.search.to_document()
        return {**asdict(self), "best_score": score, "search": search}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> TrainingState:
        """Read what `to_document` returned."""
        accuracy, negative_loss = (float(text) for text in document["best_score"])
        search = document["search"]
        report = None if search is None else RefinementReport.from_document(search)
        return cls(**{**document, "best_score": ValidationScore(accuracy, negative_loss), "search": report})
