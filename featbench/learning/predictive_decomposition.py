"""Predictive sparse decomposition: a decoder and an encoder that predicts its codes, learned together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.errors import LearningError
from featbench.sparse.memory import require_memory
from featbench.sparse.steps import largest_eigenvalue
from featbench.stages.encoders import NONLINEARITIES
from featbench.stages.filters import Bank, Filters
from featbench.types import IntArray

SHARPNESS = 10.0
"""What β of the smooth shrinkage starts from."""


ATOMS_RATE = 0.5
"""Part of the way to the minimum of the batch that atoms go at first."""

MEMORY = 0.9
"""How much of the curvature of atoms is kept from batch to batch."""

RARE = 0.1
"""Least curvature of an atom, relative to the mean of all."""


@dataclass(frozen=True)
class Schedule:
    """How decoder and encoder descend: Adam, whose rate falls along half a cosine."""

    updates: int
    batch: int
    rate: float


class Wiring:
    """Which of all maps each filter sees, by a connection table [groups, fan_in] of equal groups of filters."""

    def __init__(self, bank: Bank, table: IntArray, maps: int) -> None:
        self.rows = torch.from_numpy(table).repeat_interleave(bank.filters // len(table), dim=0)
        self.shape = (bank.filters, maps, bank.size, bank.size)

    def spread(self, weight: Tensor) -> Tensor:
        """Turn a weight [filters, fan_in, size, size] into one on all maps [filters, maps, size, size], else zero."""
        filters = torch.arange(len(self.rows))[:, None]
        spread = weight.new_zeros(self.shape)
        spread[filters, self.rows] = weight
        return spread

    def gather(self, weight: Tensor) -> Tensor:
        """Undo `spread`."""
        return weight.view(self.shape)[torch.arange(len(self.rows))[:, None], self.rows]


class Predictor(nn.Module):
    """The encoder F(y) = f(W y + b), on patches in rows or, as a convolution, on windows.

    weight [filters, maps, size, size]: where it is zero throughout a map, a filter does not see the map. centred: W is
    kept blind to the mean of what it sees. threshold: what θ of the shrinkage encoders starts from.
    """

    support: Tensor

    def __init__(self, weight: Tensor, nonlinearity: str, threshold: float, *, centred: bool = False) -> None:
        super().__init__()
        self.free = nn.Parameter(weight.clone())
        self.centred = centred
        self.register_buffer("support", support_of(weight), persistent=False)
        self.bias = nn.Parameter(weight.new_zeros(len(weight)))
        start = {"threshold": torch.full_like(self.bias, threshold), "sharpness": torch.full_like(self.bias, SHARPNESS)}
        self.nonlinearity = NONLINEARITIES[nonlinearity](Filters(weight, extras=start))

    @property
    def weight(self) -> Tensor:
        """W [filters, maps, size, size]."""
        weight = self.free * self.support
        if not self.centred:
            return weight
        seen = self.support.sum(dim=(1, 2, 3), keepdim=True)
        return weight - self.support * (weight.sum(dim=(1, 2, 3), keepdim=True) / seen)

    def forward(self, y: Tensor) -> Tensor:
        """Predict codes [n, filters] of patches [n, d], or [n, filters, h', w'] of windows [n, maps, h, w]."""
        if y.ndim == 2:
            inner = functional.linear(y, self.weight.flatten(1), self.bias)
        else:
            inner = functional.conv2d(y, self.weight, self.bias)
        predicted: Tensor = self.nonlinearity(inner)
        return predicted

    def filters(self, scale: float, atoms: Tensor, wiring: Wiring) -> Filters:
        """Return the encoder of maps divided by `scale` as filters on maps as they are; atoms as `decoder`."""
        tensors = {name: parameter.detach() for name, parameter in self.nonlinearity.named_parameters()}
        gain = tensors.pop("gain", torch.empty(0))
        extras = {"decoder": wiring.gather(atoms), **tensors}
        return Filters(wiring.gather(self.weight.detach() / scale), gain, self.bias.detach(), extras)


class Decoder(ABC):
    """What codes [n, filters, ...] are decoded with: atoms [filters, maps, size, size] of unit norm.

    Where an atom is zero throughout a map it remains so.
    """

    def __init__(self, atoms: Tensor) -> None:
        self.atoms, self.support = unit_norm(atoms), support_of(atoms)
        self._curvature = atoms.new_zeros(len(atoms))
        self._weight = 0.0

    @abstractmethod
    def infer(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Minimise the energy over the codes, from the prediction and towards it."""

    @abstractmethod
    def gradient(self, y: Tensor, codes: Tensor) -> Tensor:
        """Return the gradient of the mean energy with respect to the atoms, codes fixed."""

    def step(self, y: Tensor, codes: Tensor, rate: float) -> None:
        """Move the atoms down the gradient, each divided by a bound of its curvature, and back to unit norm.

        The curvature in all atoms is the second moment of their codes; the sums of the magnitudes in its rows bound it
        (Gershgorin), so that a rate below 1 is stable however much the codes go together.
        """
        flat = codes.transpose(0, 1).flatten(1)
        bound = (flat @ flat.T).abs().sum(dim=1) / len(codes)
        self._curvature = torch.lerp(bound, self._curvature, MEMORY)
        self._weight = MEMORY * self._weight + 1 - MEMORY
        curvature = self._curvature / self._weight
        # Atoms that are seldom used do not leap at what little they see.
        curvature = curvature.clamp_min(RARE * float(curvature.mean()))
        descent = self.gradient(y, codes) / curvature.clamp_min(1e-12).view(-1, 1, 1, 1)
        self.atoms = unit_norm(self.atoms - rate * descent * self.support)


