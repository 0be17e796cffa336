"""Supervised refinement (R+, U+): back-propagation through the whole extractor and a classifier layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.errors import LearningError
from featbench.seeds import derive_seed
from featbench.types import IntArray


@dataclass(frozen=True)
class Refinement:
    """Settings of minibatch SGD with momentum; the paper gives none (Jarrett et al. 2009 says "online SGD").

    rate: learning rate of the extractor. head_rate: of the classifier layer, whose inputs are standardised and scaled
    to norm 1. decay: weight decay. The rates fall along half a cosine over `epochs`. patience: epochs without a better
    validation score before it stops.
    """

    epochs: int = 40
    patience: int = 12
    batch: int = 16
    rate: float = 0.02
    head_rate: float = 1.0
    momentum: float = 0.9
    decay: float = 1e-4


SLOWDOWNS = (1, 4, 16, 64)
"""What the rates are divided by, in turn, where refinement diverges: features of any scale can be refined."""


class _DivergedError(Exception):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class _Kept:
    """A state of the network: its epoch, its validation score, its weights."""

    epoch: int
    score: tuple[float, float]
    weights: dict[str, Tensor]


class Head(nn.Module):
    """The classifier layer: features standardised by their initial statistics, scaled to norm 1, then linear."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, classes: int) -> None:
        super().__init__()
        deviation = features.std(dim=0, correction=0)
        mean = features.mean(dim=0)
        # What rounding leaves of a constant feature is not blown up: it is small beside its mean, or beside the others.
        varies = deviation > 1e-6 * torch.maximum(mean.abs(), deviation.square().mean().sqrt())
        scale = torch.where(varies, 1 / deviation.clamp_min(1e-30), torch.zeros_like(deviation))
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale / math.sqrt(max(int(varies.sum()), 1)))
        self.linear = nn.Linear(features.shape[1], classes, device=features.device)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits [n, classes] of maps [n, ...]."""
        return self.linear((maps.flatten(1) - self.mean) * self.scale)  # type: ignore[no-any-return]


def refine(
    network: nn.Module,
    maps: Tensor,
    labels: IntArray,
    validation: NDArray[np.bool_],
    *,
    classes: int,
    seed: int,
    device: torch.device,
    settings: Refinement | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Refine `network` in place on maps [t, ...] with labels [t]; returns what was done.

    Rows marked in `validation` [t] are not trained on: the weights with the best score on them are kept, those of the
    start included. Where the loss ceases to be finite, it starts anew with smaller rates. Raises `LearningError` if
    there is nothing to refine, or if it diverges at the smallest.
    """
    settings = settings or Refinement()
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise LearningError("the extractor has no parameters to refine")
    if validation.all() or not validation.any():
        raise LearningError("refinement needs training images and validation images")
    network.to(device)
    held_out = torch.from_numpy(validation)
    x, y = maps[~held_out].to(device), torch.from_numpy(labels)[~held_out].to(device)
    vx, vy = maps[held_out].to(device), torch.from_numpy(labels)[held_out].to(device)
    features = _features(network, x)
    if not bool(torch.isfinite(features).all()):
        raise LearningError(
            "refinement cannot start: the loss is not finite, since features of training images are not"
        )
    head = Head(features, classes)
    # The head of the frozen net first, so that the start is scored as fairly as what follows.
    _train_head(head, features, y)
    start = _Kept(0, _score(network, head, vx, vy), copy.deepcopy(network.state_dict()))
    head_start = copy.deepcopy(head.state_dict())
    for slowdown in SLOWDOWNS:
        slower = replace(settings, rate=settings.rate / slowdown, head_rate=settings.head_rate / slowdown)
        try:
            epochs, best = _descend(network, head, start, (x, y), (vx, vy), slower, seed, progress)
            break
        except _DivergedError:
            network.load_state_dict(start.weights)
            head.load_state_dict(head_start)
    else:
        raise LearningError("refinement diverged at every learning rate tried: the loss is not finite")
    network.load_state_dict(best.weights)
    return {
        "epochs": epochs,
        "best_epoch": best.epoch,
        "rate": slower.rate,
        "validation_before": 100 * start.score[0],
        "validation_after": 100 * best.score[0],
    }


def _descend(
    network: nn.Module,
    head: Head,
    start: _Kept,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    settings: Refinement,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, _Kept]:
    """Train network and head from `start`; returns the epochs run and the best state seen."""
    best, epoch = start, 0
    optimizer = _optimizer(network, head, settings)
    for epoch in range(1, settings.epochs + 1):
        _set_rates(optimizer, settings, epoch)
        order = np.random.default_rng(derive_seed(seed, "refine", epoch)).permutation(len(training[0]))
        _train_epoch(network, head, optimizer, *training, order, settings.batch)
        score = _score(network, head, *validation)
        if score > best.score:
            best = _Kept(epoch, score, copy.deepcopy(network.state_dict()))
        if progress is not None:
            progress(epoch, settings.epochs)
        if epoch - best.epoch >= settings.patience:
            break
    return epoch, best


def _optimizer(network: nn.Module, head: Head, settings: Refinement) -> torch.optim.SGD:
    groups = [
        {"params": [p for p in network.parameters() if p.requires_grad], "lr": settings.rate},
        {"params": list(head.parameters()), "lr": settings.head_rate},
    ]
    return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.decay)


def _set_rates(optimizer: torch.optim.SGD, settings: Refinement, epoch: int) -> None:
    factor = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs))
    for group, rate in zip(optimizer.param_groups, (settings.rate, settings.head_rate), strict=True):
        group["lr"] = rate * factor


def _train_epoch(
    network: nn.Module,
    head: Head,
    optimizer: torch.optim.SGD,
    x: Tensor,
    y: Tensor,
    order: NDArray[np.int64],
    batch: int,
) -> None:
    network.train()
    for start in range(0, len(order), batch):
        chosen = torch.from_numpy(order[start : start + batch]).to(x.device)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(head(network(x[chosen])), y[chosen])
        if not bool(torch.isfinite(loss)):
            raise _DivergedError
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _train_head(head: Head, features: Tensor, y: Tensor) -> None:
    """Fit the classifier layer alone (L-BFGS, a weak L2 penalty)."""
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(features), y) + 1e-3 * head.linear.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _features(network: nn.Module, x: Tensor, block: int = 128) -> Tensor:
    network.eval()
    return torch.cat([network(x[i : i + block]).flatten(1) for i in range(0, len(x), block)])


@torch.no_grad()
def _score(network: nn.Module, head: Head, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return accuracy, and minus the loss to break ties: larger is better; a net that has gone astray is worst."""
    logits = head(_features(network, x))
    loss = functional.cross_entropy(logits, y)
    if not bool(torch.isfinite(loss)):
        return -1.0, -math.inf
    return float((logits.argmax(dim=1) == y).float().mean()), -float(loss)
