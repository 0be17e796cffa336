"""Invariant PSD: filters on a topographic map, pooled over their neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import PatchSource
from featbench.learning.predictive_decomposition import (
    PatchDecoder,
    PredictiveEncoder,
    Schedule,
    Wiring,
    draw_random_atoms,
    learn_predictive_decomposition,
)
from featbench.stages.connection_table import make_full_table
from featbench.stages.encoders import build_tanh_encoder
from featbench.stages.filters import Bank, Filters

FLOOR = 1e-6
"""Added to the squares under the root: without it a pool without activity would have an infinite gradient."""


@dataclass(frozen=True)
class Ipsd(FilterLearner):
    """Invariant PSD: group sparsity over overlapping pools of a 2-D map makes neighbours alike, and pools invariant.

    Energy of a patch y: ½‖y - D z‖² + λ Σ_i v_i + α/2 ‖z - F(y)‖² with v_i = sqrt(Σ_j w_ij z_j²) and the encoder F(y) =
    g tanh(W y + b); columns of D have unit norm (Kavukcuoglu, Ranzato, Fergus, LeCun 2009, eq. 4). Units lie on a map
    whose opposite borders touch; pool i is a square of `pool`×`pool` of them, every `stride`, with Gaussian weights w
    of sum 1. As a stage it gives v of F(y): `64F9` has 64 pools, over 64 stride² filters.

    lam: λ, for patches scaled to unit variance a pixel. alpha: α. patches: drawn once. updates, batch, rate: of Adam,
    whose rate falls along half a cosine. iterations: of the inference, which replaces v by a quadratic bound at each.
    centre: the mean of each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "ipsd"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Kavukcuoglu, Ranzato, Fergus, LeCun 2009"

    lam: float = 3.0
    alpha: float = 1.0
    pool: int = 6
    stride: int = 2
    patches: int = 20_000
    updates: int = 2000
    batch: int = 256
    iterations: int = 20
    rate: float = 0.01
    centre: bool = True

    def __post_init__(self) -> None:
        if not (self.lam > 0 and self.alpha >= 0 and self.rate > 0):
            raise ValueError("lam > 0, alpha ≥ 0 and rate > 0 are needed")
        if min(self.patches, self.updates, self.batch, self.iterations, self.stride) < 1:
            raise ValueError("patches, updates, batch, iterations and stride must be at least 1")
        if self.pool < self.stride:
            raise ValueError("pools must overlap or touch: pool is at least stride")

    def units(self, bank: Bank) -> int:
        """Return the number of filters below `bank.filters` pools."""
        return bank.filters * self.stride**2

    def grid(self, bank: Bank) -> tuple[int, int]:
        """Return the rows and columns of the map: as near to a square as the number of pools allows."""
        rows = next(side for side in range(math.isqrt(bank.filters), 0, -1) if bank.filters % side == 0)
        return rows * self.stride, bank.filters // rows * self.stride

    def refusal(self, bank: Bank) -> str | None:
        """Refuse a map that is smaller than a pool."""
        rows, columns = self.grid(bank)
        if rows < self.pool:
            return f"{bank.filters} pools make a map of {rows}×{columns} units, smaller than a pool of {self.pool}"
        return None

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the filters of all units, row by row of the map; the dictionary is the extra `decoder`."""
        whole = replace(bank, filters=self.units(bank))
        matrix = PatchMatrix.sample(self.name, whole, patches, self.patches, centre=self.centre)
        atoms = draw_random_atoms(whole, seed, self.batch).to(matrix.rows.device)
        predictor = PredictiveEncoder(atoms, "tanh", threshold=0, centred=matrix.centred)
        pools = self.make_pools(bank).to(matrix.rows)

        def infer(gram: Tensor, correlations: Tensor, lipschitz: float, start: Tensor) -> Tensor:
            return infer_groups(gram, correlations, lipschitz, start, pools, self.lam, self.iterations)

        schedule = Schedule(self.updates, self.batch, self.rate)
        decoder = PatchDecoder(atoms, self.alpha, infer)
        learn_predictive_decomposition(matrix.rows, decoder, predictor, self.alpha, schedule, seed)
        return predictor.filters(matrix.scale, decoder.atoms, Wiring(whole, make_full_table(bank.fan_in), bank.fan_in))

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build F and the pools, within each group of the connection table."""
        pools = len(filters.weight) // len(table) // self.stride**2
        bank = Bank(pools, filters.weight.shape[-1], filters.weight.shape[1])
        return nn.Sequential(build_tanh_encoder(filters, table), GroupPooling(self.make_pools(bank), len(table)))

    def make_pools(self, bank: Bank) -> Tensor:
        """Return the weights w [pools, units] of all pools over all units of the map."""
        # A square Gaussian is the product of two of one dimension.
        rows, columns = (self._make_pools_along(side) for side in self.grid(bank))
        return torch.einsum("ir,jc->ijrc", rows, columns).reshape(bank.filters, self.units(bank))

    def _make_pools_along(self, side: int) -> Tensor:
        """Return the weights of pools along one side of the map, [side / stride, side]; each sums to 1."""
        offsets = torch.arange(self.pool) - (self.pool - 1) / 2
        gaussian = torch.exp(-0.5 * (offsets / (self.pool / 4)) ** 2)
        # σ a quarter of the pool's side: the weights at its border are small, and neighbouring pools change smoothly.
        weights = torch.zeros(side // self.stride, side)
        for pool in range(side // self.stride):
            # Modulo the side: opposite borders of the map touch.
            members = (pool * self.stride + torch.arange(self.pool)) % side
            weights[pool, members] = gaussian / gaussian.sum()
        return weights


def infer_groups(
    gram: Tensor, correlations: Tensor, lipschitz: float, start: Tensor, pools: Tensor, lam: float, iterations: int
) -> Tensor:
    """Minimise ½ zᵀGz - cᵀz + λ Σ_i sqrt(Σ_j w_ij z_j²) over z [n, units] from `start`; no step raises it.

    Majorisation-minimisation: at each step the first part is bounded by a parabola of curvature L, and each root v_i by
    a parabola that touches it at z, v ≤ (v_i + v²/v_i)/2. Their sum is least at z ← (z - (zG - c)/L) / (1 + λ a/L),
    with a_j = Σ_i w_ij/v_i. There is no proximal operator in closed form, since the pools overlap.
    """
    codes = start
    for _ in range(iterations):
        activity = (codes.square() @ pools.T + FLOOR).sqrt()
        shrinking = 1 + (lam / lipschitz) * (activity.reciprocal() @ pools)
        codes = (codes - (codes @ gram - correlations) / lipschitz) / shrinking
    return codes


class GroupPooling(nn.Module):
    """v_i = sqrt(Σ_j w_ij x_j²) over maps, at each position and within each of equal groups of maps."""

    weight: Tensor

    def __init__(self, pools: Tensor, groups: int) -> None:
        super().__init__()
        self.groups = groups
        # Not in the state_dict: it follows from the learner's parameters. As 1×1 filters, one block for each group.
        self.register_buffer("weight", pools.repeat(groups, 1)[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pool x [n, groups × units, h, w] into [n, groups × pools, h, w]."""
        return (functional.conv2d(x.square(), self.weight, groups=self.groups) + FLOOR).sqrt()


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register invariant PSD."""
    return [Ipsd]
