"""K-means on patches, and its triangle and hard codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.kmeans import learn_centroids
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix, PrincipalComponents
from featbench.learning.patches import PatchSource
from featbench.stages.filters import Bank, Filters

CLOSEST = 1e-6
"""Least squared distance: at zero the gradient of the distance would be infinite."""


@dataclass(frozen=True)
class KMeans(FilterLearner):
    """K-means on normalised, whitened patches x, and the triangle code f_k = max(0, mean_k z - z_k), z_k = ‖x - c_k‖.

    A patch is normalised by its own mean and variance, x' = (x - mean) / √(variance + contrast × mean variance of all
    patches), then whitened, W (x' - mean x') with the W of PCA and variances larger by `epsilon` (Coates, Lee, Ng
    2011). Centroids start as k-means++ has it and follow Lloyd's updates until no patch changes sides; one that is left
    without patches starts again from the patch that lies farthest from its own. What `F` stands for is the code of
    the patch around each position; with a connection table the mean is over the centroids of one group.

    whiten: false leaves x' as it is. components: whitening keeps at most so many principal components, the leading
    ones; all of them for patches of no more values. patches: drawn once. iterations: at most so many updates.
    """

    name: ClassVar[str] = "kmeans"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Coates, Lee, Ng 2011"

    whiten: bool = True
    contrast: float = 0.01
    epsilon: float = 0.1
    components: int = 128
    patches: int = 20_000
    iterations: int = 50

    def __post_init__(self) -> None:
        if not (self.contrast > 0 and self.epsilon > 0):
            raise ValueError("contrast and epsilon must be positive")
        if min(self.patches, self.iterations, self.components) < 1:
            raise ValueError("patches, iterations and components must be at least 1")

    def refusal(self, bank: Bank) -> str | None:
        """A patch of one value is constant once it is normalised."""
        return "a patch of a single value has no contrast to normalise" if bank.fan_in * bank.size == 1 else None

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn centroids c, as filters w = Wᵀc and biases with which ‖x - c‖² = ‖x‖² - 2 (wᵀx' + bias).

        Extras: `decoder` [filters, fan_in, size, size], the centroids as normalised patches; for the encoder `scale`
        [1], the root mean variance of the patches, `whitener` W [r, fan_in, size, size] and `shift` W mean x' [r].
        """
        matrix = PatchMatrix.sample("K-means", bank, patches, self.patches)
        # Rows have unit mean square, so that `contrast` is relative to the mean variance of all patches.
        rows = matrix.rows / (matrix.rows.square().mean(dim=1, keepdim=True) + self.contrast).sqrt()
        extras = {"scale": rows.new_tensor([matrix.scale])}
        if not self.whiten:
            centroids = learn_centroids(rows, bank.filters, self.iterations, seed)
            weight, decoder, offset = centroids, centroids, rows.new_zeros(bank.filters)
        else:
            principal = PrincipalComponents.of(rows, self.components)
            whitener = principal.compute_whitener(self.epsilon)
            centroids = learn_centroids((rows - principal.mean) @ whitener.T, bank.filters, self.iterations, seed)
            weight, offset = centroids @ whitener, -centroids @ (whitener @ principal.mean)
            decoder = centroids @ principal.compute_unwhitener(self.epsilon) + principal.mean
            # The groups of a connection table are joined, which takes matrices of one size, whatever the rank of each.
            padded = functional.pad(whitener, (0, 0, 0, min(self.components, rows.shape[1]) - len(whitener)))
            extras["whitener"] = padded.view(-1, *bank.shape[1:])
            extras["shift"] = padded @ principal.mean
        extras["decoder"] = decoder.view(bank.shape)
        # ‖x - c‖² = ‖x‖² - 2 (xᵀc - ‖c‖²/2): the bias holds what does not depend on the patch.
        bias = offset - centroids.square().sum(dim=1) / 2
        return Filters(matrix.fold(weight).view(bank.shape), bias=bias, extras=extras)

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build the triangle code."""
        return nn.Sequential(Distances(filters, table, self.contrast), TriangleCode())


@dataclass(frozen=True)
class KMeansHard(KMeans):
    """K-means on patches as `kmeans` has it, with the hard code: 1 for the centroid that is nearest, 0 for the others.

    With a connection table there is one nearest centroid in each group. The code has no gradient.
    """

    name: ClassVar[str] = "kmeans-hard"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
    differentiable: ClassVar[bool] = False

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build the hard code."""
        return nn.Sequential(Distances(filters, table, self.contrast), HardCode())


