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
"""At most so many images at once."""

SEVERAL_SIZES = 64
"""Images at once where they differ in size."""

HALF_ERROR = 1e-3
"""Features are kept in half precision if that changes them by less than this, relative to their root mean square."""


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
class Group:
    """Images of one size: which they are, and their maps [n, ...] or the bytes of these."""

    images: IntArray
    maps: Tensor | GreyImages


def extract(
    network: nn.Module,
    maps: Tensor | Maps,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    precision: Precision = "float32",
) -> FloatArray:
    """Return the features [n, d] of maps [n, ...], float32; raises as `feature_blocks` does."""
    blocks = feature_blocks(network, maps, device, progress, precision=precision)
    values = (block.values for block in blocks)
    return np.concatenate([rows.reshape(len(rows), math.prod(rows.shape[1:])) for rows in values])


@torch.no_grad()
def feature_blocks(
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
        yield FeatureBlock(_of_no_images(batches, maps))
        return
    if not several_sizes and isinstance(maps, Maps):
        maps.require_one_size()
    block = SEVERAL_SIZES if several_sizes else min(BLOCK_IMAGES, batches.images_at_once(maps[:1]))
    parts = [np.arange(start, min(start + block, len(maps))) for start in range(0, len(maps), block)]
    for part, made in zip(parts, _computed(batches, maps, several_sizes, parts), strict=True):
        yield _packed(made) if several_sizes else FeatureBlock(made[0][1])
        if progress is not None:
            progress(int(part[-1]) + 1, len(maps))


def _groups(maps: Tensor | Maps, several: bool, as_bytes: bool, images: IntArray) -> list[Group]:
    """Read consecutive images, those of one size together; as bytes where their maps can be made on the device."""
    if as_bytes and isinstance(maps, Maps):
        return [Group(group, GreyImages.from_maps(maps, group)) for group in _of_one_size(maps, images)]
    if not several:
        return [Group(images, maps[int(images[0]) : int(images[-1]) + 1])]
    assert isinstance(maps, Maps)  # tensors have one size
    return [Group(group, maps[group]) for group in _of_one_size(maps, images)]


def _of_one_size(maps: Maps, images: IntArray) -> list[IntArray]:
    sizes = maps.image_sizes[images]
    return [images[(sizes == size).all(axis=1)] for size in np.unique(sizes, axis=0)]


def _computed(
    batches: Batches, maps: Tensor | Maps, several: bool, parts: list[IntArray]
) -> Iterator[list[tuple[IntArray, FloatArray]]]:
    """Yield which images the groups of each part hold, with their features; others are made while one is taken."""
    as_bytes = batches.device.type == "cuda" and GreyImages.can_hold(maps)

    def read(part: IntArray) -> list[Group]:
        return _groups(maps, several, as_bytes, part)

    def compute(part: IntArray) -> list[tuple[IntArray, FloatArray]]:
        return [(group.images, _checked(batches.launch(group.maps)(), group.images)) for group in read(part)]

    if batches.device.type == "cuda":
        yield from _streamed(batches, Workers(1).map(read, parts))
    elif len(parts) > 1 and (workers := batches.workers):
        yield from workers.map(compute, parts)
    else:
        # Where each operation has all threads, one that reads ahead would take a core from those that wait for it.
        yield from map(compute, parts)


def _streamed(batches: Batches, blocks: Iterator[list[Group]]) -> Iterator[list[tuple[IntArray, FloatArray]]]:
    """Launch one block before the features of the last one are waited for."""
    launched: deque[list[tuple[IntArray, Wait]]] = deque()
    for groups in blocks:
        launched.append([(group.images, batches.launch(group.maps)) for group in groups])
        if len(launched) > 1:
            yield [(images, _checked(wait(), images)) for images, wait in launched.popleft()]
    while launched:
        yield [(images, _checked(wait(), images)) for images, wait in launched.popleft()]


def _checked(out: Tensor, images: IntArray) -> FloatArray:
    """Return the features of images, of which each must be finite."""
    if len(out) != len(images):
        raise PluginError(f"the network gives features of {len(out)} images for {len(images)}")
    finite = torch.isfinite(out.flatten(1)).all(dim=1)
    if not bool(finite.all()):
        image = images[int(torch.argmin(finite.int()))]
        raise FeatureError(f"the features of image {image} are not finite: check its pixels and the filters' scale")
    values: FloatArray = out.numpy()
    return values


def _packed(made: list[tuple[IntArray, FloatArray]]) -> FeatureBlock:
    """Return rows [b, d], or local vectors [p, maps] with their grids, in the order of the images."""
    features = {image: row for images, rows in made for image, row in zip(images.tolist(), rows, strict=True)}
    ordered = [features[image] for image in sorted(features)]
    if ordered[0].ndim == 1:
        if len({len(one) for one in ordered}) > 1:
            raise PluginError(
                "the network gives rows of several lengths for images of several sizes: pool them, or give maps"
            )
        return FeatureBlock(np.stack(ordered))
    vectors = np.concatenate([one.reshape(len(one), -1).T for one in ordered])
    return FeatureBlock(vectors, tuple((one.shape[1], one.shape[2]) for one in ordered))


def _of_no_images(batches: Batches, maps: Tensor | Maps) -> FloatArray:
    if isinstance(maps, Maps):
        raise DataError("there are no images to extract features of")
    values: FloatArray = batches.launch(maps)().numpy()
    return values


def in_half_precision(blocks: Iterator[FeatureBlock]) -> Iterator[FeatureBlock]:
    """Yield the blocks as float16; raises `HalfPrecisionError` at the first that it would change too much."""
    for block in blocks:
        with np.errstate(over="ignore"):  # an overflow becomes an infinity, which the comparison below refuses
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
        return keep(in_half_precision(compute()))
    return keep(compute())
