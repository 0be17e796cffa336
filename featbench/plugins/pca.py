"""Principal component analysis of patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from featbench.errors import LearningError
from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix, PrincipalComponents
from featbench.learning.patches import PatchSource
from featbench.stages.filters import Bank, Filters


@dataclass(frozen=True)
class Pca(FilterLearner):
    """Principal components of patches, largest variance first: g tanh(wᵀ(x - mean patch)), g = 1.

    The filters are the eigenvectors v of the covariance of the patches, all divided by one number, so that their
    outputs have unit root mean square before the tanh. Of the two signs of a component, that in which the first
    entry of more than half the largest is positive.

    whiten: each v is divided by its own standard deviation instead, so that all outputs have unit variance.
    patches: drawn once. centre: the mean of each patch over all its maps is taken out, which leaves one dimension less.
    """

    name: ClassVar[str] = "pca"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Hotelling 1933"

    whiten: bool = False
    patches: int = 20_000
    centre: bool = True

    def __post_init__(self) -> None:
        if self.patches < 2:
            raise ValueError("patches must be at least 2")

    def refusal(self, bank: Bank) -> str | None:
        """There are no more components than dimensions."""
        values = bank.fan_in * bank.size**2
        dimensions = values - 1 if self.centre and values > 1 else values
        if bank.filters <= dimensions:
            return None
        less = "" if dimensions == values else ", one less without their mean"
        return (
            f"{bank.filters} filters are asked for, but patches of {bank.fan_in}×{bank.size}×{bank.size} values have "
            f"only {dimensions} principal components{less}: take fewer or larger filters"
        )

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Find the components, [filters, fan_in, size, size]; those of unit norm are the extra `decoder`."""
        matrix = PatchMatrix.sample("PCA", bank, patches, self.patches, centre=self.centre)
        principal = PrincipalComponents.of(matrix.rows, bank.filters)
        found = len(principal.variances)
        if found < bank.filters:
            raise LearningError(
                f"the patches vary in {found} dimensions only, but {bank.filters} principal components are asked for: "
                "take fewer filters, or more images"
            )
        scale = principal.variances if self.whiten else principal.variances.mean()
        weight = principal.components / scale.sqrt().view(-1, 1)
        decoder = principal.components.view(bank.shape)
        # The bias centres the patches: w · (x - mean) = w · x - w · mean.
        bias = -weight @ principal.mean
        return Filters(matrix.fold(weight).view(bank.shape), bias=bias, extras={"decoder": decoder})


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register PCA."""
    return [Pca]
