"""Unrolled sparse coding: a few steps of a solver as a network, trained to give the optimal codes."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from featbench.devices.selection import select_operations
from featbench.errors import LearningError
from featbench.learning.schedules import cosine_decay
from featbench.sparse.steps import compute_largest_eigenvalue
from featbench.system.updates import Updates


class Unrolled(nn.Module):
    """Codes f(B) from B = W_e x, by `steps` repetitions of a step with shared S and θ (Gregor, LeCun 2010).

    mixing: S [groups, m, m]; threshold: θ [groups × m]. Each of equal groups of units has a problem of its own.
    zeros_stay: entries of S that are zero at the start are not trained.
    """

    support: Tensor

    def __init__(self, mixing: Tensor, threshold: Tensor, steps: int, *, zeros_stay: bool = False) -> None:
        super().__init__()
        self.free = nn.Parameter(mixing.clone())
        self.threshold = nn.Parameter(threshold.clone())
        self.steps = steps
        support = (mixing != 0).to(mixing.dtype) if zeros_stay else torch.ones_like(mixing)
        # Not in the state_dict: it follows from the matrix that the network is built with.
        self.register_buffer("support", support, persistent=False)

    @property
    def mixing(self) -> Tensor:
        """S [groups, m, m]."""
        # A product rather than a mask on the optimiser: entries outside the support get no gradient, whoever trains.
        return self.free * self.support

    def forward(self, x: Tensor) -> Tensor:
        """Return codes for x = B [n, units, ...], of the same shape."""
        groups, units = self.support.shape[:2]
        units_last = x.movedim(1, -1)
        codes = self.compute_codes(units_last.reshape(-1, groups, units))
        return codes.reshape(units_last.shape).movedim(-1, 1)

    @abstractmethod
    def compute_codes(self, b: Tensor) -> Tensor:
        """Return codes [r, groups, m] for rows of B [r, groups, m]."""

    def shrink(self, values: Tensor) -> Tensor:
        """Return h_θ(values) = sign(values) max(|values| - θ, 0), values [r, groups, m]."""
        threshold = self.threshold.view(values.shape[1:])
        return values.sign() * (values.abs() - threshold).clamp_min(0)


class Lista(Unrolled):
    """LISTA (algorithm 3): z(0) = h_θ(B), then z ← h_θ(B + S z)."""

    # A call keeps nothing on the module: codes are local, and parameters are only read.
    reentrant: ClassVar[bool] = True

    def compute_codes(self, b: Tensor) -> Tensor:
        """Take `steps` steps; with 0 it is the plain shrinkage encoder."""
        mixing, threshold = self.mixing.transpose(1, 2), self.threshold.view(b.shape[1:])
        operations = select_operations(b.device)
        codes = self.shrink(b)
        for _ in range(self.steps):
            codes = operations.sparse_step(codes, mixing, b, threshold)
        return codes


class Lcod(Unrolled):
    """LCoD (algorithm 5): the coefficient that would change most moves, `steps` times; at last z = h_θ(B).

    A step: z̄ = h_θ(B), k = argmax |z̄ - z|, B ← B + S_{·k} (z̄_k - z_k), z_k ← z̄_k. The gradient takes k as a constant.
    """

    # A call keeps nothing on the module: codes and B are local, and parameters are only read.
    reentrant: ClassVar[bool] = True

    def compute_codes(self, b: Tensor) -> Tensor:
        """Take `steps` coordinate steps in every group."""
        # Column k of S is row k of its transpose, which `columns[group, k]` picks for each group.
        columns = self.mixing.transpose(1, 2)
        group = torch.arange(b.shape[1], device=b.device)
        codes = torch.zeros_like(b)
        for _ in range(self.steps):
            target = self.shrink(b)
            change = target - codes
            chosen = change.detach().abs().argmax(dim=2, keepdim=True)
            moved = change.gather(2, chosen)
            b = b + moved * columns[group, chosen.squeeze(2)]
            codes = codes.scatter_add(2, chosen, moved)
        return self.shrink(b)


@dataclass(frozen=True)
class InitialWeights:
    """Weights of an unrolled network before it is trained: W_e [m, d], S [m, m] and θ [m]."""

    encoder: Tensor
    mixing: Tensor
    threshold: Tensor


def make_ista_weights(atoms: Tensor, lam: float) -> InitialWeights:
    """Return the weights with which LISTA takes steps of ISTA, for atoms D [d, m] of unit norm.

    They are W_e = Dᵀ/L, S = I - DᵀD/L and θ = λ/L, L the largest eigenvalue of DᵀD (Gregor, LeCun 2010, algorithm 1).
    """
    gram = atoms.T @ atoms
    lipschitz = compute_largest_eigenvalue(gram if len(gram) <= len(atoms) else atoms @ atoms.T)
    identity = torch.eye(len(gram), dtype=atoms.dtype, device=atoms.device)
    return InitialWeights(
        atoms.T / lipschitz, identity - gram / lipschitz, atoms.new_full((len(gram),), lam / lipschitz)
    )


def make_descent_weights(atoms: Tensor, lam: float) -> InitialWeights:
    """Return the weights with which LCoD takes steps of coordinate descent, for atoms D [d, m] of unit norm.

    They are W_e = Dᵀ, S = I - DᵀD and θ = λ (Gregor, LeCun 2010, algorithm 2).
    """
    gram = atoms.T @ atoms
    identity = torch.eye(len(gram), dtype=atoms.dtype, device=atoms.device)
    return InitialWeights(atoms.T.clone(), identity - gram, atoms.new_full((len(gram),), lam))


def draw_random_weights(atoms: Tensor, lam: float, seed: int) -> InitialWeights:
    """Return random weights for atoms D [d, m]: rows of W_e of norm about 1, rows of S of norm about ½, and θ = λ."""
    inputs, units = atoms.shape
    generator = torch.Generator().manual_seed(seed)
    encoder = torch.randn(units, inputs, generator=generator) / math.sqrt(inputs)
    mixing = torch.randn(units, units, generator=generator) / (2 * math.sqrt(units))
    return InitialWeights(encoder.to(atoms), mixing.to(atoms), atoms.new_full((units,), lam))


def keep_largest(mixing: Tensor, interaction: Tensor, part: float) -> Tensor:
    """Return S [m, m] with all but a part of its entries set to zero: those where |interaction| [m, m] is smallest.

    The paper takes |I - DᵀD| for the interaction (section 4.3, figure 4).
    """
    count = max(1, round(part * mixing.numel()))
    if count >= mixing.numel():
        return mixing
    order = interaction.abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros_like(mixing).flatten()
    kept[order[:count]] = 1
    return mixing * kept.view_as(mixing)


def factorise_to_rank(mixing: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return U, V [m, rank] with U Vᵀ the best approximation of S [m, m] of that rank."""
    # Eckart and Young: the leading singular triplets; each factor gets the root of the singular values.
    left, values, right = torch.linalg.svd(mixing)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


