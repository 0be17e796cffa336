"""Restricted Boltzmann machine with Gaussian visible and binary hidden units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.errors import LearningError
from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix, PrincipalComponents
from featbench.learning.patches import PatchSource
from featbench.learning.schedules import cosine_decay
from featbench.stages.encoders import FilterBank
from featbench.stages.filters import Bank, Filters
from featbench.system.updates import Updates

FIRST_HIDDEN_BIAS = -4.0
"""First hidden bias, sigm(-4) = 0.02: units that are seldom on become features of a few patches rather than of all."""


@dataclass(frozen=True)
class Rbm(FilterLearner):
    """Restricted Boltzmann machine: E(v, h) = ½‖v - b‖² - cᵀh - hᵀW v, real v (patches over `sigma`), binary h.

    p(h = 1 | v) = sigm(W v + c), which is what `F` stands for; p(v | h) is Gaussian around b + Wᵀh, of unit variance.
    W, b and c follow contrastive divergence: statistics of the patches less those of the model's samples (Hinton 2002),
    by gradient ascent with momentum; the rate falls along half a cosine.

    steps: of Gibbs sampling before the model's statistics are taken (CD-k). persistent: the chains go on from where
    they were at the last update (Tieleman 2008), instead of from the patches. active: how many hidden units are to be
    on in a patch, on average: each is drawn to the mean activity active / filters, at most ½, and sparsity_cost says
    how strongly (Lee, Ekanadham, Ng 2008). sigma: standard deviation of v given h, where that of whitened patches is 1;
    one that is not smaller leaves nothing for W to explain. whiten: patches are whitened in at most `components`
    leading principal components, variances smaller than `epsilon` times the mean less so. patches: drawn once.
    updates, batch, rate, momentum: of the ascent. centre: the mean of each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "rbm"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Hinton 2002; Lee, Ekanadham, Ng 2008"

    persistent: bool = False
    steps: int = 1
    active: float = 1.3
    sparsity_cost: float = 3.0
    sigma: float = 0.8
    whiten: bool = True
    epsilon: float = 0.1
    components: int = 128
    patches: int = 20_000
    updates: int = 8000
    batch: int = 128
    rate: float = 0.3
    momentum: float = 0.9
    centre: bool = True

    def __post_init__(self) -> None:
        if min(self.patches, self.updates, self.batch, self.steps, self.components) < 1:
            raise ValueError("patches, updates, batch, steps and components must be at least 1")
        if not (self.active > 0 and self.sparsity_cost >= 0):
            raise ValueError("active > 0 and sparsity_cost ≥ 0 are needed")
        if not (self.rate > 0 and 0 <= self.momentum < 1 and self.epsilon > 0 and self.sigma > 0):
            raise ValueError("rate > 0, 0 ≤ momentum < 1, epsilon > 0 and sigma > 0 are needed")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn W and c; the patches that W stands for are the extra `decoder`, [filters, fan_in, size, size]."""
        matrix = PatchMatrix.sample("RBM", bank, patches, self.patches, centre=self.centre)
        principal = PrincipalComponents.of(matrix.rows, self.components) if self.whiten else None
        rows = matrix.rows
        if principal is not None:
            rows = (rows - principal.mean) @ principal.compute_whitener(self.epsilon).T
        machine = BoltzmannMachine(bank.filters, rows.shape[1], seed, rows.device)
        self._learn(machine, rows / self.sigma, seed)
        if not all(bool(torch.isfinite(parameter).all()) for parameter in machine.parameters()):
            raise LearningError(f"the RBM diverged: a rate smaller than {self.rate} is needed")
        weight, decoder, bias = machine.weight / self.sigma, machine.weight * self.sigma, machine.hidden
        if principal is not None:
            # The filters see patches as they come: whitening and the mean go into W and c.
            weight = weight @ principal.compute_whitener(self.epsilon)
            decoder = decoder @ principal.compute_unwhitener(self.epsilon)
            bias = bias - weight @ principal.mean
        return Filters(matrix.fold(weight).view(bank.shape), bias=bias, extras={"decoder": decoder.view(bank.shape)})

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build p(h = 1 | v): filter bank, bias, logistic function."""
        return nn.Sequential(FilterBank(filters, table), nn.Sigmoid())

    def _learn(self, machine: BoltzmannMachine, rows: Tensor, seed: int) -> None:
        """Train the machine in place on rows [n, d] of its visible units."""
        # On the CPU whatever the device, so that the seed decides all draws.
        generator = torch.Generator().manual_seed(seed)
        velocities = [torch.zeros_like(parameter) for parameter in machine.parameters()]
        target = min(self.active / len(machine.hidden), 0.5)
        chains: Tensor | None = None
        updates = Updates(self.updates)
        for update in updates:
            rate = self.rate * cosine_decay(update, self.updates)
            data = rows[torch.randint(len(rows), (self.batch,), generator=generator).to(rows.device)]
            start = chains if self.persistent and chains is not None else data
            chains = machine.run_gibbs(start, self.steps, generator)
            ascent = machine.compute_ascent(data, chains)
            activity = machine.compute_activity(data).mean(dim=0)
            # The sparsity term moves the hidden biases alone, as in Lee, Ekanadham, Ng 2008.
            ascent[2] = ascent[2] + self.sparsity_cost * (target - activity)
            for parameter, velocity, direction in zip(machine.parameters(), velocities, ascent, strict=True):
                # An average of directions, not their sum: the step has the size of the rate whatever the momentum.
                velocity.mul_(self.momentum).add_(direction, alpha=rate * (1 - self.momentum))
                parameter += velocity
            updates.energy = partial(_reconstruction_error, data, chains)