class Distances(nn.Module):
    """Distances of the normalised, whitened patch around each position to all centroids, group by group.

    No patch is ever cut: its mean and variance are average poolings of x and x², and its products with W and the
    centroids are convolutions, from which the mean is taken out and which are divided by the deviation afterwards.
    """

    reentrant: ClassVar[bool] = True

    table: Tensor
    scale: Tensor
    whitener: Tensor | None
    shift: Tensor | None

    def __init__(self, filters: Filters, table: NDArray[np.int64], contrast: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(filters.weight.clone())
        self.bias = nn.Parameter(filters.bias.clone())
        self.contrast, self.groups = contrast, len(table)
        self.register_buffer("table", torch.from_numpy(table.copy()))
        for name in ("scale", "whitener", "shift"):
            kept = filters.extras.get(name)
            self.register_buffer(name, None if kept is None else kept.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return z [n, groups, filters / groups, h - size + 1, w - size + 1] for x [n, maps, h, w]."""
        seen = x[:, self.table.flatten()]
        # Patches lose their mean anyway. Near 0, mean(x²) - mean(x)² loses fewer digits to cancellation.
        seen = seen - seen.mean(dim=(1, 2, 3), keepdim=True)
        size, scale = self.weight.shape[-1], self._view_per_group(self.scale)
        by_group = seen.view(len(x), self.groups, -1, *x.shape[2:])
        mean = functional.avg_pool2d(by_group.mean(dim=2), size, 1).unsqueeze(2)
        square = functional.avg_pool2d(by_group.square().mean(dim=2), size, 1).unsqueeze(2)
        variance = (square - mean.square()).clamp_min(0)  # rounding may leave it below 0
        deviation = (variance + self.contrast * scale.square()).sqrt()
        scores = self._project(seen, self.weight, mean) * (scale / deviation) + self._view_per_group(self.bias)
        if self.whitener is None or self.shift is None:
            # ‖x'‖² is the sum of the squares of what was normalised: d times the variance, in units of the deviation.
            norms = self.weight[0].numel() * variance / deviation.square()
        else:
            white = self._project(seen, self.whitener, mean) / deviation - self._view_per_group(self.shift)
            norms = white.square().sum(dim=2, keepdim=True)
        return (norms - 2 * scores).clamp_min(CLOSEST).sqrt()

    def _project(self, seen: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
        """Return weight · (patch - its mean), [n, groups, k, h', w'].

        Learned weights have mean zero, and would need no correction; weights that were refined may have any.
        """
        products = functional.conv2d(seen, weight, groups=self.groups)
        by_group = products.view(len(seen), self.groups, -1, *products.shape[2:])
        return by_group - mean * self._view_per_group(weight.sum(dim=(1, 2, 3)))

    def _view_per_group(self, values: Tensor) -> Tensor:
        """View values [groups × k] so that they broadcast over [n, groups, k, h, w]."""
        return values.view(self.groups, -1, 1, 1)


class TriangleCode(nn.Module):
    """f_k = max(0, mean_k z - z_k): 0 for the centroids that are farther than the average."""

    reentrant: ClassVar[bool] = True

    def forward(self, z: Tensor) -> Tensor:
        """Code distances z [n, groups, k, h, w] as [n, groups × k, h, w]."""
        return functional.relu(z.mean(dim=2, keepdim=True) - z).flatten(1, 2)


class HardCode(nn.Module):
    """1 for the nearest centroid of each group, 0 for the others; the first wins a tie."""

    reentrant: ClassVar[bool] = True

    def forward(self, z: Tensor) -> Tensor:
        """Code distances z [n, groups, k, h, w] as [n, groups × k, h, w]."""
        nearest = z.argmin(dim=2, keepdim=True)
        return torch.zeros_like(z).scatter(2, nearest, 1.0).flatten(1, 2)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register K-means with either code."""
    return [KMeans, KMeansHard]
