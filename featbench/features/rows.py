"""Features as rows of an array or as local vectors, read in blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featbench.types import FloatArray, IntArray

BLOCK_VALUES = 2**24
"""Values of features that are read at once."""


@dataclass(frozen=True)
class LocalVectors:
    """The maps of b images as local vectors.

    vectors: [p, maps], image after image; in an image, row after row of positions. grids: [b, 2], how many rows and
    columns of positions each image has.
    """

    vectors: FloatArray
    grids: IntArray


class LocalMaps(ABC):
    """The maps of images as local vectors, read some images at a time."""

    @property
    @abstractmethod
    def grids(self) -> IntArray:
        """Rows and columns of positions of each image, [n, 2]."""

    @abstractmethod
    def select(self, chosen: IntArray) -> LocalMaps:
        """Return some of the images."""

    @abstractmethod
    def blocks(self) -> Iterator[LocalVectors]:
        """Yield the images in order, some at a time."""

    def __len__(self) -> int:
        return len(self.grids)


@dataclass(frozen=True)
class Rows:
    """Some rows of an array [n, d], read in blocks: the array may lie on disk and be larger than the memory.

    maps: what a row holds, maps × rows × columns; d values.
    """

    array: FloatArray
    indices: IntArray
    maps: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self) -> FloatArray:
        """Return all the rows."""
        return self.array[self.indices]

    def select(self, chosen: IntArray) -> Rows:
        """Return some of the rows."""
        return replace(self, indices=self.indices[chosen])

    def blocks(self) -> Iterator[FloatArray]:
        """Yield the rows in order, some at a time."""
        step = max(1, BLOCK_VALUES // self.array.shape[1])
        for start in range(0, len(self), step):
            yield self.array[self.indices[start : start + step]]

    def local(self) -> LocalMaps:
        """Return what the rows hold as local vectors."""
        return _RowMaps(self)


@dataclass(frozen=True)
class _RowMaps(LocalMaps):
    """Local vectors of images of one size."""

    rows: Rows

    @property
    def grids(self) -> IntArray:
        """Return the same rows and columns for each image."""
        return np.tile(np.array(self.rows.maps[1:], dtype=np.int64), (len(self.rows), 1))

    def select(self, chosen: IntArray) -> LocalMaps:
        """Return some of the images."""
        return _RowMaps(self.rows.select(chosen))

    def blocks(self) -> Iterator[LocalVectors]:
        """Yield the images in order."""
        maps, height, width = self.rows.maps
        for block in self.rows.blocks():
            vectors = block.reshape(len(block), maps, height * width).transpose(0, 2, 1).reshape(-1, maps)
            yield LocalVectors(vectors, np.tile(np.array([height, width], dtype=np.int64), (len(block), 1)))


@dataclass(frozen=True)
class PackedMaps(LocalMaps):
    """Local vectors of images of several sizes, in one array [p, maps] that may lie on disk.

    starts: [n], the first of each image's vectors. sizes: [n, 2], its rows and columns. The array may hold more images.
    """

    array: FloatArray
    starts: IntArray
    sizes: IntArray

    @classmethod
    def of(cls, array: FloatArray, grids: IntArray) -> PackedMaps:
        """Return all images of an array [p, maps]."""
        return cls(array, np.cumsum(grids.prod(axis=1)) - grids.prod(axis=1), grids)

    @property
    def grids(self) -> IntArray:
        """Return rows and columns of each image."""
        return self.sizes

    def select(self, chosen: IntArray) -> PackedMaps:
        """Return some of the images."""
        return PackedMaps(self.array, self.starts[chosen], self.sizes[chosen])

    def blocks(self) -> Iterator[LocalVectors]:
        """Yield the images in order."""
        counts = self.sizes.prod(axis=1)
        block = np.cumsum(counts * self.array.shape[1]) // BLOCK_VALUES
        for here in np.split(np.arange(len(counts)), np.flatnonzero(np.diff(block)) + 1):
            pieces = [self.array[self.starts[i] : self.starts[i] + counts[i]] for i in here]
            yield LocalVectors(np.concatenate(pieces), self.sizes[here])


@dataclass(frozen=True)
class Extracted:
    """What a network gave for n images: an array [n, …], or local vectors [p, maps] and the images' grids [n, 2]."""

    array: FloatArray
    grids: IntArray | None = None

    @classmethod
    def of(cls, array: FloatArray, grids: Sequence[Sequence[int]]) -> Extracted:
        """Return what was extracted; without `grids` all images have one size, or one row each."""
        return cls(array, np.array(grids, dtype=np.int64) if len(grids) else None)

    def take(self, indices: IntArray) -> Rows | PackedMaps:
        """Return the features of some images."""
        if self.grids is not None:
            return PackedMaps.of(self.array, self.grids).select(indices)
        maps = (*self.array.shape[1:], 1, 1)[:3]
        return Rows(self.array.reshape(len(self.array), -1), indices, (int(maps[0]), int(maps[1]), int(maps[2])))


@dataclass(frozen=True)
class Features:
    """Features of the training and the test images of one draw, float16 or float32.

    t and m rows of d; for images of several sizes, whose maps have several lengths, local vectors.
    """

    train: Rows | PackedMaps
    test: Rows | PackedMaps
