"""The classifier layer that an extractor is refined with, and the hidden layer that may stand before it."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.system.seeds import derive_seed

ITERATIONS = 20
"""Iterations of L-BFGS for each penalty."""

PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
"""L2 penalties among which validation images choose, for features of norm 1; each fit starts from the one before."""

CONSTANT = 1e-6
"""Deviation, relative to the mean or to the other features, below which a feature counts as constant.

It is about ten times the rounding error of float32, which is all that a constant feature varies by.
"""


class Standardisation(nn.Module):
    """Standardise features [n, d] by their statistics over training images, then scale the rows to norm 1.

    Each feature gets mean 0 and variance 1; division by the root of their number gives rows a mean square norm of 1. A
    learning rate of the layer behind it then means the same whatever the number and the scale of the features.

    The statistics are buffers: they stay as they were at the start of training, while the features change. Were they
    recomputed from batches, an image's features would depend on the images beside it, as with batch normalisation.
    """

    # The forward pass only reads the buffers; `fit` writes them before any training or extraction begins.
    reentrant: ClassVar[bool] = True

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def fit(self, features: Tensor) -> None:
        """Take the statistics of training features [t, d]; constant features are scaled by 0."""
        deviation = features.std(dim=0, correction=0)
        mean = features.mean(dim=0)
        # A constant feature deviates by its rounding error: divided by that it would be noise of variance 1. The error
        # is small beside the feature's own mean or, where the mean is 0 too, beside the other features.
        varies = deviation > CONSTANT * torch.maximum(mean.abs(), deviation.square().mean().sqrt())
        scale = torch.where(varies, 1 / deviation.clamp_min(1e-30), torch.zeros_like(deviation))
        self.mean.copy_(mean)
        self.scale.copy_(scale / math.sqrt(max(int(varies.sum()), 1)))

    def forward(self, maps: Tensor) -> Tensor:
        """Standardise maps [n, ...] into [n, d]."""
        return (maps.flatten(1) - self.mean) * self.scale


class HiddenLayer(nn.Module):
    """Units tanh(W x + b) on standardised features x: [n, ...] to [n, units]; the 200 of Jarrett et al. 2009, MNIST.

    The weights are drawn from `seed`, with variance 1; the biases are 0.
    """

    # W and b change between batches only, when no thread runs the layer.
    reentrant: ClassVar[bool] = True

    def __init__(self, features: int, units: int, seed: int) -> None:
        super().__init__()
        self.standardisation = Standardisation(features)
        # Rows of norm 1 times weights of variance 1 give tanh an argument of variance 1: it starts neither linear, so
        # that the layer would do nothing, nor saturated, so that no gradient would pass.
        weight = torch.randn(units, features, generator=torch.Generator().manual_seed(seed))
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(units))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the activity of the units."""
        return torch.tanh(functional.linear(self.standardisation(maps), self.weight, self.bias))


class ClassifierLayer(nn.Module):
    """The layer whose loss refines the extractor: features standardised, then linear, [n, ...] to logits [n, classes].

    It starts at zero weights, where all classes are equally likely. After training it is thrown away: the features
    feed whatever classifier the comparison names.
    """

    # It is run on whole batches in one thread, but it holds nothing of a call either.
    reentrant: ClassVar[bool] = True

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.standardisation = Standardisation(features)
        self.linear = nn.Linear(features, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits [n, classes] of maps [n, ...]."""
        return self.linear(self.standardisation(maps))  # type: ignore[no-any-return]


def fit_classifier_layer(layer: ClassifierLayer, features: Tensor, labels: Tensor, penalty: float) -> None:
    """Minimise the mean log-loss + penalty ‖w‖² over frozen features [t, d], from the present weights, by L-BFGS.

    The problem is convex, and the features do not change: full-batch L-BFGS needs no learning rate, and its 20
    iterations cost less than an epoch of training through the extractor.
    """
    # Standardised once, and not in each of L-BFGS's evaluations.
    rows = layer.standardisation(features)
    optimizer = torch.optim.LBFGS(layer.linear.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(layer.linear(rows), labels) + penalty * layer.linear.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    # It may be called from a worker thread, in which gradients are switched off.
    with torch.enable_grad():
        optimizer.step(evaluate)  # type: ignore[no-untyped-call]


def add_hidden_layer(network: nn.Module, features: int, units: int, seed: int) -> nn.Sequential:
    """Return a network that gives so many features, followed by a hidden layer whose weights `seed` decides."""
    return nn.Sequential(network, HiddenLayer(features, units, derive_seed(seed, "hidden")))
