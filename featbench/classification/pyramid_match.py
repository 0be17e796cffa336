"""The pyramid match of Grauman and Darrell: histograms of local vectors over ever larger bins of feature space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.errors import FeatureError, LearningError
from featbench.features.rows import LocalMaps, LocalVectors
from featbench.types import FloatArray, IntArray

Matrix = NDArray[np.float64]
Bins = NDArray[np.uint64]

Histogram = tuple[Bins, NDArray[np.float32]]
"""Bins of all levels that an image has vectors in, ascending, and how many, times the weight of the level."""


@dataclass(frozen=True)
class FeatureSpace:
    """Where local vectors fall: principal components, so scaled that those of training lie within 2^levels on a side.

    mean [d], axes [components, d]: of the components. low, scale [components]: to [0, 2^levels], beyond which vectors
    are moved to the border. shift [components]: where the bins begin, at random, so that no border is special.
    multipliers [components]: of the hash by which a bin is known; that two of a million bins share one has a chance
    below 10⁻⁷.
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
        """Take the space of local vectors [n, d]; raises `LearningError` if they are all the same."""
        x = vectors.astype(np.float64)
        mean = x.mean(axis=0)
        _, variances, axes = np.linalg.svd((x - mean).T @ (x - mean), hermitian=True)
        count = int(min(components, (variances > 1e-12 * max(variances[0], 1e-300)).sum()))
        if not variances[0] > 1e-12 * float((mean**2).sum()) * len(x):
            raise LearningError("all local vectors are the same: there is nothing to match")
        projected = (x - mean) @ axes[:count].T
        low, reach = projected.min(axis=0), float(np.ptp(projected, axis=0).max())
        generator = np.random.default_rng(seed)
        return cls(
            levels=levels,
            mean=mean,
            axes=axes[:count],
            low=low,
            scale=np.full(count, 2**levels / reach),
            shift=generator.uniform(0, 2**levels, count),
            multipliers=generator.integers(2**64, size=count, dtype=np.uint64) | np.uint64(1),
        )

    def histogram(self, vectors: FloatArray) -> Histogram:
        """Return the bins of the local vectors [p, d] of one image.

        Level i has bins of side 2^i; the last, 2^(levels + 1), holds all. A match that is new at level i counts 1/2^i,
        so that the intersection of level i has the weight 1/2^i - 1/2^(i + 1), and that of the last 1/2^i.
        """
        projected = (vectors.astype(np.float64) - self.mean) @ self.axes.T
        place = np.clip((projected - self.low) * self.scale, 0, 2**self.levels * (1 - 1e-12)) + self.shift
        found: list[Bins] = []
        weights: list[NDArray[np.float32]] = []
        last = self.levels + 1
        for level in range(last + 1):
            cells = (place // 2**level).astype(np.uint64)
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
    """The histograms of training images, by bins: which images have vectors in each, and how many."""

    def __init__(self, histograms: Sequence[Histogram]) -> None:
        self.images, self._sizes = len(histograms), _sizes(histograms)
        owners = np.repeat(np.arange(self.images), [len(bins) for bins, _ in histograms])
        bins, weights = (np.concatenate(parts) for parts in zip(*histograms, strict=True))
        order = np.argsort(bins, kind="stable")
        self.bins, starts = np.unique(bins[order], return_index=True)
        self._ends = np.append(starts, len(order)).astype(np.int64)
        self._owners, self._weights = owners[order], weights[order]

    def match(self, histograms: Sequence[Histogram]) -> Matrix:
        """Return the pyramid match of other images with those of training, [m, t].

        It is divided by the square root of both images' matches with themselves.
        """
        gram = np.zeros((len(histograms), self.images))
        add = _compiled()

        def row(index: int) -> None:
            bins, weights = histograms[index]
            places = np.searchsorted(self.bins, bins)
            places[places == len(self.bins)] = 0
            known = self.bins[places] == bins
            add(places[known], weights[known], self._ends, self._owners, self._weights, gram[index])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(row, range(len(histograms))))
        normalised: Matrix = gram / np.sqrt(np.outer(_sizes(histograms), self._sizes))
        return normalised


def _sizes(histograms: Sequence[Histogram]) -> Matrix:
    """Return the images' matches with themselves: the weights of a vector's bins add up to 1."""
    return np.array([float(weights.sum(dtype=np.float64)) for _, weights in histograms])


@cache
def _compiled() -> Callable[..., None]:
    from numba import njit

    def add(places: Any, weights: Any, ends: Any, owners: Any, others: Any, row: Any) -> None:
        for i in range(len(places)):
            for k in range(ends[places[i]], ends[places[i] + 1]):
                row[owners[k]] += min(weights[i], others[k])

    compiled: Callable[..., None] = njit(nogil=True)(add)
    return compiled


def images_of(block: LocalVectors, first: int = 0) -> Iterator[FloatArray]:
    """Yield the local vectors [p, d] of each image; an error names it by its place, the block begins at `first`."""
    ends = np.cumsum(block.grids.prod(axis=1))
    for image, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True), start=first):
        vectors = block.vectors[start:end]
        if not np.isfinite(vectors).all():
            raise FeatureError(f"local vectors of image {image} are not finite: check what the maps were computed from")
        yield vectors


def sample_vectors(maps: LocalMaps, count: int, seed: int) -> FloatArray:
    """Return at most about `count` local vectors, as many from each image."""
    generator = np.random.default_rng(seed)
    each = -(-count // len(maps))
    drawn: list[FloatArray] = []
    for block in maps.blocks():
        for vectors in images_of(block, len(drawn)):
            chosen: IntArray = np.sort(generator.choice(len(vectors), size=min(each, len(vectors)), replace=False))
            drawn.append(vectors[chosen])
    return np.concatenate(drawn)
