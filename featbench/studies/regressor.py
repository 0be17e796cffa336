"""Encoders trained on fixed codes: regressors, which predict codes without influencing them, unlike PSD's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.learning.predictive_decomposition import PredictiveEncoder
from featbench.learning.schedules import cosine_decay
from featbench.learning.unrolled import InitialWeights, Unrolled
from featbench.system.seeds import derive_seed

BATCH, RATE = 256, 0.003
"""Patches in an update by Adam, and its first rate, which falls along half a cosine."""


def train_encoder(encoder: nn.Module, rows: Tensor, codes: Tensor, seed: int, updates: int) -> None:
    """Train an encoder in place to predict the codes [n, m] of patches [n, d], by Adam on the mean squared error."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "study", "regressor"))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=RATE, betas=(0.9, 0.99))
    for update in range(updates):
        # Half a cosine from RATE down to 0: large steps first, small ones to settle in the minimum.
        optimizer.param_groups[0]["lr"] = RATE * cosine_decay(update, updates)
        chosen = torch.randint(len(rows), (BATCH,), generator=generator)
        # Summed over units, averaged over patches: the gradient does not shrink as the number of units grows.
        loss = functional.mse_loss(encoder(rows[chosen]), codes[chosen], reduction="sum") / BATCH
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    encoder.requires_grad_(False)


def make_predictor(atoms: Tensor, nonlinearity: str, lam: float) -> PredictiveEncoder:
    """Return an encoder f(W y + b) that starts from W = Dᵀ, D [d, m]; `shrink` starts from the threshold λ."""
    return PredictiveEncoder(atoms.T[:, None, None, :], nonlinearity, threshold=lam)


def make_unrolled(kind: type[Unrolled], start: InitialWeights, steps: int) -> nn.Module:
    """Return an untrained LISTA or LCoD network that maps patches [n, d] to codes [n, m]."""
    encoder = nn.Linear(start.encoder.shape[1], start.encoder.shape[0], bias=False)
    with torch.no_grad():
        encoder.weight.copy_(start.encoder)
    return nn.Sequential(encoder, kind(start.mixing.unsqueeze(0), start.threshold, steps))
