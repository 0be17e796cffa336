"""Networks of stages: learned stage by stage, assembled, and run over images in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from featbench.architecture import Architecture, Shape, StageSpec
from featbench.connections import connection_table, full_table
from featbench.errors import DeviceError, FeatureError, PluginError
from featbench.filters import Bank, Filters
from featbench.learner import FilterLearner, NetworkLearner, fill_table
from featbench.patches import MapSource, PatchSource
from featbench.preprocess import JoinedMaps, Maps
from featbench.seeds import derive_seed, seeded
from featbench.stages import Stage, operations
from featbench.types import FloatArray, IntArray

BLOCK_VALUES = 2**21
"""Values of the largest maps computed at once: 8 MB, small enough that the allocator keeps and reuses the memory."""

BLOCK_IMAGES = 256
"""At most so many images at once."""

SEVERAL_SIZES = 64
"""Images at once where they differ in size."""

HALF_ERROR = 1e-3
"""Features are kept in half precision if that changes them by less than this, relative to their root mean square."""


@dataclass(frozen=True)
class StageFilters:
    """The filters of one stage and its connection table [groups, fan_in]."""

    filters: Filters
    table: IntArray


def resolve_device(name: str) -> torch.device:
    """Return the device of `auto`, `cpu` or `cuda`; a `DeviceError` if CUDA is asked for and absent."""
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}: it is auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("CUDA was asked for, but torch finds no CUDA device: use --device cpu or --device auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def stage_bank(spec: StageSpec, shape: Shape, seed: int) -> tuple[Bank, IntArray]:
    """Return the bank that a learner fills for each group of this stage's connection table, and the table."""
    maps = spec.bank_input(shape)[0]
    fan_in = spec.bank.fan_in
    table = full_table(maps) if fan_in is None else connection_table(maps, spec.bank.filters, fan_in, seed)
    return Bank(spec.bank.filters // len(table), spec.bank.size, table.shape[1]), table


def refusal(architecture: Architecture, learner: FilterLearner, shape: Shape) -> str | None:
    """Say which stage the learner cannot fill, and why, or None; raises if the architecture does not fit `shape`."""
    inputs = [shape, *architecture.shapes(shape)]
    for number, (spec, came_in) in enumerate(zip(architecture.stages, inputs, strict=False), start=1):
        bank = stage_bank(spec, came_in, seed=0)[0]
        reason = learner.refusal(bank)
        if not reason and not spec.bank.encoder and learner.units(bank) != bank.filters:
            reason = (
                "its encoder pools over filters, so that a bare filter bank (C) has more maps than it says: write F"
            )
        if reason:
            return f"{learner.name} in stage {number}: {reason}"
    return None


def learn_stages(
    architecture: Architecture,
    learner: FilterLearner,
    shape: Shape,
    images: Tensor | Maps | JoinedMaps | None,
    *,
    seed: int,
    device: torch.device,
) -> list[StageFilters]:
    """Get the filters of every stage, each learned on the outputs of those below it.

    `images` are what a learner that looks at images may see, [n, *shape] or `Maps`; others are not given any. `seed`
    decides connection tables and filters.
    """
    with seeded(derive_seed(seed, "learn")):
        learned: list[StageFilters] = []
        below: list[nn.Module] = []
        inputs = [shape, *architecture.shapes(shape)]
        for number, (spec, came_in) in enumerate(zip(architecture.stages, inputs, strict=False), start=1):
            bank, table = stage_bank(spec, came_in, derive_seed(seed, "table", number))
            patches = None
            if learner.looks() and images is not None:
                before = operations(spec.around_bank()[0], came_in[0])
                entering = nn.Sequential(*below, before).to(device)
                patches = PatchSource(
                    MapSource(images, entering, device), bank.size, derive_seed(seed, "patches", number)
                )
            maps = spec.bank_input(came_in)[0]
            filters = fill_table(learner, bank, table, maps, patches, seed, "filters", number)
            learned.append(StageFilters(filters, table))
            below.append(Stage(spec, came_in[0], learned[-1].filters, table, learner.encoder))
        return learned


def assemble(
    architecture: Architecture, learner: FilterLearner, shape: Shape, stages: Sequence[StageFilters]
) -> nn.Sequential:
    """Build the network from its stages' filters: [n, *shape] to the maps of the last stage."""
    inputs = [shape, *architecture.shapes(shape)]
    return nn.Sequential(
        *(
            Stage(spec, came_in[0], stage.filters, stage.table, learner.encoder)
            for spec, came_in, stage in zip(architecture.stages, inputs, stages, strict=False)
        )
    )


def network_of(
    learner: NetworkLearner, shape: Shape, images: Tensor | Maps | JoinedMaps | None, *, seed: int, device: torch.device
) -> nn.Module:
    """Get the network of a learner that gives the whole extractor; only one that looks at images is given any."""
    seen = MapSource(images, nn.Identity(), device) if learner.looks() and images is not None else None
    own_seed = derive_seed(seed, "network")
    with seeded(own_seed):
        return learner.network(shape, seen, own_seed)


class HalfPrecisionError(Exception):
    """Half precision would overflow, or change the features by more than `HALF_ERROR`."""


def extract(
    network: nn.Module, maps: Tensor | Maps, device: torch.device, progress: Callable[[int, int], None] | None = None
) -> FloatArray:
    """Return the features [n, d] of maps [n, ...], float32; raises as `feature_blocks` does."""
    return np.concatenate([block.reshape(len(block), -1) for block in feature_blocks(network, maps, device, progress)])


@torch.no_grad()
def feature_blocks(
    network: nn.Module,
    maps: Tensor | Maps,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    grids: list[tuple[int, int]] | None = None,
) -> Iterator[FloatArray]:
    """Yield the features [b, ...] of maps [n, ...] in order, float32.

    With `grids`, for images of several sizes of which a network makes maps of several sizes: they come as local vectors
    [p, maps], and the rows and columns of each image are added to `grids`. A network that makes one row of an image of
    any size gives features [b, d] all the same. Raises `FeatureError` if any feature is not finite. `progress` is told
    how many images are done, of how many.
    """
    network = network.to(device).eval()
    block = _block_size(network, maps[:1], device) if grids is None else SEVERAL_SIZES
    for start in range(0, len(maps), block):
        here = np.arange(start, min(start + block, len(maps)))
        yield _features(network, maps, here, device) if grids is None else _packed(network, maps, here, device, grids)
        if progress is not None:
            progress(min(start + block, len(maps)), len(maps))


def _features(network: nn.Module, maps: Tensor | Maps, images: IntArray, device: torch.device) -> FloatArray:
    """Return the features of images of one size, in a row of them as they lie."""
    consecutive = slice(int(images[0]), int(images[-1]) + 1)
    wanted = consecutive if len(images) == images[-1] - images[0] + 1 else images
    out = network(maps[wanted].to(device))
    if len(out) != len(images):
        raise PluginError(f"the network gives features of {len(out)} images for {len(images)}")
    finite = torch.isfinite(out.flatten(1)).all(dim=1)
    if not bool(finite.all()):
        image = images[int(torch.argmin(finite.int()))]
        raise FeatureError(f"the features of image {image} are not finite: check its pixels and the filters' scale")
    values: FloatArray = out.float().cpu().numpy()
    return values


def _packed(
    network: nn.Module, maps: Tensor | Maps, images: IntArray, device: torch.device, grids: list[tuple[int, int]]
) -> FloatArray:
    """Return rows [b, d], or local vectors [p, maps] and add their grids; those of one size are computed together."""
    assert isinstance(maps, Maps)  # tensors have one size
    made: dict[int, FloatArray] = {}
    sizes = maps.image_sizes[images]
    for size in np.unique(sizes, axis=0):
        alike = images[(sizes == size).all(axis=1)]
        made.update(zip(alike.tolist(), _features(network, maps, alike, device), strict=True))
    ordered = [made[image] for image in images.tolist()]
    if ordered[0].ndim == 1:
        if len({len(one) for one in ordered}) > 1:
            raise PluginError(
                "the network gives rows of several lengths for images of several sizes: pool them, or give maps"
            )
        return np.stack(ordered)
    grids += [(one.shape[1], one.shape[2]) for one in ordered]
    return np.concatenate([one.reshape(len(one), -1).T for one in ordered])


def in_half_precision(blocks: Iterator[FloatArray]) -> Iterator[FloatArray]:
    """Yield the blocks as float16; raises `HalfPrecisionError` at the first that it would change too much."""
    for features in blocks:
        with np.errstate(over="ignore"):
            half = features.astype(np.float16)
        if not np.linalg.norm(half.astype(np.float32) - features) <= HALF_ERROR * np.linalg.norm(features):
            raise HalfPrecisionError
        yield half


def _block_size(network: nn.Module, one: Tensor, device: torch.device) -> int:
    """Return how many images to compute at once, from the largest output of any operation on one image."""
    largest = one.numel()

    def watch(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, math.prod(output.shape[1:]))

    handles = [module.register_forward_hook(watch) for module in network.modules()]
    network(one.to(device))
    for handle in handles:
        handle.remove()
    return max(1, min(BLOCK_IMAGES, BLOCK_VALUES // largest))
