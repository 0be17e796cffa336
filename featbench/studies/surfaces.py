"""Energies over the plane, F(y) = ‖y - reconstruction of y‖², of four learners fitted to points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from featbench.sparse import feature_sign, learn_dictionary
from featbench.types import FloatArray

Energy = Callable[[FloatArray], FloatArray]
"""A function from points [n, 2] to their energies [n]."""

DICTIONARY_UPDATES = 300
"""Updates of a dictionary of the plane, each on a batch of the points."""

STARTS, UPDATES, RATE = 4, 1500, 0.02
"""Random starts of an auto-encoder, of which the best is kept; updates of each by Adam on all points; the rate."""


def fit_pca(points: FloatArray, units: int) -> Energy:
    """Fit principal components; the energy is the squared distance to the line (or plane) that they span."""
    model = PCA(units).fit(points)
    return lambda y: _sum_squares(y - model.inverse_transform(model.transform(y)))


def fit_kmeans(points: FloatArray, units: int, seed: int) -> Energy:
    """Fit K-means, a 1-of-K code; the energy is the squared distance to the nearest centroid."""
    model = KMeans(units, n_init=10, random_state=seed).fit(points)
    return lambda y: _sum_squares(y - model.cluster_centers_[model.predict(np.ascontiguousarray(y))])


def fit_sparse_coding(points: FloatArray, units: int, seed: int, *, lam: float, constant: float) -> Energy:
    """Fit a dictionary D of unit-norm atoms; the energy is ‖y - D z‖², z the minimiser of ½‖y - D z‖² + λ‖z‖₁.

    `constant` is a third coordinate that all points share. Without one (0) an atom is a direction from the points'
    mean, and the energy cannot tell near from far. With one, an atom is a position in the plane.
    """
    mean = np.zeros(2) if constant else points.mean(axis=0)

    def lift(y: FloatArray) -> Tensor:
        return torch.from_numpy(np.column_stack([y - mean, np.full(len(y), constant)]))

    atoms = learn_dictionary(lift(points), units, lam, updates=DICTIONARY_UPDATES, seed=seed).atoms

    def energy(y: FloatArray) -> FloatArray:
        lifted = lift(y)
        return _sum_squares((lifted - feature_sign(lifted, atoms, lam).codes @ atoms.T).numpy())

    return energy


def fit_autoencoder(
    points: FloatArray, units: int, seed: int, *, background: FloatArray | None = None, sharpness: float = 1.0
) -> Energy:
    """Fit an auto-encoder V σ(W y + b) + c with sigmoid units; the energy F is its squared error.

    Without a background the loss is the mean energy of the points. With `background` points, which fill the square, it
    is their negative log-likelihood under exp(-β F) / Z: β times the mean energy plus log Z, β = `sharpness`.
    """
    y = torch.from_numpy(points)
    seen = None if background is None else torch.from_numpy(background)
    fitted = [_fit_from_start(y, units, seed + start, seen, sharpness) for start in range(STARTS)]
    _, best = min(fitted, key=lambda pair: pair[0])
    return lambda p: _compute_energy(torch.from_numpy(p), best).numpy()


def _fit_from_start(
    y: Tensor, units: int, seed: int, background: Tensor | None, sharpness: float
) -> tuple[float, list[Tensor]]:
    """Return the loss and the weights [W, b, V, c] that one random start leads to."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=y.dtype).requires_grad_()

    weights = [drawn(2, units), drawn(units), drawn(units, 2), drawn(2)]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    for _ in range(UPDATES):
        loss = _compute_energy(y, weights).mean()
        if background is not None:
            # log Z up to a constant: the sum over the background stands for the integral over the square.
            partition = torch.logsumexp(-sharpness * _compute_energy(background, weights), dim=0)
            loss = sharpness * loss + partition
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return float(loss.detach()), [weight.detach() for weight in weights]


def _compute_energy(y: Tensor, weights: list[Tensor]) -> Tensor:
    """Return ‖y - V σ(W y + b) - c‖² [n] of points y [n, 2]."""
    encoder, bias, decoder, offset = weights
    residual = y - torch.sigmoid(y @ encoder + bias) @ decoder - offset
    return residual.square().sum(dim=1)


def _sum_squares(residual: FloatArray) -> FloatArray:
    return np.asarray((residual**2).sum(axis=1))
