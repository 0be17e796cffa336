"""Predictive sparse decomposition: a decoder and an encoder that predicts its codes, learned together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.errors import LearningError
from featbench.learning.schedules import cosine_decay
from featbench.sparse.memory import require_coding_memory
from featbench.sparse.steps import compute_largest_eigenvalue
from featbench.stages.encoders import NONLINEARITIES
from featbench.stages.filters import Bank, Filters
from featbench.system.updates import Updates
from featbench.types import IntArray

SHARPNESS = 10.0
"""First value of β of the smooth shrinkage."""

ATOMS_RATE = 0.5
"""Part of the way to the minimum of the batch that atoms move at first."""

CURVATURE_MEMORY = 0.9
"""Part of the running mean of the atoms' curvatures that is kept from batch to batch."""

LEAST_CURVATURE = 0.1
"""Least curvature of an atom, relative to the mean of all."""


@dataclass(frozen=True)
class Schedule:
    """How decoder and encoder are trained: updates, samples in each, Adam's first rate (it falls by half a cosine)."""

    updates: int
    batch: int
    rate: float


class Wiring:
    """Which of all maps each filter sees: a connection table [groups, fan_in], its groups of equally many filters."""

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
        """Undo `spread`: return the weight [filters, fan_in, size, size] on the maps that each filter sees."""
        return weight.view(self.shape)[torch.arange(len(self.rows))[:, None], self.rows]


class PredictiveEncoder(nn.Module):
    """The encoder F(y) = f(W y + b), which predicts codes: on patches in rows or, as a convolution, on windows.

    weight: first W, [filters, maps, size, size]; a filter does not see the maps in which it is zero throughout.
    centred: each filter of W has mean zero over what it sees. threshold: first θ of the shrinkage encoders.
    """

    support: Tensor

    def __init__(self, weight: Tensor, nonlinearity: str, threshold: float, *, centred: bool = False) -> None:
        super().__init__()
        self.free = nn.Parameter(weight.clone())
        self.centred = centred
        # Not in the state_dict: it follows from the weight.
        self.register_buffer("support", find_support(weight), persistent=False)
        self.bias = nn.Parameter(weight.new_zeros(len(weight)))
        start = {"threshold": torch.full_like(self.bias, threshold), "sharpness": torch.full_like(self.bias, SHARPNESS)}
        self.nonlinearity = NONLINEARITIES[nonlinearity](Filters(weight, extras=start))

    @property
    def weight(self) -> Tensor:
        """W [filters, maps, size, size]."""
        # Projected at each use: Adam moves `free` anywhere, and W keeps its support and its mean.
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
        """Return the encoder of maps divided by `scale` as filters for maps as they are; the atoms as `decoder`."""
        tensors = {name: parameter.detach() for name, parameter in self.nonlinearity.named_parameters()}
        gain = tensors.pop("gain", torch.empty(0))
        extras = {"decoder": wiring.gather(atoms), **tensors}
        return Filters(wiring.gather(self.weight.detach() / scale), gain, self.bias.detach(), extras)


