"""Random filters: the R of Jarrett et al. 2009."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patches import PatchSource
from featbench.stages.filters import Bank, Filters

DISTRIBUTIONS = ("uniform", "normal")


@dataclass(frozen=True)
class Random(FilterLearner):
    """Random filters: independent uniform weights, each filter of zero mean and unit norm.

    The paper gives no distribution. distribution: uniform or normal. zero_mean: subtract the mean of each filter over
    all its maps together; one mean per map would take from a second stage the local averages it lives on (measured on
    Caltech-101: -4.5 points). scale: norm of each filter. gain: of every map; biases are 0.
    """

    name: ClassVar[str] = "random"
    family: ClassVar[Family] = "random"
    source: ClassVar[str] = "Jarrett et al. 2009"

    distribution: str = "uniform"
    zero_mean: bool = True
    scale: float = 1.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {', '.join(DISTRIBUTIONS)}, not {self.distribution!r}")
        if self.scale <= 0 or self.gain <= 0:
            raise ValueError(f"scale and gain must be positive, not {self.scale} and {self.gain}")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Draw the filters of `bank`, on the CPU, so that the seed decides them whatever the device."""
        generator = torch.Generator().manual_seed(seed)
        if self.distribution == "uniform":
            weight = 2 * torch.rand(bank.shape, generator=generator) - 1
        else:
            weight = torch.randn(bank.shape, generator=generator)
        # Without its mean, a filter of a single weight would be zero.
        if self.zero_mean and weight[0].numel() > 1:
            weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = self.scale * weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return Filters(weight, gain=weight.new_full((bank.filters,), self.gain))


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register random filters."""
    return [Random]
