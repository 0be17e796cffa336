"""Features of images: a network run over blocks of them, as fast as the device allows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from featbench.cuda.grey import GreyImages
from featbench.data.maps import Maps
from featbench.devices.batches import Batches, Wait
from featbench.errors import DataError, FeatureError, PluginError
from featbench.operations.precision import Precision
from featbench.system.threads import Workers
from featbench.types import FloatArray, IntArray

BLOCK_IMAGES = 256
"""Images in a block of features, at most: a store writes, and a user sees progress, that often."""

SEVERAL_SIZES = 64
"""Images in a block where they differ in size."""

HALF_ERROR = 1e-3
"""Features are kept in half precision if that changes a block by less than this, relative to its root mean square.

float16 has 11 bits: rounding changes a value by up to 2^-11 = 5e-4 of it, and loses what is below 6e-8 altogether.
"""

Kept = TypeVar("Kept")


class HalfPrecisionError(Exception):
    """Half precision would overflow, or change the features by more than `HALF_ERROR`."""


@dataclass(frozen=True)
class FeatureBlock:
    """The features of consecutive images.

    values: [b, ...], what the network makes of each image; for images of several sizes, whose maps cannot be stacked,
    the local vectors [p, maps] of all their positions, image after image. grids: the rows and columns of positions of
    each image, where `values` are local vectors; else empty.
    """

    values: FloatArray
    grids: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ImageGroup:
    """Images of one size: their indices [n], and their maps [n, ...] or the bytes that these are made from."""

    images: IntArray
    maps: Tensor | GreyImages


def extract(
    network: nn.Module,
    maps: Tensor | Maps,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    precision: Precision = "float32",
) -> FloatArray:
    """Return the features [n, d] of maps [n, ...], float32; raises as `compute_features` does."""
    blocks = compute_features(network, maps, device, progress, precision=precision)
    values = (block.values for block in blocks)
    return np.concatenate([rows.reshape(len(rows), math.prod(rows.shape[1:])) for rows in values])


@torch.no_grad()
def compute_features(
    network: nn.Module,
    maps: Tensor | Maps,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    *,
    several_sizes: bool = False,
    precision: Precision = "float32",
) -> Iterator[FeatureBlock]:
    """Yield the features of maps [n, ...] in order, float32, some images at a time.

    `several_sizes` admits images of several sizes. What a network makes of those differs in size too, and comes as
    local vectors with the images' grids; a network that makes one row of an image of any size gives rows [b, d] all the
    same. No maps [0, ...] give features [0, ...] of as many numbers. `progress` receives how many images are done, and
    of how many.

    Raises `FeatureError` if any feature is not finite, `DeviceError` if one image alone is too large for the memory,
    `DataError` for images of several sizes without `several_sizes`.
    """
    batches = Batches(network, device, precision)
    if len(maps) == 0:
        yield FeatureBlock(_compute_no_features(batches, maps))
        return
    if not several_sizes and isinstance(maps, Maps):
        maps.require_one_size()
    block = SEVERAL_SIZES if several_sizes else min(BLOCK_IMAGES, batches.images_at_once(maps[:1]))
    # Blocks are cut before anything is computed: the same images are together whatever the threads do, and since the
    # digits of a convolution may depend on the size of its batch, so are the features the same.
    parts = [np.arange(start, min(start + block, len(maps))) for start in range(0, len(maps), block)]
    for part, made in zip(parts, _compute_parts(batches, maps, several_sizes, parts), strict=True):
        yield _pack_features(made) if several_sizes else FeatureBlock(made[0][1])
        if progress is not None:
            progress(int(part[-1]) + 1, len(maps))


def _read_groups(maps: Tensor | Maps, several: bool, as_bytes: bool, images: IntArray) -> list[ImageGroup]:
    """Read consecutive images, those of one size together; as bytes where their maps can be made on the device."""
    if as_bytes and isinstance(maps, Maps):
        return [ImageGroup(group, GreyImages.from_maps(maps, group)) for group in _group_by_size(maps, images)]
    if not several:
        return [ImageGroup(images, maps[int(images[0]) : int(images[-1]) + 1])]
    assert isinstance(maps, Maps)  # tensors have one size
    return [ImageGroup(group, maps[group]) for group in _group_by_size(maps, images)]


def _group_by_size(maps: Maps, images: IntArray) -> list[IntArray]:
    """Return the indices of images, those whose maps have one size together."""
    sizes = maps.image_sizes[images]
    return [images[(sizes == size).all(axis=1)] for size in np.unique(sizes, axis=0)]


def _compute_parts(
    batches: Batches, maps: Tensor | Maps, several: bool, parts: list[IntArray]
) -> Iterator[list[tuple[IntArray, FloatArray]]]:
    """Yield the groups of each part, each as the indices of its images and their features.

    The next parts are computed while the caller is busy with one.
    """
    as_bytes = batches.device.type == "cuda" and GreyImages.can_hold(maps)

    def read(part: IntArray) -> list[ImageGroup]:
        return _read_groups(maps, several, as_bytes, part)

    def compute(part: IntArray) -> list[tuple[IntArray, FloatArray]]:
        return [(group.images, _check_features(batches.launch(group.maps)(), group.images)) for group in read(part)]

    if batches.device.type == "cuda":
        # One thread reads and copies images while the GPU computes: that is all a GPU needs of the CPU.
        yield from _compute_streamed(batches, Workers(1).map(read, parts))
    elif len(parts) > 1 and (workers := batches.workers):
        # A thread for each core, each with parts of its own: threads that share each operation wait for one another at
        # the end of every one.
        yield from workers.map(compute, parts)
    else:
        # Where each operation has all threads, one that reads ahead would take a core from those that wait for it.
        yield from map(compute, parts)


def _compute_streamed(
    batches: Batches, blocks: Iterator[list[ImageGroup]]
) -> Iterator[list[tuple[IntArray, FloatArray]]]:
    """Launch each block before the features of the last one are waited for, so that the GPU is never idle."""
    launched: deque[list[tuple[IntArray, Wait]]] = deque()
    for groups in blocks:
        launched.append([(group.images, batches.launch(group.maps)) for group in groups])
        if len(launched) > 1:
            yield [(images, _check_features(wait(), images)) for images, wait in launched.popleft()]
    while launched:
        yield [(images, _check_features(wait(), images)) for images, wait in launched.popleft()]


def _check_features(out: Tensor, images: IntArray) -> FloatArray:
    """Return the features [n, ...] of images; an error names the first image whose features are not finite."""
    if len(out) != len(images):
        raise PluginError(f"the network gives features of {len(out)} images for {len(images)}")
    finite = torch.isfinite(out.flatten(1)).all(dim=1)
    if not bool(finite.all()):
        image = images[int(torch.argmin(finite.int()))]
        raise FeatureError(f"the features of image {image} are not finite: check its pixels and the filters' scale")
    values: FloatArray = out.numpy()
    return values


def _pack_features(made: list[tuple[IntArray, FloatArray]]) -> FeatureBlock:
    """Join the groups of a part: rows [b, d], or local vectors [p, maps] with their grids, in the order of images."""
    features = {image: row for images, rows in made for image, row in zip(images.tolist(), rows, strict=True)}
    ordered = [features[image] for image in sorted(features)]
    if ordered[0].ndim == 1:
        if len({len(one) for one in ordered}) > 1:
            raise PluginError(
                "the network gives rows of several lengths for images of several sizes: pool them, or give maps"
            )
        return FeatureBlock(np.stack(ordered))
    # [maps, rows, columns] of an image become a vector of all maps at each position.
    vectors = np.concatenate([one.reshape(len(one), -1).T for one in ordered])
    return FeatureBlock(vectors, tuple((one.shape[1], one.shape[2]) for one in ordered))


def _compute_no_features(batches: Batches, maps: Tensor | Maps) -> FloatArray:
    """Return features [0, ...] of as many numbers as an image would have."""
    if isinstance(maps, Maps):
        raise DataError("there are no images to extract features of")
    values: FloatArray = batches.launch(maps)().numpy()
    return values


def convert_to_half_precision(blocks: Iterator[FeatureBlock]) -> Iterator[FeatureBlock]:
    """Yield the blocks as float16; raises `HalfPrecisionError` at the first that it would change too much."""
    for block in blocks:
        # An overflow becomes an infinity, which the comparison below refuses.
        with np.errstate(over="ignore"):
            half = block.values.astype(np.float16)
        # Written with `not … <=`, so that a NaN, which compares false with everything, counts as changed too much.
        if not np.linalg.norm(half.astype(np.float32) - block.values) <= HALF_ERROR * np.linalg.norm(block.values):
            raise HalfPrecisionError
        yield replace(block, values=half)


def keep_in_least_precision(
    compute: Callable[[], Iterator[FeatureBlock]], keep: Callable[[Iterator[FeatureBlock]], Kept]
) -> Kept:
    """Return what `keep` makes of the features: float16 where that changes none of them too much, else float32.

    Features may be larger than the memory, so `keep` takes each block as it is computed. That float16 is not enough
    shows at some block, when those before it are gone: then everything is computed again from the first image.
    """
    with suppress(HalfPrecisionError):
        return keep(convert_to_half_precision(compute()))
    return keep(compute())