class Decoder(ABC):
    """The dictionary that decodes codes [n, filters, ...]: atoms [filters, maps, size, size] of unit norm.

    An atom stays zero in the maps in which it is zero throughout.
    """

    def __init__(self, atoms: Tensor) -> None:
        self.atoms, self.support = normalise_atoms(atoms), find_support(atoms)
        self._curvature = atoms.new_zeros(len(atoms))
        self._weight = 0.0

    @abstractmethod
    def infer(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Return codes that minimise the energy, from the prediction and towards it."""

    @abstractmethod
    def gradient(self, y: Tensor, codes: Tensor) -> Tensor:
        """Return the gradient of the mean energy with respect to the atoms, codes fixed."""

    def step(self, y: Tensor, codes: Tensor, rate: float) -> None:
        """Move the atoms down the gradient, each divided by a bound of its curvature, and back to unit norm.

        The Hessian of the energy in the atoms is the second moment of their codes, E[z zᵀ]. The sums of the magnitudes
        in its rows bound its eigenvalues (Gershgorin), so that a rate below 1 is stable however correlated the codes.
        """
        flat = codes.transpose(0, 1).flatten(1)
        bound = (flat @ flat.T).abs().sum(dim=1) / len(codes)
        self._curvature = torch.lerp(bound, self._curvature, CURVATURE_MEMORY)
        # The running mean starts from 0: divided by the sum of its weights it is unbiased, as Adam's moments are.
        self._weight = CURVATURE_MEMORY * self._weight + 1 - CURVATURE_MEMORY
        curvature = self._curvature / self._weight
        # Without a least curvature, an atom that is seldom used would take a huge step on the few patches that use it.
        curvature = curvature.clamp_min(LEAST_CURVATURE * float(curvature.mean()))
        descent = self.gradient(y, codes) / curvature.clamp_min(1e-12).view(-1, 1, 1, 1)
        self.atoms = normalise_atoms(self.atoms - rate * descent * self.support)


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
        # BBᵀ and BᵀB have the same eigenvalues but for zeros: those of the smaller one cost less.
        smaller = gram if atoms.shape[0] <= atoms.shape[1] else atoms.T @ atoms
        largest = compute_largest_eigenvalue(smaller) + self.alpha
        # α/2 ‖z - F‖² adds α to every eigenvalue, and αF to the correlations.
        gram.diagonal().add_(self.alpha)
        return self.inference(gram, y @ atoms.T + self.alpha * prediction, largest, prediction)

    def gradient(self, y: Tensor, codes: Tensor) -> Tensor:
        """Return zᵀ(zB - y) / n."""
        residual = codes @ self.atoms.flatten(1) - y
        return (codes.T @ residual / len(y)).view_as(self.atoms)


def learn_predictive_decomposition(
    samples: Tensor, decoder: Decoder, encoder: PredictiveEncoder, alpha: float, schedule: Schedule, seed: int
) -> None:
    """Learn decoder and encoder in place, by block coordinate descent on samples [n, ...].

    For each batch the codes are inferred with all else fixed; then atoms and encoder take one step with the codes fixed
    (Kavukcuoglu, Ranzato, LeCun 2008, section 2.1). Raises `LearningError` if that diverges.
    """
    # On the CPU whatever the device: the same seed draws the same batches.
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=schedule.rate, betas=(0.9, 0.99))
    updates = Updates(schedule.updates)
    for update in updates:
        decay = cosine_decay(update, schedule.updates)
        optimizer.param_groups[0]["lr"] = schedule.rate * decay
        y = samples[torch.randint(len(samples), (schedule.batch,), generator=generator).to(samples.device)]
        prediction = encoder(y)
        # Detached: the codes count as constants for the encoder, or its gradient would run through the inference.
        codes = decoder.infer(y, prediction.detach())
        optimizer.zero_grad(set_to_none=True)
        # With α = 0 the encoder is a regressor trained beside the decoder, and its gradient must not vanish too.
        loss = 0.5 * (alpha or 1.0) * (codes - prediction).square().sum() / len(y)
        loss.backward()
        optimizer.step()
        decoder.step(y, codes, ATOMS_RATE * decay)
        updates.energy = loss.detach()
        if not bool(torch.isfinite(decoder.atoms).all()):
            # No later update could bring the atoms back; the check below reports it.
            break
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (decoder.atoms, *encoder.parameters())):
        raise LearningError("learning diverged: the dictionary or its encoder is not finite; lower the rate")


def draw_random_atoms(bank: Bank, seed: int, batch: int) -> Tensor:
    """Draw atoms [filters, fan_in, size, size] of unit norm; a `UsageError` if they are too many for the memory."""
    require_coding_memory(batch, bank.filters, bank.fan_in * bank.size**2, torch.float32.itemsize, torch.device("cpu"))
    # Another stream of random numbers than that of the batches, which begin from `seed` itself.
    return normalise_atoms(torch.randn(bank.shape, generator=torch.Generator().manual_seed(seed ^ 1)))


def find_support(weight: Tensor) -> Tensor:
    """Return 1 for the maps that each filter of weight [filters, maps, size, size] sees, 0 for those it does not."""
    return (weight != 0).any(dim=3, keepdim=True).any(dim=2, keepdim=True).to(weight.dtype).expand_as(weight)


def normalise_atoms(atoms: Tensor) -> Tensor:
    """Scale each of the atoms [filters, maps, size, size] to norm 1."""
    return functional.normalize(atoms.flatten(1), dim=1).view_as(atoms)