Inference = Callable[[Tensor, Tensor, float, Tensor], Tensor]
"""Takes gram [m, m], correlations [n, m], the largest eigenvalue of the first, and a start [n, m] to codes [n, m]."""


class PatchDecoder(Decoder):
    """½‖y - Σ_k z_k B_k‖² + penalty(z) + α/2 ‖z - F(y)‖² for patches y [n, d] and atoms B, d values each.

    `inference` minimises ½ zᵀGz - cᵀz + penalty(z); with the term of the prediction G is BBᵀ + α, c is By + αF.
    """

    def __init__(self, atoms: Tensor, alpha: float, inference: Inference) -> None:
        super().__init__(atoms)
        self.alpha, self.inference = alpha, inference

    def infer(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Return codes [n, filters]."""
        atoms = self.atoms.flatten(1)
        gram = atoms @ atoms.T
        # Both products have the same eigenvalues but for zeros.
        smaller = gram if atoms.shape[0] <= atoms.shape[1] else atoms.T @ atoms
        largest = largest_eigenvalue(smaller) + self.alpha
        gram.diagonal().add_(self.alpha)
        return self.inference(gram, y @ atoms.T + self.alpha * prediction, largest, prediction)

    def gradient(self, y: Tensor, codes: Tensor) -> Tensor:
        """Return zᵀ(zB - y) / n."""
        residual = codes @ self.atoms.flatten(1) - y
        return (codes.T @ residual / len(y)).view_as(self.atoms)


def learn_predictive(
    samples: Tensor, decoder: Decoder, predictor: Predictor, alpha: float, schedule: Schedule, seed: int
) -> None:
    """Learn decoder and predictor in place, by block coordinate descent on samples [n, ...].

    For each batch the codes are inferred with all else fixed; then atoms and encoder take one step with the codes fixed
    (Kavukcuoglu, Ranzato, LeCun 2008, section 2.1). Raises `LearningError` if that diverges.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=schedule.rate, betas=(0.9, 0.99))
    for update in range(schedule.updates):
        falling = 0.5 * (1 + math.cos(math.pi * update / schedule.updates))
        optimizer.param_groups[0]["lr"] = schedule.rate * falling
        y = samples[torch.randint(len(samples), (schedule.batch,), generator=generator).to(samples.device)]
        prediction = predictor(y)
        codes = decoder.infer(y, prediction.detach())
        optimizer.zero_grad(set_to_none=True)
        # Without α the encoder is a regressor trained apart: its own gradient does not vanish with it.
        loss = 0.5 * (alpha or 1.0) * (codes - prediction).square().sum() / len(y)
        loss.backward()
        optimizer.step()
        decoder.step(y, codes, ATOMS_RATE * falling)
        if not bool(torch.isfinite(decoder.atoms).all()):
            break
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (decoder.atoms, *predictor.parameters())):
        raise LearningError("learning diverged: the dictionary or its encoder is not finite; lower the rate")


def random_atoms(bank: Bank, seed: int, batch: int) -> Tensor:
    """Draw atoms [filters, fan_in, size, size] of unit norm; a `UsageError` if they are too many for the memory."""
    require_memory(batch, bank.filters, bank.fan_in * bank.size**2, torch.float32.itemsize, torch.device("cpu"))
    return unit_norm(torch.randn(bank.shape, generator=torch.Generator().manual_seed(seed ^ 1)))


def support_of(weight: Tensor) -> Tensor:
    """Return 1 for the maps that each filter of weight [filters, maps, size, size] sees, 0 for those it does not."""
    return (weight != 0).any(dim=3, keepdim=True).any(dim=2, keepdim=True).to(weight.dtype).expand_as(weight)


def unit_norm(atoms: Tensor) -> Tensor:
    """Scale each of the atoms [filters, maps, size, size] to norm 1."""
    return functional.normalize(atoms.flatten(1), dim=1).view_as(atoms)
