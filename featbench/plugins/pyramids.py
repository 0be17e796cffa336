"""Spatial pyramids of coded SIFT as features: ScSPM, LLC, and macrofeatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from featbench.errors import UsageError
from featbench.evaluation.regimes import Family
from featbench.features.coding import Codebook, Coding
from featbench.features.descriptors import SIFT, dense_sift
from featbench.features.spatial_pyramid import SpatialPyramid, VectorSample
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, NetworkLearner
from featbench.learning.patches import MapSource
from featbench.stages.specs import Shape
from featbench.system.seeds import derive_seed

IMAGES = 1000
"""Images whose descriptors the codebook is learned from, at most."""


class PyramidOfSift(nn.Module):
    """Takes maps [n, 1, height, width] of any size to rows [n, length]: pooled codes of their descriptors."""

    words: Tensor
    spread: Tensor

    def __init__(self, learner: CodedSift, words: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.learner, self.pyramid = learner, learner.pyramid()
        self.register_buffer("words", words)
        self.register_buffer("spread", spread)

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows of maps x."""
        codebook = Codebook(self.pyramid.coding, self.words, float(self.spread))
        return self.pyramid.encode(self.learner.descriptors(x), codebook)


@dataclass(frozen=True)
class CodedSift(NetworkLearner):
    """What the three pipelines have in common. No gradient flows through the codes.

    codebook: number of words, learned from `samples` descriptors of the images that it may look at. levels: of the
    pyramid. size, step: of SIFT's patches. macro: side of the square of neighbouring descriptors coded together.
    """

    family: ClassVar[Family] = "unsupervised"
    differentiable: ClassVar[bool] = False
    gives: ClassVar[Literal["maps", "row"]] = "row"

    codebook: int = 1024
    levels: int = 2
    size: int = 16
    step: int = 8
    macro: int = 1
    samples: int = 100_000

    def __post_init__(self) -> None:
        if self.size < SIFT.cells or self.step < 1:
            raise ValueError(f"size ≥ {SIFT.cells} and step ≥ 1 are needed")
        self.pyramid()

    def coding(self) -> Coding:
        """Return how descriptors are coded."""
        return Coding()

    def pyramid(self) -> SpatialPyramid:
        """Return how the codes are pooled: the largest of each cell, and rows of unit norm."""
        return SpatialPyramid(
            words=self.codebook,
            levels=self.levels,
            coding=self.coding(),
            pooling="max",
            normalise="l2",
            macro=self.macro,
            samples=self.samples,
        )

    def descriptors(self, x: Tensor) -> Tensor:
        """Return the descriptors [n, rows, columns, 128] of maps [n, 1, height, width]."""
        return dense_sift(x[:, 0], size=self.size, step=self.step)

    def refusal(self, shape: Shape) -> str | None:
        """SIFT describes one map, and there must be room for a descriptor, or for a square of them."""
        maps, height, width = shape
        needed = self.size + (self.macro - 1) * self.step
        if maps != 1:
            return f"{self.name} describes one map, and {maps} come in: make the images grey"
        if min(height, width) < needed:
            return f"{needed}×{needed} pixels are needed, and images of {height}×{width} come in: try a smaller size"
        return None

    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Learn the codebook from the images of `maps`."""
        reason = self.refusal(shape)
        if reason or maps is None:
            raise UsageError(reason or f"{self.name} needs images to learn a codebook from")
        generator = np.random.default_rng(derive_seed(seed, "images"))
        # In order, so that images are read from the disk one after the other.
        chosen = np.sort(generator.permutation(len(maps))[:IMAGES])
        pyramid = self.pyramid()
        # Some images at a time: descriptors of all would not fit into the memory, and the sample keeps few of each.
        sample = VectorSample(pyramid, len(chosen), derive_seed(seed, "vectors"))
        for _, some in maps.batches(chosen):
            sample.add(self.descriptors(some))
        codebook = pyramid.coding.learn(sample.vectors(), pyramid.words, derive_seed(seed, "codebook"))
        return PyramidOfSift(self, codebook.words, torch.tensor(codebook.spread))

    def rebuild(self, shape: Shape, state: Mapping[str, Tensor]) -> nn.Module:
        """Build the network from the words."""
        return PyramidOfSift(self, state["words"], state["spread"])


@dataclass(frozen=True)
class ScSpm(CodedSift):
    """ScSPM: sparse codes of SIFT, the largest magnitude in each cell of a pyramid; for a linear SVM.

    lam: of ‖x - Dz‖² + lam ‖z‖₁, for descriptors x of unit norm. step: 6, as in the authors' code.
    """

    name: ClassVar[str] = "scspm"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
    source: ClassVar[str] = "Yang, Yu, Gong, Huang 2009"

    step: int = 6
    lam: float = 0.15

    def coding(self) -> Coding:
        """Return sparse coding."""
        return Coding("sparse", lam=self.lam)


@dataclass(frozen=True)
class Macrofeatures(ScSpm):
    """Sparse codes of squares of 2×2 neighbouring SIFT descriptors, pooled as in ScSPM; for a linear SVM."""

    name: ClassVar[str] = "macrofeatures"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
    source: ClassVar[str] = "Boureau, Bach, LeCun, Ponce 2010"

    macro: int = 2
    lam: float = 0.3


@dataclass(frozen=True)
class Llc(CodedSift):
    """LLC: SIFT descriptors as weighted sums of the nearest words, the largest weight in each cell of a pyramid.

    neighbours: nearest words. beta: regularises the local covariance.
    """

    name: ClassVar[str] = "llc"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
    source: ClassVar[str] = "Wang, Yang, Yu, Lv, Huang, Gong 2010 (the approximated code)"

    codebook: int = 2048
    neighbours: int = 5
    beta: float = 1e-4

    def coding(self) -> Coding:
        """Return locality-constrained linear coding."""
        return Coding("llc", neighbours=self.neighbours, beta=self.beta)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register the three pipelines."""
    return [ScSpm, Macrofeatures, Llc]
