"""K-means: Lloyd's updates from a k-means++ start."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from featbench.errors import LearningError

BLOCK = 4096
"""Rows whose distances to all centroids are held at once."""


def lloyd(rows: Tensor, count: int, iterations: int, seed: int) -> Tensor:
    """Return `count` centroids [count, d] of rows [n, d]: k-means++, then at most `iterations` of Lloyd's updates."""
    centroids = spread(rows, count, seed)
    sides = torch.full((len(rows),), -1, device=rows.device)
    for _ in range(iterations):
        distances, nearest = nearest_centroids(rows, centroids)
        sums, sizes = torch.zeros_like(centroids), rows.new_zeros(count)
        for block, side in zip(torch.split(rows, BLOCK), torch.split(nearest, BLOCK), strict=True):
            # A product rather than additions to indexed rows: on a GPU the order of those is not the same twice.
            members = functional.one_hot(side, count).to(rows.dtype)
            sums, sizes = sums + members.T @ block, sizes + members.sum(dim=0)
        empty = sizes == 0
        centroids = sums / sizes.clamp_min(1).unsqueeze(1)
        if bool(empty.any()):
            centroids[empty] = rows[distances.topk(int(empty.sum())).indices]
        elif bool((nearest == sides).all()):
            break
        sides = nearest
    return centroids


def nearest_centroids(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance [n] of each row [n, d] to the nearest centroid [k, d], and which that is [n]."""
    lengths = centroids.square().sum(dim=1)
    found = [
        (lengths - 2 * block @ centroids.T + block.square().sum(dim=1, keepdim=True)).min(dim=1)
        for block in torch.split(rows, BLOCK)
    ]
    return torch.cat([distance for distance, _ in found]), torch.cat([side for _, side in found])


def spread(rows: Tensor, count: int, seed: int) -> Tensor:
    """Draw `count` rows [count, d] apart from each other: k-means++ (Arthur, Vassilvitskii 2007)."""
    generator = np.random.default_rng(seed)
    chosen = [int(generator.integers(len(rows)))]
    distances = (rows - rows[chosen[0]]).square().sum(dim=1)
    while len(chosen) < count:
        reach = distances.double().cumsum(dim=0).cpu().numpy()
        if reach[-1] == 0:
            raise LearningError(
                f"there are only {len(chosen)} distinct vectors, too few for {count} centroids of K-means: "
                "ask for fewer, or give more images"
            )
        chosen.append(int(np.searchsorted(reach, generator.random() * reach[-1], side="right")))
        distances = torch.minimum(distances, (rows - rows[chosen[-1]]).square().sum(dim=1))
    return rows[torch.tensor(chosen, device=rows.device)]
