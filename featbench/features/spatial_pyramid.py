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

LARGE, FEWEST, MOST = 512, 8, 64
"""Positions from which an image is coded alone; of smaller images, how many are coded together, at least and at most.
"""

BLOCK_CODES = 2**22
"""Values of codes that are computed at once: 16 MB in float32. Codes over 1,024 words are eight times as long as SIFT
descriptors, so that those of all images would not fit into the memory."""


@dataclass(frozen=True)
class SpatialPyramid:
    """From local vectors to one row per image: what Lazebnik's pyramid, ScSPM and LLC have in common.

    words: size of the codebook. levels: L, the finest level; level l divides the image into 2^l × 2^l cells. single:
    the finest level alone. coding: how a vector is coded. pooling: the codes of a cell are added up (sum), or the
    largest of each word is taken (max). normalise: what a row is divided by: the number of local vectors (count), the
    sum of all values (l1), their Euclidean norm (l2), or nothing (none); a row of zeros stays as it is. macro: side of
    the square of neighbouring vectors that are joined to one, a macrofeature (Boureau et al. 2010). samples: local
    vectors that the codebook is learned from, at most. Source: Lazebnik, Schmid, Ponce 2006.
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
    def shown_levels(self) -> list[int]:
        """The levels that a row holds, from coarse to fine."""
        return [self.levels] if self.single else list(range(self.levels + 1))

    @property
    def cells(self) -> list[int]:
        """How many cells each of the shown levels has."""
        return [int(4**level) for level in self.shown_levels]

    @property
    def length(self) -> int:
        """How many values a row has."""
        return self.words * sum(self.cells)

    def make_weights(self) -> FloatArray:
        """Return the weight of each value of a row, [length]: 1/2^L for level 0, 1/2^(L-l+1) for level l (eq. 3).

        Equation 2 weighs the matches that are new at a level, those that a finer level has not found; collected by
        level these weights come out. A single level has weight 1.
        """
        each = {level: 2.0 ** -(self.levels - max(level - 1, 0)) for level in self.shown_levels}
        spread = [np.full(self.words * 4**level, 1.0 if self.single else each[level]) for level in self.shown_levels]
        return np.concatenate(spread).astype(np.float32)

    def join(self, maps: Tensor) -> Tensor:
        """Join each square of `macro` × `macro` neighbours of local vectors [n, rows, columns, d] to one of macro² d.

        Raises `FeatureError` if the images have fewer rows or columns.
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
        return self._normalise_rows(torch.cat(pooled), rows * columns)

    def _pool(self, codes: Tensor) -> Tensor:
        """Return the pooled codes [n, length] of codes [n, rows, columns, words], level by level.

        Each position is visited once, for the finest level; a cell of a coarser level pools the four cells that make
        it up, which gives the same sum and the same maximum.
        """
        n, _, _, words = codes.shape
        side = 2**self.levels
        bands = [codes[:, low:high] for low, high in _find_cell_bounds(codes.shape[1], side)]
        cells = [
            self._pool_positions(band[:, :, low:high].flatten(1, 2))
            for band in bands
            for low, high in _find_cell_bounds(codes.shape[2], side)
        ]
        level = torch.stack(cells, dim=1).view(n, side, side, words)
        pooled = [level]
        while level.shape[1] > 1 and not self.single:
            half = level.shape[1] // 2
            # [n, half, 2, half, 2, words]: the four cells of each coarser cell, side by side.
            quarters = level.view(n, half, 2, half, 2, words).transpose(2, 3).reshape(n * half * half, 4, words)
            level = self._pool_positions(quarters).view(n, half, half, words)
            pooled.insert(0, level)
        rows = torch.cat([one.flatten(1) for one in pooled], dim=1)
        # Cells without positions, of images with fewer rows or columns than cells.
        return rows.masked_fill_(rows == -torch.inf, 0)

    def _pool_positions(self, codes: Tensor) -> Tensor:
        """Pool codes [n, positions, words] over positions. Of none the sum is 0 and the maximum -∞, so that neither
        changes what a coarser cell gets from the others."""
        if codes.shape[1] == 0:
            return codes.new_full((len(codes), codes.shape[2]), 0 if self.pooling == "sum" else -torch.inf)
        return codes.sum(dim=1) if self.pooling == "sum" else codes.amax(dim=1)

    def _normalise_rows(self, rows: Tensor, count: int) -> Tensor:
        if self.normalise == "none":
            return rows
        if self.normalise == "count":
            return rows / count
        norm = torch.linalg.vector_norm(rows, ord=1 if self.normalise == "l1" else 2, dim=1, keepdim=True)
        return rows / torch.where(norm > 0, norm, torch.ones_like(norm))


