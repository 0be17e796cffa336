"""The two rows every table needs: raw pixels, and chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, NetworkLearner
from featbench.learning.patches import MapSource
from featbench.stages.specs import Shape


class _Constant(nn.Module):
    """Gives the feature 1 for every image, [n, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 1, device=x.device)


@dataclass(frozen=True)
class RawPixels(NetworkLearner):
    """The preprocessed pixels themselves."""

    name: ClassVar[str] = "raw-pixels"
    family: ClassVar[Family] = "fixed"
    initial: ClassVar[str] = "–"
    differentiable: ClassVar[bool] = False

    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return the identity."""
        return nn.Identity()


@dataclass(frozen=True)
class Chance(NetworkLearner):
    """One constant feature, which tells nothing about the image: with the classifier `guess`, the row chance."""

    name: ClassVar[str] = "chance"
    family: ClassVar[Family] = "fixed"
    initial: ClassVar[str] = "–"
    differentiable: ClassVar[bool] = False
    gives: ClassVar[Literal["maps", "row"]] = "row"
    constant: ClassVar[bool] = True

    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return a module that gives 1 for every image."""
        return _Constant()


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register the baselines."""
    return [RawPixels, Chance]
