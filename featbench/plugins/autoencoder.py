"""Auto-encoders of one hidden layer: plain, denoising, contractive."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.errors import LearningError
from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import PatchSource
from featbench.learning.schedules import cosine_decay
from featbench.stages.encoders import FilterBank, build_tanh_encoder
from featbench.stages.filters import Bank, Filters
from featbench.system.updates import Updates

KINDS = ("plain", "denoising", "contractive")
ACTIVATIONS = ("sigmoid", "tanh")


@dataclass(frozen=True)
class Autoencoder(FilterLearner):
    """Auto-encoder: h = s(W x + b), which is what `F` stands for, and a linear decoder Dᵀh + a for real patches x.

    Loss of a patch of d values: ½‖Dᵀh + a - x‖² / d. kind: `plain`, that alone; `denoising`, h sees x with a part of
    its values set to 0, their mean (Vincent, Larochelle, Bengio, Manzagol 2008); `contractive`, the loss has λ ‖∂h/∂x‖²
    = λ Σ_i s'_i² Σ_j W_ij² besides (Rifai et al. 2011).

    noise: the part of values that `denoising` sets to 0. lam: λ of `contractive`, for patches scaled to unit variance a
    pixel. tied: D = W. activation: s, `sigmoid` or `tanh`. patches: drawn once. updates, batch, rate: of Adam, whose
    rate falls along half a cosine. centre: the mean of each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "autoencoder"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Vincent et al. 2008; Rifai et al. 2011"

    kind: str = "contractive"
    noise: float = 0.25
    lam: float = 0.1
    tied: bool = True
    activation: str = "sigmoid"
    patches: int = 20_000
    updates: int = 3000
    batch: int = 128
    rate: float = 0.02
    centre: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")
        if not (0 <= self.noise < 1 and self.lam >= 0 and self.rate > 0):
            raise ValueError("0 ≤ noise < 1, lam ≥ 0 and rate > 0 are needed")
        if min(self.patches, self.updates, self.batch) < 1:
            raise ValueError("patches, updates and batch must be at least 1")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn W and b; the decoder's atoms are the extra `decoder`, [filters, fan_in, size, size]."""
        matrix = PatchMatrix.sample("the auto-encoder", bank, patches, self.patches, centre=self.centre)
        model = AutoencoderNetwork(bank.filters, matrix.rows.shape[1], self.activation, self.tied, seed)
        model.to(matrix.rows.device)
        # Learners may be called with gradients switched off.
        with torch.enable_grad():
            self._learn(model, matrix.rows, seed)
        # Diverged parameters would give features of NaN, which only the classifier would find.
        if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
            raise LearningError(f"the auto-encoder diverged: a rate smaller than {self.rate} is needed")
        decoder = {"decoder": model.atoms.detach().clone().view(bank.shape)}
        return Filters(matrix.fold(model.weight.detach()).view(bank.shape), bias=model.bias.detach(), extras=decoder)

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build h: filter bank, bias, s."""
        if self.activation == "tanh":
            return build_tanh_encoder(filters, table)
        return nn.Sequential(FilterBank(filters, table), nn.Sigmoid())

    def _learn(self, model: AutoencoderNetwork, rows: Tensor, seed: int) -> None:
        """Train the model in place on rows [n, d], by Adam."""
        # On the CPU whatever the device: the same seed draws the same batches and the same noise.
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
        updates = Updates(self.updates)
        for update in updates:
            optimizer.param_groups[0]["lr"] = self.rate * cosine_decay(update, self.updates)
            batch = rows[torch.randint(len(rows), (self.batch,), generator=generator).to(rows.device)]
            seen = corrupt(batch, self.noise, generator) if self.kind == "denoising" else batch
            optimizer.zero_grad()
            codes = model.encode(seen)
            loss = 0.5 * (model.decode(codes) - batch).square().mean(dim=1)
            if self.kind == "contractive":
                loss = loss + self.lam * model.compute_contraction(codes)
            loss.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            updates.energy = loss.detach().mean


def corrupt(rows: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return rows [n, d] with a part `noise` of their values, drawn at random, set to 0."""
    return rows * (torch.rand(rows.shape, generator=generator) >= noise).to(rows)


class AutoencoderNetwork(nn.Module):
    """An auto-encoder of d inputs and m hidden units: W [m, d] and b [m]; D [m, d], which is W if tied, and a [d]."""

    def __init__(self, filters: int, inputs: int, activation: str, tied: bool, seed: int) -> None:
        super().__init__()
        # Another stream of random numbers than that of the batches, which begin from `seed` itself.
        generator = torch.Generator().manual_seed(seed ^ 1)
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(filters, inputs, generator=generator) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.atoms = self.weight if tied else nn.Parameter(self.weight.detach().clone())
        self.offset = nn.Parameter(torch.zeros(inputs))

    def encode(self, x: Tensor) -> Tensor:
        """Return h [n, m] for x [n, d]."""
        inner = torch.addmm(self.bias, x, self.weight.T)
        return torch.tanh(inner) if self.activation == "tanh" else torch.sigmoid(inner)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstruction [n, d] from h [n, m]."""
        return torch.addmm(self.offset, codes, self.atoms)

    def compute_contraction(self, codes: Tensor) -> Tensor:
        """Return ‖∂h/∂x‖² = Σ_i s'_i² Σ_j W_ij² [n], the squared Frobenius norm, from h [n, m].

        The slope s' of the activation follows from its value: h (1 - h) for the sigmoid, 1 - h² for tanh.
        """
        slopes = 1 - codes.square() if self.activation == "tanh" else codes * (1 - codes)
        return slopes.square() @ self.weight.square().sum(dim=1)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register the auto-encoder."""
    return [Autoencoder]
