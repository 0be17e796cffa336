"""Encoders trained apart: on codes that are given, without a say in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.learning.predictive_decomposition import Predictor
from featbench.learning.unrolled import Start, Unrolled
from featbench.system.seeds import derive_seed

BATCH, RATE = 256, 0.003
"""Patches in an update by Adam, and its first rate, which falls along half a cosine."""


def train_encoder(encoder: nn.Module, rows: Tensor, codes: Tensor, seed: int, updates: int) -> None:
    """Train an encoder in place to give codes [n, m] of patches that are rows [n, d]."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "study", "regressor"))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=RATE, betas=(0.9, 0.99))
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * update / updates))
        chosen = torch.randint(len(rows), (BATCH,), generator=generator)
        loss = functional.mse_loss(encoder(rows[chosen]), codes[chosen], reduction="sum") / BATCH
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    encoder.requires_grad_(False)


def predictor_of(atoms: Tensor, nonlinearity: str, lam: float) -> Predictor:
    """Return f(W y + b) that starts from W = Dᵀ, D [d, m]; λ is the threshold that `shrink` starts from."""
    return Predictor(atoms.T[:, None, None, :], nonlinearity, threshold=lam)


def unrolled_of(kind: type[Unrolled], start: Start, steps: int) -> nn.Module:
    """Return LISTA or LCoD on patches in rows, [n, d] to [n, m], before it is trained."""
    encoder = nn.Linear(start.encoder.shape[1], start.encoder.shape[0], bias=False)
    with torch.no_grad():
        encoder.weight.copy_(start.encoder)
    return nn.Sequential(encoder, kind(start.mixing.unsqueeze(0), start.threshold, steps))
