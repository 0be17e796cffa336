"""Features as rows of an array or as local vectors, read in blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featbench.types import FloatArray, IntArray

BLOCK_VALUES = 2**24
"""Values of features that are read at once: 64 MB in float32, however large the array on disk."""


@dataclass(frozen=True)
class LocalVectors:
    """The maps of some images as local vectors: one vector of all maps at each position.

    A `MapClassifier` receives them in blocks, from `LocalMaps.blocks`.

    Parameters
    ----------
    vectors : ndarray of float
        [p, maps], float16 or float32: the vectors of all positions, image after image; within an image, row after row
        of positions, from left to right.
    grids : ndarray of int
        [b, 2], how many rows and columns of positions each of the b images has; their products add up to p.
    """

    vectors: FloatArray
    grids: IntArray


class LocalMaps(ABC):
    """The maps of n images as local vectors, read some images at a time: all of them may not fit into the memory.

    A `MapClassifier` receives them in place of rows of features; `len` gives n. Images may differ in size.

    Attributes
    ----------
    grids : ndarray of int
        [n, 2], how many rows and columns of positions each image has.

    See Also
    --------
    LocalVectors : what `blocks` yields.
    """

    @property
    @abstractmethod
    def grids(self) -> IntArray:
        """Rows and columns of positions of each image, [n, 2]."""

    @abstractmethod
    def select(self, chosen: IntArray) -> LocalMaps:
        """Return some of the images, without reading them.

        Parameters
        ----------
        chosen : ndarray of int
            [m], positions of images, in the order in which they are wanted.

        Returns
        -------
        LocalMaps
            Those m images.
        """

    @abstractmethod
    def blocks(self) -> Iterator[LocalVectors]:
        """Read the images in order, some at a time.

        Yields
        ------
        LocalVectors
            The vectors of the next images, whole images at a time.
        """

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
        # Indexing by an array copies the rows, out of a memory map too: what is read of the disk is one block.
        step = max(1, BLOCK_VALUES // self.array.shape[1])
        for start in range(0, len(self), step):
            yield self.array[self.indices[start : start + step]]

    def to_local_maps(self) -> LocalMaps:
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
            # A row holds map after map; a local vector holds the values of all maps at one position.
            vectors = block.reshape(len(block), maps, height * width).transpose(0, 2, 1).reshape(-1, maps)
            yield LocalVectors(vectors, np.tile(np.array([height, width], dtype=np.int64), (len(block), 1)))


@dataclass(frozen=True)
class PackedMaps(LocalMaps):
    """Local vectors of images of several sizes, in one array [p, maps] that may lie on disk.

    starts: [n], the first of each image's vectors. sizes: [n, 2], its rows and columns. The array may hold other images
    as well: `select` changes which are taken, not the array.
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
        # Each image belongs to the block in which its last value lies, counted over all images: a block thus has about
        # BLOCK_VALUES values, and an image that alone has more is a block of its own.
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
        # [n, d] are d maps of one position, [n, maps, rows, columns] what they are.
        maps = (*self.array.shape[1:], 1, 1)[:3]
        return Rows(self.array.reshape(len(self.array), -1), indices, (int(maps[0]), int(maps[1]), int(maps[2])))


@dataclass(frozen=True)
class Features:
    """Features of the t training and the m test images of one draw, float16 or float32.

    Rows of d values; for images of several sizes, whose maps have different lengths, local vectors.
    """

    train: Rows | PackedMaps
    test: Rows | PackedMaps
