"""Unrolled sparse coding: a few steps of a solver as a network, trained to give the optimal codes."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featbench.devices.selection import select_operations
from featbench.errors import LearningError
from featbench.sparse.steps import largest_eigenvalue


class Unrolled(nn.Module):
    """Codes f(B) from B = W_e x, by `steps` repetitions of a step with shared S and θ (Gregor, LeCun 2010).

    mixing S [groups, m, m] and threshold θ [groups × m]: each of equal groups of units has a problem of its own.
    zeros_stay: what is zero in S at the start is not trained.
    """

    kept: Tensor

    def __init__(self, mixing: Tensor, threshold: Tensor, steps: int, *, zeros_stay: bool = False) -> None:
        super().__init__()
        self.free = nn.Parameter(mixing.clone())
        self.threshold = nn.Parameter(threshold.clone())
        self.steps = steps
        kept = (mixing != 0).to(mixing.dtype) if zeros_stay else torch.ones_like(mixing)
        self.register_buffer("kept", kept, persistent=False)

    @property
    def mixing(self) -> Tensor:
        """S [groups, m, m]."""
        return self.free * self.kept

    def forward(self, x: Tensor) -> Tensor:
        """Return codes for x = B [n, units, ...], of the same shape."""
        groups, units = self.kept.shape[:2]
        last = x.movedim(1, -1)
        codes = self.code(last.reshape(-1, groups, units))
        return codes.reshape(last.shape).movedim(-1, 1)

    @abstractmethod
    def code(self, b: Tensor) -> Tensor:
        """Return codes [r, groups, m] for rows of B [r, groups, m]."""

    def shrink(self, values: Tensor) -> Tensor:
        """Return h_θ(values), values [r, groups, m]."""
        threshold = self.threshold.view(values.shape[1:])
        return values.sign() * (values.abs() - threshold).clamp_min(0)


class Lista(Unrolled):
    """LISTA (algorithm 3): z(0) = h_θ(B), then z ← h_θ(B + S z)."""

    def code(self, b: Tensor) -> Tensor:
        """Take `steps` steps; none is the plain shrinkage encoder."""
        mixing, threshold = self.mixing.transpose(1, 2), self.threshold.view(b.shape[1:])
        operations = select_operations(b.device)
        codes = self.shrink(b)
        for _ in range(self.steps):
            codes = operations.sparse_step(codes, mixing, b, threshold)
        return codes


class Lcod(Unrolled):
    """LCoD (algorithm 5): the coefficient that would change most moves, `steps` times; at last z = h_θ(B).

    Which coefficient that is counts as a constant for the gradient.
    """

    def code(self, b: Tensor) -> Tensor:
        """Take `steps` coordinate steps in every group."""
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
class Start:
    """What an unrolled network begins with: W_e [m, d], S [m, m] and θ [m]."""

    encoder: Tensor
    mixing: Tensor
    threshold: Tensor


def ista_start(atoms: Tensor, lam: float) -> Start:
    """Return what makes LISTA T steps of ISTA: Dᵀ/L, I - DᵀD/L, λ/L for atoms D [d, m] of unit norm."""
    gram = atoms.T @ atoms
    lipschitz = largest_eigenvalue(gram if len(gram) <= len(atoms) else atoms @ atoms.T)
    identity = torch.eye(len(gram), dtype=atoms.dtype, device=atoms.device)
    return Start(atoms.T / lipschitz, identity - gram / lipschitz, atoms.new_full((len(gram),), lam / lipschitz))


def descent_start(atoms: Tensor, lam: float) -> Start:
    """Return what makes LCoD T steps of coordinate descent: Dᵀ, I - DᵀD, λ for atoms D [d, m] of unit norm."""
    gram = atoms.T @ atoms
    identity = torch.eye(len(gram), dtype=atoms.dtype, device=atoms.device)
    return Start(atoms.T.clone(), identity - gram, atoms.new_full((len(gram),), lam))


def random_start(atoms: Tensor, lam: float, seed: int) -> Start:
    """Return encoder and mixing of random rows, for atoms D [d, m]: of norm 1 and of norm ½."""
    inputs, units = atoms.shape
    generator = torch.Generator().manual_seed(seed)
    encoder = torch.randn(units, inputs, generator=generator) / math.sqrt(inputs)
    mixing = torch.randn(units, units, generator=generator) / (2 * math.sqrt(units))
    return Start(encoder.to(atoms), mixing.to(atoms), atoms.new_full((units,), lam))


def keep_largest(mixing: Tensor, interaction: Tensor, part: float) -> Tensor:
    """Return S [m, m] with all but a part of its entries zero: those where |interaction| [m, m] is smallest go.

    The paper removes by |I - DᵀD| (section 4.3, figure 4).
    """
    count = max(1, round(part * mixing.numel()))
    if count >= mixing.numel():
        return mixing
    order = interaction.abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros_like(mixing).flatten()
    kept[order[:count]] = 1
    return mixing * kept.view_as(mixing)


def of_rank(mixing: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return U, V [m, rank] with U Vᵀ the best approximation of S [m, m] of that rank."""
    left, values, right = torch.linalg.svd(mixing)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


class LowRank(nn.Module):
    """S = U Vᵀ [groups, m, m], as a parametrisation of an unrolled network's `free`; trains U and V."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(left.clone()), nn.Parameter(right.clone())

    def forward(self, _whole: Tensor) -> Tensor:
        """Return the product, whatever the matrix in its place was."""
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
    with torch.enable_grad():
        for update in range(updates):
            optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * update / updates))
            chosen = torch.randint(len(patches), (batch,), generator=generator).to(patches.device)
            loss = 0.5 * (codes[chosen] - unrolled(encoder(patches[chosen]))).square().sum() / batch
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise LearningError("training the unrolled network diverged: lower the rate")