def _reconstruction_error(data: Tensor, chains: Tensor) -> Tensor:
    """Return the mean squared distance of the data [n, d] to where the chains have come: what users watch fall."""
    return (data - chains[: len(data)]).square().sum(dim=1).mean()


class BoltzmannMachine:
    """Weights W [m, d], visible bias b [d], hidden bias c [m] of a Gaussian-binary machine."""

    def __init__(self, hidden: int, visible: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed ^ 1)
        self.weight = (0.1 * torch.randn(hidden, visible, generator=generator) / math.sqrt(visible)).to(device)
        self.visible = torch.zeros(visible, device=device)
        self.hidden = torch.full((hidden,), FIRST_HIDDEN_BIAS, device=device)

    def parameters(self) -> list[Tensor]:
        """Return W, b and c."""
        return [self.weight, self.visible, self.hidden]

    def compute_activity(self, v: Tensor) -> Tensor:
        """Return p(h = 1 | v), [n, m], for v [n, d]."""
        return torch.sigmoid(torch.addmm(self.hidden, v, self.weight.T))

    def free_energy(self, v: Tensor) -> Tensor:
        """Return F(v) = ½‖v - b‖² - Σ log(1 + e^{c + W v}), [n]: p(v) is proportional to e^{-F(v)}."""
        inner = torch.addmm(self.hidden, v, self.weight.T)
        return 0.5 * (v - self.visible).square().sum(dim=1) - functional.softplus(inner).sum(dim=1)

    def run_gibbs(self, v: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Return v [n, d] after sampling h given v, then v given h, `steps` times: Gibbs sampling."""
        for _ in range(steps):
            uniform = torch.rand(len(v), len(self.hidden), generator=generator).to(v)
            hidden = (uniform < self.compute_activity(v)).to(v.dtype)
            noise = torch.randn(v.shape, generator=generator).to(v)
            v = torch.addmm(self.visible, hidden, self.weight) + noise
        return v

    def compute_ascent(self, data: Tensor, model: Tensor) -> list[Tensor]:
        """Return the directions of W, b and c: mean of -∂F/∂θ over data [n, d] less that over samples of the model.

        That is the gradient of the log-likelihood, for samples of the model's own distribution; after a few steps of
        Gibbs sampling it is contrastive divergence (Hinton 2002).
        """
        on, off = self.compute_activity(data), self.compute_activity(model)
        return [
            on.T @ data / len(data) - off.T @ model / len(model),
            data.mean(dim=0) - model.mean(dim=0),
            on.mean(dim=0) - off.mean(dim=0),
        ]


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register the RBM."""
    return [Rbm]
