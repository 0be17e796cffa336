"""The pyramid match of Grauman and Darrell: histograms of local vectors over ever larger bins of feature space.

Source: Grauman and Darrell 2005, The Pyramid Match Kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.errors import FeatureError, LearningError
from featbench.features.rows import LocalMaps, LocalVectors
from featbench.types import FloatArray, IntArray, State

Matrix = NDArray[np.float64]
Bins = NDArray[np.uint64]
"""Hashes, each of which identifies a bin of one level."""

Histogram = tuple[Bins, NDArray[np.float32]]
"""The bins of all levels that hold vectors of an image, ascending, and their counts times the weight of the level."""


@dataclass(frozen=True)
class FeatureSpace:
    """The cube that bins divide: local vectors, projected onto principal components and scaled to a side of 2^levels.

    mean [d], axes [components, d]: of the components. low, scale [components]: map the training vectors to
    [0, 2^levels]; vectors beyond are moved to the border. shift [components]: a random corner where the bins begin, so
    that no border between bins is special. multipliers [components]: of the hash that identifies a bin.
    """

    levels: int
    mean: Matrix
    axes: Matrix
    low: Matrix
    scale: Matrix
    shift: Matrix
    multipliers: Bins

    @classmethod
    def fit(cls, vectors: FloatArray, components: int, levels: int, seed: int) -> FeatureSpace:
        """Fit the space to local vectors [n, d]; raises `LearningError` if they are all equal."""
        x = vectors.astype(np.float64)
        mean = x.mean(axis=0)
        # The singular values of the scatter matrix [d, d] are n times the variances along its singular vectors.
        _, variances, axes = np.linalg.svd((x - mean).T @ (x - mean), hermitian=True)
        count = int(min(components, (variances > 1e-12 * max(variances[0], 1e-300)).sum()))
        if not variances[0] > 1e-12 * float((mean**2).sum()) * len(x):
            raise LearningError("all local vectors are the same: there is nothing to match")
        projected = (x - mean) @ axes[:count].T
        # One scale for all components, from the widest: distances keep their proportions.
        low, reach = projected.min(axis=0), float(np.ptp(projected, axis=0).max())
        generator = np.random.default_rng(seed)
        return cls(
            levels=levels,
            mean=mean,
            axes=axes[:count],
            low=low,
            scale=np.full(count, 2**levels / reach),
            shift=generator.uniform(0, 2**levels, count),
            # Odd numbers are invertible modulo 2⁶⁴: cells that differ in one coordinate never share a hash.
            multipliers=generator.integers(2**64, size=count, dtype=np.uint64) | np.uint64(1),
        )

    def state(self) -> State:
        """Return the space as named arrays."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def restore(cls, state: State) -> FeatureSpace:
        """Rebuild a space from its state."""
        named: dict[str, Any] = {one.name: state[one.name] for one in fields(cls)}
        return cls(**{**named, "levels": int(state["levels"])})

    def make_histogram(self, vectors: FloatArray) -> Histogram:
        """Return the weighted histogram, over all levels, of the local vectors [p, d] of one image.

        Level i has bins of side 2^i; the last level, levels + 1, has a single bin.
        """
        # The pyramid match is Σ_i N_i / 2^i, where N_i = I_i - I_{i-1} counts the matches that are new at level i, and
        # I_i = Σ min(counts) is the intersection of the histograms (Grauman and Darrell, equations 2 to 5). Rearranged
        # by I_i, each level has the weight 1/2^i - 1/2^(i+1), and the last 1/2^i. Weights inside the minimum turn the
        # match into one intersection of these histograms: w min(a, b) = min(w a, w b).
        projected = (vectors.astype(np.float64) - self.mean) @ self.axes.T
        # Just inside the border, so that every vector lies in the last level's only bin: shift + 2^levels is less than
        # its side, 2^(levels + 1).
        points = np.clip((projected - self.low) * self.scale, 0, 2**self.levels * (1 - 1e-12)) + self.shift
        found: list[Bins] = []
        weights: list[NDArray[np.float32]] = []
        last = self.levels + 1
        for level in range(last + 1):
            cells = (points // 2**level).astype(np.uint64)
            # Σ_c multiplier_c cell_c modulo 2⁶⁴, times an odd number that exceeds the levels, plus the level. Two of a
            # million bins have the same hash with a probability below 10⁻⁷.
            hashed = (cells * self.multipliers).sum(axis=1, dtype=np.uint64) * np.uint64(2 * last + 3) + np.uint64(
                level
            )
            bins, counts = np.unique(hashed, return_counts=True)
            found.append(bins)
            weights.append((counts * (2.0**-level - (2.0 ** -(level + 1) if level < last else 0))).astype(np.float32))
        bins = np.concatenate(found)
        order = np.argsort(bins, kind="stable")
        return bins[order], np.concatenate(weights)[order]


class TrainingBins:
    """The histograms of training images, inverted: for each bin, the images with vectors in it and their weights.

    A new image then meets only the training images that it shares bins with: an inverted index, in compressed rows.
    """

    def __init__(self, histograms: Sequence[Histogram]) -> None:
        self.images, self._self_matches = len(histograms), _compute_self_matches(histograms)
        owners = np.repeat(np.arange(self.images), [len(bins) for bins, _ in histograms])
        bins, weights = (np.concatenate(parts) for parts in zip(*histograms, strict=True))
        order = np.argsort(bins, kind="stable")
        self.bins, starts = np.unique(bins[order], return_index=True)
        self._ends = np.append(starts, len(order)).astype(np.int64)
        self._owners, self._weights = owners[order], weights[order]

    def state(self) -> State:
        """Return the inverted histograms as named arrays."""
        return {
            "bins": self.bins,
            "ends": self._ends,
            "owners": self._owners,
            "weights": self._weights,
            "self_matches": self._self_matches,
        }

    @classmethod
    def restore(cls, state: State) -> Self:
        """Rebuild the bins from their state."""
        made = cls.__new__(cls)
        made.bins, made._ends, made._owners = state["bins"], state["ends"], state["owners"]
        made._weights, made._self_matches = state["weights"], state["self_matches"]
        made.images = len(made._self_matches)
        return made

    def match(self, histograms: Sequence[Histogram]) -> Matrix:
        """Return the normalised pyramid match K(a, b) / √(K(a, a) K(b, b)) of other images and training images, [m, t].

        Without the division images with many vectors would match everything.
        """
        gram = np.zeros((len(histograms), self.images))
        add = _compile_sum()

        def fill_row(index: int) -> None:
            bins, weights = histograms[index]
            indices = np.searchsorted(self.bins, bins)
            indices[indices == len(self.bins)] = 0  # beyond the last bin; the comparison drops these
            known = self.bins[indices] == bins
            add(indices[known], weights[known], self._ends, self._owners, self._weights, gram[index])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill_row, range(len(histograms))))
        normalised: Matrix = gram / np.sqrt(np.outer(_compute_self_matches(histograms), self._self_matches))
        return normalised


