"""Spatial pyramids: local vectors are coded, and the codes pooled over ever finer cells of the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from featbench.errors import FeatureError
from featbench.features.coding import Codebook, Coding
from featbench.features.rows import LocalMaps, LocalVectors
from featbench.types import FloatArray

POOLINGS = ("sum", "max")
NORMALISATIONS = ("count", "l1", "l2", "none")

BLOCK_CODES = 2**22
"""Codes that are computed at once."""


@dataclass(frozen=True)
class SpatialPyramid:
    """From local vectors to one row per image: what Lazebnik's pyramid, ScSPM and LLC have in common.

    words: size of the codebook. levels: L, the finest level; level l has 2^l × 2^l cells. single: the finest level
    alone. coding: of a vector. pooling: the codes of a cell are added up, or the largest is taken. normalise: what a
    row is divided by: the number of local vectors (count), the sum of all values (l1), their Euclidean norm (l2), or
    nothing (none); a row of zeros stays so. macro: side of the square of neighbouring vectors that are joined to one
    (Boureau et al. 2010). samples: local vectors that the codebook is learned from.
    Source: Lazebnik, Schmid, Ponce 2006.
    """

    words: int = 200
    levels: int = 2
    single: bool = False
    coding: Coding = field(default_factory=Coding)
    pooling: str = "sum"
    normalise: str = "count"
    macro: int = 1
    samples: int = 100_000

    def __post_init__(self) -> None:
        if min(self.words, self.macro, self.samples) < 1:
            raise ValueError("codebook, macro and samples must be at least 1")
        if not 0 <= self.levels <= 6:
            raise ValueError(f"levels must be between 0 and 6, not {self.levels}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, not {self.pooling!r}")
        if self.normalise not in NORMALISATIONS:
            raise ValueError(f"normalise must be one of {', '.join(NORMALISATIONS)}, not {self.normalise!r}")

    @property
    def shown(self) -> list[int]:
        """The levels that a row holds, from coarse to fine."""
        return [self.levels] if self.single else list(range(self.levels + 1))

    @property
    def cells(self) -> list[int]:
        """How many cells each of them has."""
        return [int(4**level) for level in self.shown]

    @property
    def length(self) -> int:
        """Values of a row."""
        return self.words * sum(self.cells)

    def weights(self) -> FloatArray:
        """Return the weight of each value of a row, [length]: 1/2^L for level 0, 1/2^(L-l+1) for level l (eq. 3)."""
        each = {level: 2.0 ** -(self.levels - max(level - 1, 0)) for level in self.shown}
        spread = [np.full(self.words * 4**level, 1.0 if self.single else each[level]) for level in self.shown]
        return np.concatenate(spread).astype(np.float32)

    def join(self, maps: Tensor) -> Tensor:
        """Join each square of `macro` × `macro` neighbours of local vectors [n, rows, columns, d] to one of macro² d.

        Raises `FeatureError` where there are fewer rows or columns.
        """
        if min(maps.shape[1:3]) < self.macro:
            raise FeatureError(
                f"maps of {maps.shape[1]}×{maps.shape[2]} positions have no macrofeatures of {self.macro}×{self.macro}"
            )
        windows = maps.unfold(1, self.macro, 1).unfold(2, self.macro, 1)
        return windows.permute(0, 1, 2, 4, 5, 3).flatten(3)

    def encode(self, maps: Tensor, codebook: Codebook) -> Tensor:
        """Return the rows [n, length] of local vectors [n, rows, columns, d]."""
        joined = self.join(maps)
        _, rows, columns, _ = joined.shape
        step = max(1, BLOCK_CODES // (rows * columns * self.words))
        pooled = [
            self._pool(codebook.code(some.flatten(0, 2)).view(len(some), rows, columns, -1))
            for some in torch.split(joined, step)
        ]
        return self._normalised(torch.cat(pooled), rows * columns)

    def _pool(self, codes: Tensor) -> Tensor:
        """Pool codes [n, rows, columns, words] over the cells of the finest level, and these over the coarser ones."""
        n, _, _, words = codes.shape
        side = 2**self.levels
        bands = [codes[:, low:high] for low, high in _bounds(codes.shape[1], side)]
        cells = [
            self._reduce(band[:, :, low:high].flatten(1, 2))
            for band in bands
            for low, high in _bounds(codes.shape[2], side)
        ]
        level = torch.stack(cells, dim=1).view(n, side, side, words)
        pooled = [level]
        while level.shape[1] > 1 and not self.single:
            half = level.shape[1] // 2
            quarters = level.view(n, half, 2, half, 2, words).transpose(2, 3).reshape(n * half * half, 4, words)
            level = self._reduce(quarters).view(n, half, half, words)
            pooled.insert(0, level)
        rows = torch.cat([one.flatten(1) for one in pooled], dim=1)
        return rows.masked_fill_(rows == -torch.inf, 0)

    def _reduce(self, codes: Tensor) -> Tensor:
        """Pool codes [n, positions, words] over positions; without any the sum is 0, and the largest -∞."""
        if codes.shape[1] == 0:
            return codes.new_full((len(codes), codes.shape[2]), 0 if self.pooling == "sum" else -torch.inf)
        return codes.sum(dim=1) if self.pooling == "sum" else codes.amax(dim=1)

    def _normalised(self, rows: Tensor, count: int) -> Tensor:
        if self.normalise == "none":
            return rows
        if self.normalise == "count":
            return rows / count
        norm = torch.linalg.vector_norm(rows, ord=1 if self.normalise == "l1" else 2, dim=1, keepdim=True)
        return rows / torch.where(norm > 0, norm, torch.ones_like(norm))


def _bounds(count: int, side: int) -> list[tuple[int, int]]:
    """Return where each of `side` cells begins and ends among `count` positions, whose centres are at (i + ½)/count."""
    # Position i lies in cell ⌊(2i + 1) side / 2 count⌋, so that four cells of a level make up one of the level above.
    edges = [max(0, -((side - 2 * cell * count) // (2 * side))) for cell in range(side)]
    return list(zip(edges, [*edges[1:], count], strict=True))


def same_size(block: LocalVectors, device: torch.device) -> Iterator[Tensor]:
    """Yield the images of a block in order, neighbours of one size together, as [n, rows, columns, d] in float32."""
    counts = block.grids.prod(axis=1)
    ends = np.cumsum(counts)
    changes = np.flatnonzero((np.diff(block.grids, axis=0) != 0).any(axis=1)) + 1
    for here in np.split(np.arange(len(counts)), changes):
        values = block.vectors[ends[here[0]] - counts[here[0]] : ends[here[-1]]].astype(np.float32)
        rows, columns = (int(side) for side in block.grids[here[0]])
        yield torch.from_numpy(values).to(device).view(len(here), rows, columns, -1)


def encode_images(maps: LocalMaps, pyramid: SpatialPyramid, codebook: Codebook) -> FloatArray:
    """Return the rows [n, length] of images, float32."""
    return np.concatenate([encode_block(block, pyramid, codebook) for block in maps.blocks()])


def encode_block(block: LocalVectors, pyramid: SpatialPyramid, codebook: Codebook) -> FloatArray:
    """Return the rows [b, length] of a block of images, float32.

    Raises `FeatureError` if an image has vectors that are not finite, or too few for a macrofeature.
    """
    _require_finite(block)
    device = codebook.words.device
    parts = [pyramid.encode(some, codebook).cpu().numpy() for some in same_size(block, device)]
    return np.concatenate(parts)


def _require_finite(block: LocalVectors, first: int = 0) -> None:
    """Raise `FeatureError` that names the first image with vectors that are not finite; the block begins at `first`."""
    # What is squared in single precision overflows where a value is not finite, or too large to be compared.
    values = block.vectors.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", values, values)))
    if len(bad):
        image = first + np.searchsorted(block.grids.prod(axis=1).cumsum(), bad[0], side="right")
        raise FeatureError(
            f"local vectors of image {image} are not finite, or too large to be squared: check what the maps were "
            "computed from"
        )


class VectorSample:
    """Draws local vectors at random positions, as many from each image, for a codebook."""

    def __init__(self, pyramid: SpatialPyramid, images: int, seed: int) -> None:
        self._pyramid = pyramid
        self._each = -(-pyramid.samples // images)
        self._generator = np.random.default_rng(seed)
        self._kept: list[Tensor] = []

    def add(self, maps: Tensor) -> None:
        """Draw from images [n, rows, columns, d], all their vectors where they have fewer than are wanted."""
        for vectors in self._pyramid.join(maps).flatten(1, 2):
            count = min(self._each, len(vectors))
            chosen = np.sort(self._generator.choice(len(vectors), size=count, replace=False))
            self._kept.append(vectors[torch.from_numpy(chosen).to(vectors.device)])

    def vectors(self) -> Tensor:
        """Return what was drawn, [samples or fewer, macro² d]."""
        drawn = torch.cat(self._kept)
        if len(drawn) <= self._pyramid.samples:
            return drawn
        chosen = np.sort(self._generator.choice(len(drawn), size=self._pyramid.samples, replace=False))
        return drawn[torch.from_numpy(chosen).to(drawn.device)]


def learn_codebook(maps: LocalMaps, pyramid: SpatialPyramid, seed: int, device: torch.device) -> Codebook:
    """Learn a codebook from the local vectors of images; raises as `encode_block` and `Coding.learn` do."""
    sample, seen = VectorSample(pyramid, len(maps), seed), 0
    for block in maps.blocks():
        _require_finite(block, seen)
        seen += len(block.grids)
        for some in same_size(block, device):
            sample.add(some)
    return pyramid.coding.learn(sample.vectors(), pyramid.words, seed)
