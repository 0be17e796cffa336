"""Codes of local vectors over a codebook: hard, soft, sparse, and locality-constrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from featbench.errors import FeatureError
from featbench.learning.kmeans import lloyd, nearest_centroids
from featbench.sparse import Solution, active_descent, feature_sign, learn_dictionary

Kind = Literal["hard", "soft", "sparse", "llc"]
KINDS: tuple[str, ...] = get_args(Kind)

ITERATIONS = 100
"""Of K-means, at most; as in Lazebnik's code."""

TOLERANCE = 1e-2
"""Duality gap of sparse codes, as a part of the objective: finer codes pool to the same features."""


@dataclass(frozen=True)
class Coding:
    """How a local vector x is written over the words d_k of a codebook.

    hard: 1 for the nearest word (Sivic, Zisserman 2003). soft: exp(-‖x - d_k‖²/2s²), made to sum to 1, with s =
    `softness` times the root mean square distance of the vectors that the words were learned from to their nearest word
    (van Gemert et al. 2008). sparse: the magnitudes of argmin ‖x - Dz‖² + lam ‖z‖₁, over a dictionary of unit atoms
    (Yang et al. 2009; no ½). llc: the weights, of sum 1, with which the `neighbours` nearest words make up x, the local
    covariance C regularised by `beta` tr C (Wang et al. 2010, the approximated code).
    """

    kind: str = "hard"
    lam: float = 0.15
    softness: float = 0.5
    neighbours: int = 5
    beta: float = 1e-4

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"coding must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not (self.lam > 0 and self.softness > 0 and self.beta > 0):
            raise ValueError("lam, softness and beta must be positive")
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, not {self.neighbours}")

    def learn(self, vectors: Tensor, words: int, seed: int) -> Codebook:
        """Learn so many words from local vectors [n, d].

        Raises `FeatureError` for vectors that are not finite or fewer than the words, `LearningError` if too few of
        them differ or, for sparse codes, have any contrast.
        """
        if not bool(torch.isfinite(vectors).all()):
            raise FeatureError("local vectors are not finite: no codebook can be learned from them")
        if len(vectors) < words:
            raise FeatureError(
                f"a codebook of {words} words is asked for, and there are {len(vectors)} local vectors to learn it "
                "from: ask for fewer words, sample more vectors, or take more images"
            )
        if self.kind == "sparse":
            learned = learn_dictionary(vectors, words, self.lam / 2, seed=seed, coder=_sparse)
            return Codebook(self, learned.atoms.T.contiguous(), 1.0)
        centroids = lloyd(vectors, words, ITERATIONS, seed)
        return Codebook(self, centroids, float(nearest_centroids(vectors, centroids)[0].mean().clamp_min(0).sqrt()))


@dataclass(frozen=True)
class Codebook:
    """Words [k, d], and how far the vectors that they were learned from lie from the nearest of them.

    spread: the root mean square of those distances; 1 for sparse codes, which have no use for it.
    """

    coding: Coding
    words: Tensor
    spread: float

    def code(self, vectors: Tensor) -> Tensor:
        """Return the codes [n, k] of local vectors [n, d], in the words' precision; sparse ones in single precision."""
        x = vectors.to(self.words.dtype)
        match self.coding.kind:
            case "hard":
                return functional.one_hot(nearest_centroids(x, self.words)[1], len(self.words)).to(x.dtype)
            case "soft":
                width = max(self.coding.softness * self.spread, torch.finfo(x.dtype).tiny ** 0.5)
                distances = _distances(x, self.words)
                # Softmax is the same without the least of them, and a narrow width then overflows for the others alone.
                return torch.softmax((distances.amin(dim=1, keepdim=True) - distances) / (2 * width**2), dim=1)
            case "sparse":
                return _sparse(x, self.words.T, self.coding.lam / 2, tolerance=TOLERANCE).codes.abs()
            case _:
                return self._local(x)

    def _local(self, x: Tensor) -> Tensor:
        """Return LLC's codes: C w = 1 for the covariance C of the nearest words around x, and w made to sum to 1."""
        count = min(self.coding.neighbours, len(self.words))
        nearest = _distances(x, self.words).topk(count, dim=1, largest=False).indices
        around = (self.words[nearest] - x.unsqueeze(1)).double()
        covariance = around @ around.transpose(1, 2)
        trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
        scale = self.coding.beta * torch.where(trace > 0, trace, 1)  # 0 where all these words are x itself
        ridge = scale[:, None, None] * torch.eye(count, dtype=torch.float64, device=x.device)
        weights = torch.linalg.solve(covariance + ridge, torch.ones_like(around[..., :1])).squeeze(2)
        weights = weights / weights.sum(dim=1, keepdim=True)
        return torch.zeros(len(x), len(self.words), dtype=x.dtype, device=x.device).scatter_(
            1, nearest, weights.to(x.dtype)
        )


def _sparse(x: Tensor, words: Tensor, lam: float, **options: Any) -> Solution:
    return (feature_sign if x.is_cuda else active_descent)(x, words, lam, **options)


def _distances(x: Tensor, words: Tensor) -> Tensor:
    """Return squared distances [n, k]."""
    products = torch.addmm(words.square().sum(dim=1), x, words.T, alpha=-2)
    return (products + x.square().sum(dim=1, keepdim=True)).clamp_min_(0)
