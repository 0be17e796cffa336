"""K-means: Lloyd's updates from a k-means++ start."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from featbench.errors import LearningError
from featbench.system.updates import Updates

BLOCK = 4096
"""Rows whose distances to all centroids are held at once: [n, k] of all rows might not fit into the memory."""


def learn_centroids(rows: Tensor, count: int, iterations: int, seed: int) -> Tensor:
    """Return `count` centroids [count, d] of rows [n, d]: k-means++, then at most `iterations` of Lloyd's updates.

    It ends early once no row changes its centroid. A centroid without rows becomes one of the rows that lie farthest
    from their own. Raises `LearningError` if fewer than `count` rows differ. Source: Lloyd 1982.
    """
    centroids = draw_first_centroids(rows, count, seed)
    assignments = torch.full((len(rows),), -1, device=rows.device)
    updates = Updates(iterations)
    for _ in updates:
        distances, nearest = find_nearest_centroids(rows, centroids)
        sums, sizes = torch.zeros_like(centroids), rows.new_zeros(count)
        for block, indices in zip(torch.split(rows, BLOCK), torch.split(nearest, BLOCK), strict=True):
            # A product rather than index_add: on a GPU that adds in an order which is not the same twice.
            members = functional.one_hot(indices, count).to(rows.dtype)
            sums, sizes = sums + members.T @ block, sizes + members.sum(dim=0)
        empty = sizes == 0
        centroids = sums / sizes.clamp_min(1).unsqueeze(1)
        if bool(empty.any()):
            centroids[empty] = rows[distances.topk(int(empty.sum())).indices]
        elif bool((nearest == assignments).all()):
            break
        assignments = nearest
        updates.energy = distances.mean
    return centroids


def find_nearest_centroids(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance [n] of each row [n, d] to the nearest centroid [k, d], and which that is [n].

    ‖x - c‖² = ‖c‖² - 2 xᵀc + ‖x‖², so that one product of matrices does most of the work.
    """
    squared_norms = centroids.square().sum(dim=1)
    found = [
        (squared_norms - 2 * block @ centroids.T + block.square().sum(dim=1, keepdim=True)).min(dim=1)
        for block in torch.split(rows, BLOCK)
    ]
    return torch.cat([distance for distance, _ in found]), torch.cat([index for _, index in found])


def draw_first_centroids(rows: Tensor, count: int, seed: int) -> Tensor:
    """Draw `count` rows [count, d] that lie apart from each other: k-means++ (Arthur, Vassilvitskii 2007).

    Each is drawn with a probability in proportion to its squared distance to the nearest row drawn before.
    """
    # A generator of the CPU, so that a GPU draws the same rows.
    generator = np.random.default_rng(seed)
    chosen = [int(generator.integers(len(rows)))]
    distances = (rows - rows[chosen[0]]).square().sum(dim=1)
    while len(chosen) < count:
        # Inverse transform sampling: a uniform number falls into each row's share of the cumulative sum.
        cumulative = distances.double().cumsum(dim=0).cpu().numpy()
        if cumulative[-1] == 0:
            raise LearningError(
                f"there are only {len(chosen)} distinct vectors, too few for {count} centroids of K-means: "
                "ask for fewer, or give more images"
            )
        # side="right": a row of distance 0, whose share is empty, is never drawn.
        chosen.append(int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")))
        distances = torch.minimum(distances, (rows - rows[chosen[-1]]).square().sum(dim=1))
    return rows[torch.tensor(chosen, device=rows.device)]