class LowRank(nn.Module):
    """S = U Vᵀ [1, m, m], as a parametrisation of an unrolled network's `free`; trains U and V."""

    # A call only multiplies parameters, and keeps nothing.
    reentrant: ClassVar[bool] = True

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(left.clone()), nn.Parameter(right.clone())

    def forward(self, _whole: Tensor) -> Tensor:
        """Return U Vᵀ; the matrix that it parametrises is not looked at."""
        return (self.left @ self.right.T).unsqueeze(0)


def train_unrolled(
    encoder: nn.Linear,
    unrolled: Unrolled,
    patches: Tensor,
    codes: Tensor,
    updates: int,
    batch: int,
    rate: float,
    seed: int,
) -> None:
    """Minimise ½‖z* - f(x)‖² over W_e, S and θ in place: patches x [n, d], optimal codes z* [n, m].

    Adam, whose rate falls along half a cosine. Raises `LearningError` if training diverges.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [*encoder.parameters(), *unrolled.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
    # Learners may be called with gradients switched off.
    with torch.enable_grad():
        watched = Updates(updates)
        for update in watched:
            optimizer.param_groups[0]["lr"] = rate * cosine_decay(update, updates)
            chosen = torch.randint(len(patches), (batch,), generator=generator).to(patches.device)
            loss = 0.5 * (codes[chosen] - unrolled(encoder(patches[chosen]))).square().sum() / batch
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            watched.energy = loss.detach()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise LearningError("training the unrolled network diverged: lower the rate")
