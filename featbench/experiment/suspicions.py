"""What looks wrong about filters and features that break no rule: it is said beside the score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor, nn

from featbench.features.rows import PackedMaps, Rows
from featbench.types import FloatArray

SAMPLE = 16
"""Images that are looked at first: features that differ, as nearly all do, show it here."""


def find_suspicions(network: nn.Module, features: Rows | PackedMaps) -> list[str]:
    """Return what is suspicious about a network and the features of the training images, each in a sentence."""
    found = list(_find_zero_filters(network))
    if _are_constant(features):
        found.append("the features of all training images are the same, which tells no class from another")
    return found


def _find_zero_filters(network: nn.Module) -> Iterator[str]:
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 4:
            continue
        zero = int((weight.detach() == 0).flatten(1).all(dim=1).sum())
        if zero:
            place = f" of the module {name}" if name else ""
            yield f"{zero} of {len(weight)} filters{place} are zero, so that their maps say nothing of the image"


def _are_constant(features: Rows | PackedMaps) -> bool:
    """Whether all images have the same features: the same row, or one and the same local vector everywhere."""
    count = len(features)
    sample = features.select(np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64)))
    blocks = [sample.read()] if isinstance(sample, Rows) else _read_vectors(sample)
    if count == 1 or not _are_equal(blocks):
        return False
    return _are_equal(features.blocks() if isinstance(features, Rows) else _read_vectors(features))


def _read_vectors(maps: PackedMaps) -> Iterator[FloatArray]:
    return (block.vectors for block in maps.blocks())


def _are_equal(blocks: Iterable[FloatArray]) -> bool:
    first: FloatArray | None = None
    for rows in blocks:
        first = rows[0] if first is None else first
        if not bool((rows == first).all()):
            return False
    return True
