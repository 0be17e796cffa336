"""The classifier layer that an extractor is refined with, and the hidden layer that may stand before it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

ITERATIONS = 20
"""Of L-BFGS, for each penalty."""

PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
"""L2 penalties among which validation images choose, for features of norm 1; each fit starts from the one before."""


class Standardised(nn.Module):
    """Features [n, d] by their statistics over training images: mean 0, variance 1, then scaled to a norm of 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def fit(self, features: Tensor) -> None:
        """Take the statistics of training features [t, d]; constant ones are given no weight."""
        deviation = features.std(dim=0, correction=0)
        mean = features.mean(dim=0)
        # What rounding leaves of a constant feature is not blown up: it is small beside its mean, or beside the others.
        varies = deviation > 1e-6 * torch.maximum(mean.abs(), deviation.square().mean().sqrt())
        scale = torch.where(varies, 1 / deviation.clamp_min(1e-30), torch.zeros_like(deviation))
        self.mean.copy_(mean)
        self.scale.copy_(scale / math.sqrt(max(int(varies.sum()), 1)))

    def forward(self, maps: Tensor) -> Tensor:
        """Standardise maps [n, ...] into [n, d]."""
        return (maps.flatten(1) - self.mean) * self.scale


class HiddenLayer(nn.Module):
    """Units tanh(W x + b) on standardised features x: [n, ...] to [n, units]; the 200 of Jarrett et al. 2009, MNIST."""

    def __init__(self, features: int, units: int, seed: int) -> None:
        super().__init__()
        self.standardised = Standardised(features)
        # Rows of norm 1 meet weights of variance 1, so that tanh is neither linear nor saturated at the start.
        weight = torch.randn(units, features, generator=torch.Generator().manual_seed(seed))
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(units))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the activity of the units."""
        return torch.tanh(functional.linear(self.standardised(maps), self.weight, self.bias))


class Head(nn.Module):
    """The classifier layer: features standardised by their statistics at the start, then linear."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.standardised = Standardised(features)
        self.linear = nn.Linear(features, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits [n, classes] of maps [n, ...]."""
        return self.linear(self.standardised(maps))  # type: ignore[no-any-return]


def fit(head: Head, features: Tensor, labels: Tensor, penalty: float) -> None:
    """Fit the classifier layer to frozen features [t, d] from where it is: mean log-loss + penalty ‖w‖², by L-BFGS."""
    rows = head.standardised(features)
    optimizer = torch.optim.LBFGS(head.linear.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head.linear(rows), labels) + penalty * head.linear.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
