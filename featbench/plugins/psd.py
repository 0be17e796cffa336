"""Predictive sparse decomposition: the U of Jarrett et al. 2009."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from featbench.errors import LearningError
from featbench.filters import Bank, Filters
from featbench.hookspecs import hookimpl
from featbench.learner import FeatureLearner, FilterLearner
from featbench.patches import PatchSource
from featbench.regimes import Family


@dataclass(frozen=True)
class Psd(FilterLearner):
    """Predictive sparse decomposition: a dictionary B and an encoder F learned together on unlabelled patches.

    Energy of a patch y: ½‖y - B z‖² + λ‖z‖₁ + α/2 ‖z - F(y)‖² with F(y) = g tanh(W y + b) and unit-norm columns of B
    (Kavukcuoglu, Ranzato, LeCun 2008, eq. 4, every quadratic term with ½). Each update takes a batch of patches, finds
    z by `iterations` steps of FISTA from F(y), then moves B and the encoder one step down the energy with z fixed.

    lam: λ, for patches scaled to unit variance a pixel. alpha: α. patches: drawn once. updates, batch, rate: of Adam,
    whose rate falls along half a cosine. centre: the mean of each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "psd"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Kavukcuoglu, Ranzato, LeCun 2008"

    lam: float = 1.0
    alpha: float = 1.0
    patches: int = 20_000
    updates: int = 2000
    batch: int = 256
    iterations: int = 15
    rate: float = 0.01
    centre: bool = True

    def __post_init__(self) -> None:
        if not (self.lam > 0 and self.alpha >= 0 and self.rate > 0):
            raise ValueError("lam > 0, alpha ≥ 0 and rate > 0 are needed")
        if min(self.patches, self.updates, self.batch, self.iterations) < 1:
            raise ValueError("patches, updates, batch and iterations must be at least 1")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the encoder's filters; the decoder's atoms come along as `decoder`, [filters, fan_in, size, size]."""
        if patches is None:
            raise LearningError("PSD learns from patches and was given none")
        y = patches.sample(self.patches).flatten(1)
        if self.centre and y.shape[1] > 1:
            y = y - y.mean(dim=1, keepdim=True)
        scale = float(y.square().mean().sqrt())
        if not math.isfinite(scale) or scale == 0:
            raise LearningError("the patches hold no signal: all of them are constant, or not finite")
        model = _Model(bank.filters, y.shape[1], seed, y.device)
        self._learn(model, y / scale, seed)
        weight = model.encoder / scale
        if self.centre and y.shape[1] > 1:
            # tanh(W (y - mean)) = tanh((W - row mean of W) y): the filters see maps that are not centred.
            weight = weight - weight.mean(dim=1, keepdim=True)
        return Filters(weight.view(bank.shape), model.gain, model.bias, {"decoder": model.atoms.T.reshape(bank.shape)})

    def _learn(self, model: _Model, y: Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate, betas=(0.9, 0.99))
        for update in range(self.updates):
            optimizer.param_groups[0]["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * update / self.updates))
            batch = y[torch.randint(len(y), (self.batch,), generator=generator).to(y.device)]
            prediction = model.predict(batch)
            codes = infer(batch, model.atoms, prediction, self.lam, self.alpha, self.iterations)
            model.set_gradients(batch, codes, self.alpha)
            optimizer.step()
            model.atoms /= model.atoms.norm(dim=0, keepdim=True).clamp_min(1e-12)


class _Model:
    """Dictionary atoms [d, m] with unit columns; encoder [m, d], gain [m], bias [m]."""

    def __init__(self, filters: int, inputs: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed ^ 1)
        atoms = torch.randn(inputs, filters, generator=generator)
        self.atoms = (atoms / atoms.norm(dim=0)).to(device)
        self.encoder = self.atoms.T.clone()
        self.gain = torch.ones(filters, device=device)
        self.bias = torch.zeros(filters, device=device)

    def parameters(self) -> list[Tensor]:
        return [self.atoms, self.encoder, self.gain, self.bias]

    def predict(self, y: Tensor) -> Tensor:
        """Return F(y) = g tanh(W y + b) for y [n, d]."""
        return self.gain * torch.tanh(torch.addmm(self.bias, y, self.encoder.T))

    def set_gradients(self, y: Tensor, codes: Tensor, alpha: float) -> None:
        """Set the gradients of the mean energy, codes [n, m] fixed."""
        n = len(y)
        squashed = torch.tanh(torch.addmm(self.bias, y, self.encoder.T))
        # Without α the encoder is a regressor trained apart: its own gradient does not vanish with it.
        error = (alpha or 1.0) * (self.gain * squashed - codes) / n
        inner = error * self.gain * (1 - squashed.square())
        self.atoms.grad = (codes @ self.atoms.T - y).T @ codes / n
        self.encoder.grad, self.bias.grad = inner.T @ y, inner.sum(dim=0)
        self.gain.grad = (error * squashed).sum(dim=0)


def infer(y: Tensor, atoms: Tensor, prediction: Tensor, lam: float, alpha: float, iterations: int) -> Tensor:
    """Minimise ½‖y - B z‖² + λ‖z‖₁ + α/2 ‖z - F‖² over z by FISTA, from z = F.

    y [n, d], atoms B [d, m], prediction F [n, m]; returns z [n, m].
    """
    gram = atoms.T @ atoms
    smaller = gram if gram.shape[0] <= atoms.shape[0] else atoms @ atoms.T
    step = 1 / (float(torch.linalg.eigvalsh(smaller)[-1]) + alpha)
    # The gradient is linear in z: z (I - step (BᵀB + α)) + step (Bᵀy + αF).
    linear = torch.eye(len(gram), dtype=gram.dtype, device=y.device) * (1 - step * alpha) - step * gram
    constant = step * (y @ atoms + alpha * prediction)
    codes = extrapolated = prediction
    momentum = 1.0
    for _ in range(iterations):
        moved = torch.nn.functional.softshrink(torch.addmm(constant, extrapolated, linear), step * lam)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        extrapolated = torch.lerp(codes, moved, 1 + (momentum - 1) / following)
        codes, momentum = moved, following
    return codes


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register PSD."""
    return [Psd]
