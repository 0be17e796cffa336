"""Patches as the rows of a matrix, centred, scaled and whitened: what most unsupervised learners start from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.errors import LearningError
from featbench.learning.patches import PatchSource
from featbench.stages.filters import Bank

ROUNDING = 1e-6
"""Patches whose centred values are below this part of the values themselves hold rounding errors instead of signal."""

RANK = 1e-5
"""Principal components of less than this part of the largest variance are rounding errors."""

BLOCK = 4096
"""Rows that are summed in single precision; sums of blocks are added in double: fast, and exact enough for RANK."""


@dataclass(frozen=True)
class PatchMatrix:
    """Patches as rows [n, d] of unit root mean square, and how they were normalised.

    rows = (patches - mean of each, if `centred`) / scale, float32, where the patches are; d = fan_in × size × size.
    """

    rows: Tensor
    scale: float
    centred: bool

    @classmethod
    def sample(
        cls, learner: str, bank: Bank, patches: PatchSource | None, count: int, *, centre: bool = True
    ) -> PatchMatrix:
        """Sample `count` patches for `bank`; `learner` is what messages call the learner.

        With `centre` the mean of each patch over all its maps is subtracted, but for patches of a single value.
        Raises `LearningError` if there are none, or fewer than filters, or if they hold no signal.
        """
        if patches is None:
            raise LearningError(f"{learner} learns from patches and was given none")
        if count < bank.filters:
            raise LearningError(
                f"{learner} cannot learn {bank.filters} filters from {count} patches: sample at least {bank.filters}"
            )
        raw = patches.sample(count).flatten(1)
        if not bool(torch.isfinite(raw).all()):
            raise LearningError(
                f"{learner} cannot learn from patches that are not finite: check the images and the stages below"
            )
        # A patch of a single value is its own mean: centred, it would be zero.
        centred = centre and raw.shape[1] > 1
        rows = raw - raw.mean(dim=1, keepdim=True) if centred else raw
        scale = _root_mean_square(rows)
        if scale <= ROUNDING * _root_mean_square(raw):
            raise LearningError(f"the patches hold no signal for {learner} to learn from: all of them are constant")
        return cls(rows / scale, scale, centred)

    def fold(self, weight: Tensor) -> Tensor:
        """Return the weight [k, d] that gives on patches as they come what `weight` [k, d] gives on the rows.

        weight · (x - mean of x) / scale = (weight - mean of each of its rows) · x / scale.
        """
        folded = weight / self.scale
        return folded - folded.mean(dim=1, keepdim=True) if self.centred else folded


@dataclass(frozen=True)
class PrincipalComponents:
    """The directions in which rows [n, d] vary, largest variance first; those without variance are left out.

    mean [d] of the rows; components [r, d] of unit norm; variances [r] along them.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor

    @classmethod
    def of(cls, rows: Tensor, most: int | None = None) -> PrincipalComponents:
        """Find the components of rows [n, d], at most `most` of them.

        The sign of a component is that in which the first entry of more than half the largest magnitude is positive.
        """
        mean = rows.mean(dim=0)
        covariance = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        for block in torch.split(rows, BLOCK):
            deviations = block - mean
            covariance += (deviations.T @ deviations).double()
        # eigh sorts from the smallest eigenvalue.
        variances, vectors = torch.linalg.eigh(covariance / len(rows))
        variances, components = variances.flip(0), vectors.T.flip(0)
        rank = int((variances > RANK * variances[0]).sum())
        kept = rank if most is None else min(rank, most)
        variances, components = variances[:kept], components[:kept]
        # An eigenvector's sign is arbitrary, and differs between versions of LAPACK. Not the sign of the largest entry:
        # two of almost the same size would let rounding decide.
        magnitudes = components.abs()
        leading = (magnitudes > 0.5 * magnitudes.amax(dim=1, keepdim=True)).int().argmax(dim=1, keepdim=True)
        components = components * components.gather(1, leading).sign()
        return cls(mean, components.to(rows.dtype), variances.to(rows.dtype))

    def compute_whitener(self, epsilon: float = 0.0) -> Tensor:
        """Return W = (variances + ε)^-½ components, [r, d]: it gives centred rows unit variance (whitens them)."""
        return self.components / (self.variances + epsilon).sqrt().unsqueeze(1)

    def compute_unwhitener(self, epsilon: float = 0.0) -> Tensor:
        """Return (variances + ε)^½ components, [r, d]: whitened values times it are the centred rows again."""
        return self.components * (self.variances + epsilon).sqrt().unsqueeze(1)


def _root_mean_square(values: Tensor) -> float:
    # In double: squares of small single-precision numbers would underflow.
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) / math.sqrt(values.numel())
