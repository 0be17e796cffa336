"""The network of an `Extractor`: learned from images, and refined with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from featbench.data.maps import Maps, Preprocessing, make_maps
from featbench.errors import DataError, UsageError
from featbench.evaluation.split import hold_out
from featbench.extractor.settings import Settings
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.networks import assemble, find_refusal, learn_network, learn_stages
from featbench.refinement.progress import Progress
from featbench.refinement.refine import refine
from featbench.system.seeds import derive_seed, seeded
from featbench.system.updates import watch_updates
from featbench.types import IntArray, Pixels

VALIDATION_FRACTION = 1 / 6
"""Fraction of each class that refinement holds out for validation; 5 of 30 images in Jarrett et al. 2009."""


@dataclass(frozen=True)
class FittedNetwork:
    """A network, and what refinement reports of it, if it was refined."""

    network: nn.Module
    refinement: dict[str, Any] | None = None


def make_equal_maps(images: Sequence[Pixels] | Pixels, preprocessing: Preprocessing) -> Maps:
    """Return the maps of images; a `DataError` if they come in several sizes."""
    maps = make_maps(images, preprocessing)
    if len(maps.sizes) > 1:
        sizes = ", ".join(f"{height}×{width}" for height, width in sorted(maps.sizes)[:4])
        raise DataError(
            f"the images of X become maps of {len(maps.sizes)} sizes, such as {sizes}: make them one size by "
            "preprocessing=Preprocessing(size=64, pad=True), say"
        )
    return maps


def fit_network(
    settings: Settings,
    maps: Maps,
    labels: tuple[NDArray[Any], IntArray] | None,
    device: torch.device,
    progress: Progress,
) -> FittedNetwork:
    """Learn the network from maps of one size, and refine it if there are labels: the classes, and each image's."""
    with watch_updates(progress):
        network = _learn(settings, maps, device)
    if labels is None:
        return FittedNetwork(network)
    classes, indices = labels
    validation = hold_out(indices, VALIDATION_FRACTION, derive_seed(settings.seed, "validation"))
    seed = derive_seed(settings.seed, "refine")
    # Layers draw their first weights from torch's own generator, which a caller wants back as it was.
    with seeded(seed):
        refined, report = refine(
            network,
            maps[:],
            indices,
            validation,
            classes=len(classes),
            seed=seed,
            device=device,
            settings=settings.refinement,
            progress=progress,
        )
    return FittedNetwork(refined, report)


def _learn(settings: Settings, maps: Maps, device: torch.device) -> nn.Module:
    learner, architecture, shape = settings.learner, settings.architecture, maps.shape
    if isinstance(learner, NetworkLearner):
        return learn_network(learner, shape, maps, seed=settings.seed, device=device)
    assert isinstance(learner, FilterLearner)  # there is no other kind
    assert architecture is not None
    reason = find_refusal(architecture, learner, shape)
    if reason:
        raise UsageError(reason)
    stages = learn_stages(architecture, learner, shape, maps, seed=settings.seed, device=device)
    return assemble(architecture, learner, shape, stages)
