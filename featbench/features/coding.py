"""Codes of local vectors over a codebook: hard, soft, sparse, and locality-constrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from featbench.errors import FeatureError
from featbench.learning.kmeans import find_nearest_centroids, learn_centroids
from featbench.sparse import Solution, active_descent, feature_sign, learn_dictionary

Kind = Literal["hard", "soft", "sparse", "llc"]
KINDS: tuple[str, ...] = get_args(Kind)

ITERATIONS = 100
"""Iterations of K-means, at most; as in Lazebnik's code."""

TOLERANCE = 1e-2
"""Duality gap at which sparse codes are good enough, as a part of the objective: finer codes pool to the same
features."""


@dataclass(frozen=True)
class Coding:
    """How a local vector x is coded over the words d_k of a codebook.

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
        """Learn a codebook of `words` words from local vectors [n, d].

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
            # The solvers minimise ½ ‖x - Dz‖² + lam ‖z‖₁, half of Yang's objective at half his lam.
            learned = learn_dictionary(vectors, words, self.lam / 2, seed=seed, coder=_solve_lasso)
            return Codebook(self, learned.atoms.T.contiguous(), 1.0)
        centroids = learn_centroids(vectors, words, ITERATIONS, seed)
        distances = find_nearest_centroids(vectors, centroids)[0]
        # Rounding may make the squared distance of a vector from itself slightly negative.
        return Codebook(self, centroids, float(distances.mean().clamp_min(0).sqrt()))


@dataclass(frozen=True)
class Codebook:
    """Words [k, d], with the distance of the vectors that they were learned from to the nearest of them.

    spread: the root mean square of those distances, the unit of `softness`; 1 for sparse codes, which do not use it.
    """

    coding: Coding
    words: Tensor
    spread: float

    def code(self, vectors: Tensor) -> Tensor:
        """Return the codes [n, k] of local vectors [n, d], in the words' precision; sparse ones in single precision."""
        x = vectors.to(self.words.dtype)
        match self.coding.kind:
            case "hard":
                return functional.one_hot(find_nearest_centroids(x, self.words)[1], len(self.words)).to(x.dtype)
            case "soft":
                # Never zero, nor so small that its square is: codes then are those of the nearest word.
                width = max(self.coding.softness * self.spread, torch.finfo(x.dtype).tiny ** 0.5)
                distances = _compute_squared_distances(x, self.words)
                # Softmax is the same when the least distance is subtracted from all. With a narrow width the quotients
                # of the other words then overflow to -∞, with codes of 0, and never that of the nearest word.
                return torch.softmax((distances.amin(dim=1, keepdim=True) - distances) / (2 * width**2), dim=1)
            case "sparse":
                return _solve_lasso(x, self.words.T, self.coding.lam / 2, tolerance=TOLERANCE).codes.abs()
            case _:
                return self._encode_llc(x)

    def _encode_llc(self, x: Tensor) -> Tensor:
        """Return LLC's approximated codes (Wang et al. 2010, section 3).

        Of the words d_i nearest to x they are the weights w with least ‖x - Σ w_i d_i‖² and Σ w_i = 1. That is C w = 1
        for the local covariance C_ij = (d_i - x)·(d_j - x), and then w divided by its sum.
        """
        count = min(self.coding.neighbours, len(self.words))
        nearest = _compute_squared_distances(x, self.words).topk(count, dim=1, largest=False).indices
        # In double precision: C is nearly singular where the words lie in few directions around x, and the ridge is
        # small.
        around = (self.words[nearest] - x.unsqueeze(1)).double()
        covariance = around @ around.transpose(1, 2)
        trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
        # The trace is 0 where all these words are x itself: any ridge then gives them equal weights.
        scale = self.coding.beta * torch.where(trace > 0, trace, 1)
        ridge = scale[:, None, None] * torch.eye(count, dtype=torch.float64, device=x.device)
        weights = torch.linalg.solve(covariance + ridge, torch.ones_like(around[..., :1])).squeeze(2)
        weights = weights / weights.sum(dim=1, keepdim=True)
        return torch.zeros(len(x), len(self.words), dtype=x.dtype, device=x.device).scatter_(
            1, nearest, weights.to(x.dtype)
        )


def _solve_lasso(x: Tensor, words: Tensor, lam: float, **options: Any) -> Solution:
    """Return the codes of least ½ ‖x - Dz‖² + lam ‖z‖₁ by the solver that is fastest on the device of x."""
    return (feature_sign if x.is_cuda else active_descent)(x, words, lam, **options)


def _compute_squared_distances(x: Tensor, words: Tensor) -> Tensor:
    """Return the squared distances [n, k] of vectors [n, d] from words [k, d]: ‖d‖² - 2 x·d + ‖x‖².

    One matrix product in place of n × k differences of d numbers; what rounding makes negative becomes 0.
    """
    products = torch.addmm(words.square().sum(dim=1), x, words.T, alpha=-2)
    return (products + x.square().sum(dim=1, keepdim=True)).clamp_min_(0)