def _compute_self_matches(histograms: Sequence[Histogram]) -> Matrix:
    """Return the match K(a, a) of each image with itself, [n]: as min(w, w) = w, the sum of its weights."""
    return np.array([float(weights.sum(dtype=np.float64)) for _, weights in histograms])


@cache
def _compile_sum() -> Callable[..., None]:
    """Compile the function that adds an image's intersections with the training images to a row of the Gram matrix."""
    from numba import njit  # here, as importing numba takes long and few classifiers need it

    def add(indices: Any, weights: Any, ends: Any, owners: Any, others: Any, row: Any) -> None:
        for i in range(len(indices)):
            for k in range(ends[indices[i]], ends[indices[i] + 1]):
                row[owners[k]] += min(weights[i], others[k])

    # nogil lets the threads of `match` run at the same time.
    compiled: Callable[..., None] = njit(nogil=True)(add)
    return compiled


def split_images(block: LocalVectors, first: int = 0) -> Iterator[FloatArray]:
    """Yield the local vectors [p, d] of each image of a block.

    Raises `FeatureError` that names the image whose vectors are not finite; first: the number of the block's first.
    """
    ends = np.cumsum(block.grids.prod(axis=1))
    for image, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True), start=first):
        vectors = block.vectors[start:end]
        if not np.isfinite(vectors).all():
            raise FeatureError(f"local vectors of image {image} are not finite: check what the maps were computed from")
        yield vectors


def sample_vectors(maps: LocalMaps, count: int, seed: int) -> FloatArray:
    """Return about `count` local vectors at most, [n, d]: as many from each image, all of those that have fewer."""
    generator = np.random.default_rng(seed)
    each = -(-count // len(maps))  # rounded up, so that there is at least one
    drawn: list[FloatArray] = []
    for block in maps.blocks():
        for vectors in split_images(block, len(drawn)):
            chosen: IntArray = np.sort(generator.choice(len(vectors), size=min(each, len(vectors)), replace=False))
            drawn.append(vectors[chosen])
    return np.concatenate(drawn)
