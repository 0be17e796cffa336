"""Convolutional networks that only labels train, from random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patches import PatchSource
from featbench.refinement.random_numbers import generator
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.filters import Bank, Filters
from featbench.types import IntArray

ACTIVATIONS = ("tanh", "relu")


class MapDropout(nn.Module):
    """While training, sets each map of each image to 0 with probability `rate`, and divides the rest by 1 - rate.

    A map of one value, as those of a fully connected layer, is a unit (Srivastava et al. 2014); of larger maps the
    values stand or fall together (Tompson et al. 2015). The draws come from `featbench.refinement.random_numbers`.
    """

    # A call keeps nothing on the module, and in evaluation, where several threads run it, it draws nothing either.
    reentrant: ClassVar[bool] = True

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x [n, maps, ...] with some of its maps dropped; in evaluation, x itself."""
        if not self.training:
            return x
        # Not torch's global generator: several threads train at once, and each has its own draws to be reproducible.
        drawn = torch.rand(x.shape[:2], generator=generator(x.device), device=x.device)
        kept = (drawn >= self.rate).to(x.dtype) / (1 - self.rate)
        return x * kept.view(*x.shape[:2], *(1,) * (x.ndim - 2))


@dataclass(frozen=True)
class ConvNet(FilterLearner):
    """Random weights of a size that suits back-propagation: what `F` stands for in a supervised ConvNet.

    activation: tanh with a gain, for weights and biases uniform within ±1/√inputs (LeCun et al. 1998; Torch7), or relu,
    for normal weights of variance 2/inputs and no bias (He et al. 2015). batch_norm: normalise each map over a batch
    before the activation (Ioffe, Szegedy 2015). dropout: the part of the maps that is set to 0 while it is trained.
    """

    name: ClassVar[str] = "convnet"
    family: ClassVar[Family] = "supervised"
    source: ClassVar[str] = "LeCun, Bottou, Bengio, Haffner 1998"

    activation: str = "tanh"
    batch_norm: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, not {self.dropout}")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Draw the weights of `bank`, of a scale that keeps the variance of activations from layer to layer."""
        draws = torch.Generator().manual_seed(seed)
        inputs = bank.fan_in * bank.size**2
        if self.activation == "relu":
            return Filters(math.sqrt(2 / inputs) * torch.randn(bank.shape, generator=draws))
        weight = 2 * torch.rand(bank.shape, generator=draws) - 1
        bias = 2 * torch.rand(bank.filters, generator=draws) - 1
        return Filters(weight / math.sqrt(inputs), bias=bias / math.sqrt(inputs))

    def encoder(self, filters: Filters, table: IntArray) -> nn.Module:
        """Build filter bank, batch normalisation, activation and dropout, without those that are switched off."""
        modules: list[nn.Module] = [FilterBank(filters, table)]
        if self.batch_norm:
            modules.append(nn.BatchNorm2d(len(filters.weight)))
        modules.append(nn.ReLU() if self.activation == "relu" else TanhGain(filters.gain))
        if self.dropout:
            modules.append(MapDropout(self.dropout))
        return nn.Sequential(*modules)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register the ConvNet."""
    return [ConvNet]