def _find_cell_bounds(count: int, side: int) -> list[tuple[int, int]]:
    """Return where each of `side` cells begins and ends among `count` positions, whose centres are at (i + ½)/count."""
    # Position i lies in cell ⌊(2i + 1) side / 2 count⌋: of half as many cells it lies in half that number, rounded
    # down, so that four cells of a level make up one of the coarser level exactly. Cell c begins at the least i with
    # (2i + 1) side ≥ 2 count c, that is ⌈(2 count c - side) / 2 side⌉; in whole numbers, ⌈a/b⌉ = -⌊-a/b⌋.
    edges = [max(0, -((side - 2 * cell * count) // (2 * side))) for cell in range(side)]
    return list(zip(edges, [*edges[1:], count], strict=True))


def group_by_size(block: LocalVectors, device: torch.device) -> Iterator[Tensor]:
    """Yield the images of a block in order, neighbours of one size together, as [n, rows, columns, d] in float32."""
    # Where the size changes a new group begins; images of one size that are not neighbours are not brought together,
    # since the order of the rows must be that of the images.
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
    parts = [
        pyramid.encode(batch, codebook)[:count].cpu().numpy()
        for some in group_by_size(block, device)
        for batch, count in _divide(some)
    ]
    return np.concatenate(parts)


def _divide(images: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Yield images [n, rows, columns, d] of one size in batches, each with how many of its images are wanted.

    Large images come alone, small ones never: the digits of a product of matrices depend on how many rows it has, and
    an image's codes must not depend on the images beside it.
    """
    if images.shape[1] * images.shape[2] >= LARGE:
        for image in images:
            yield image.unsqueeze(0), 1
        return
    for some in torch.split(images, MOST):
        missing = max(0, FEWEST - len(some))
        yield torch.cat([some, some[-1:].expand(missing, *some.shape[1:])]), len(some)


def _require_finite(block: LocalVectors, first: int = 0) -> None:
    """Raise a `FeatureError` that names the first image with vectors that are not finite.

    first: the index of the block's first image.
    """
    # The squared norm of a vector is not finite where a value is not, or where one is so large that distances to the
    # words would overflow. One pass, and no array of the size of the block.
    values = block.vectors.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", values, values)))
    if len(bad):
        image = first + np.searchsorted(block.grids.prod(axis=1).cumsum(), bad[0], side="right")
        raise FeatureError(
            f"local vectors of image {image} are not finite, or too large to be squared: check what the maps were "
            "computed from"
        )


class VectorSample:
    """Draws local vectors at random positions for a codebook, from each image the same number.

    Images come one after another, and what is not drawn is not kept: all their vectors need not fit into the memory.
    """

    def __init__(self, pyramid: SpatialPyramid, images: int, seed: int) -> None:
        self._pyramid = pyramid
        self._each = -(-pyramid.samples // images)  # rounded up
        self._generator = np.random.default_rng(seed)
        self._kept: list[Tensor] = []

    def add(self, maps: Tensor) -> None:
        """Draw from images [n, rows, columns, d]: all vectors of an image that has fewer than are wanted."""
        for vectors in self._pyramid.join(maps).flatten(1, 2):
            count = min(self._each, len(vectors))
            # Sorted, so that memory is read in order.
            chosen = np.sort(self._generator.choice(len(vectors), size=count, replace=False))
            self._kept.append(vectors[torch.from_numpy(chosen).to(vectors.device)])

    def vectors(self) -> Tensor:
        """Return the vectors that were drawn, [samples or fewer, macro² d]."""
        drawn = torch.cat(self._kept)
        # The same number from each image, rounded up, may be a few too many.
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
        for some in group_by_size(block, device):
            sample.add(some)
    return pyramid.coding.learn(sample.vectors(), pyramid.words, seed)
