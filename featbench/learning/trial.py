"""A trial of networks that come from a learner: what breaks their contract shows before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from featbench.errors import PluginError
from featbench.stages.specs import Shape
from featbench.system.seeds import seeded

IMAGES = 3
"""Random images that a network is tried on: the first may hold what is kept of a batch, the last what comes before."""

TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}
"""Features that differ by less, relative to the largest of them, are the same but for rounding.

A GPU may multiply in tf32, by other code for another number of images.
"""

CPU = torch.device("cpu")


def try_network(
    who: str, network: nn.Module, shape: Shape, device: torch.device = CPU, gives: Literal["maps", "row"] = "maps"
) -> Tensor:
    """Return the features of a few random maps; a `PluginError` says why they are not those of the maps alone.

    Extraction batches images as memory allows, keeps features, and hands the same maps to several steps: a network that
    changes its input, that draws or remembers, or that mixes the images of a batch would give wrong tables. The network
    is left on `device`, in evaluation mode. gives: "row" for one that gives as many numbers for an image of any size.
    """
    network.to(device).eval()
    maps = make_random_maps(shape).to(device)
    with torch.no_grad(), seeded(0):
        given = maps.clone()
        features = compute_trial_features(who, network, given)
        if not torch.equal(given, maps):
            raise PluginError(f"{who} changes the maps that it is given: have its first operation make new ones")
        if not are_alike(compute_trial_features(who, network, maps.clone()), features):
            raise PluginError(
                f"{who} gives the same maps other features the second time: it draws or remembers numbers"
            )
        for image in (slice(0, 1), slice(IMAGES - 1, IMAGES)):
            alone = compute_trial_features(who, network, maps[image].clone())
            if not are_alike(alone, features[image], features):
                raise PluginError(f"{who} gives a map other features alone than beside others: it depends on the batch")
        if gives == "row":
            _require_row(who, network, shape, features)
    return features


def _require_row(who: str, network: nn.Module, shape: Shape, features: Tensor) -> None:
    """Raise unless a network gives one row, of as many numbers for a larger image."""
    if features.ndim != 2:
        raise PluginError(f"{who} gives maps {list(features.shape)}, and declares that it gives a row")
    larger = make_random_maps((shape[0], shape[1] + 2, shape[2] + 3))[:1].to(features.device)
    row = compute_trial_features(who, network, larger)
    if row.shape[1:] != features.shape[1:]:
        found = f"{features.shape[1]} numbers for an image and {row.shape[1]} for a larger one"
        raise PluginError(f"{who} gives {found}, and declares that it gives a row of the same length for any")


def try_rebuilt(who: str, rebuilt: nn.Module, shape: Shape, features: Tensor) -> None:
    """Raise a `PluginError` unless a network that was built again from its state gives the features of the trial."""
    # The store keeps the state alone: what it does not hold would be other numbers in the next run.
    with torch.no_grad(), seeded(0):
        network = rebuilt.to(features.device).eval()
        again = compute_trial_features(who, network, make_random_maps(shape).to(features.device))
    if not are_alike(again, features):
        raise PluginError(f"{who} draws numbers that its state_dict does not hold: keep them with register_buffer")


def has_foreign_modules(network: nn.Module) -> bool:
    """Whether any module of a network is neither featbench's nor torch's own."""
    return any(type(one).__module__.split(".")[0] not in ("featbench", "torch") for one in network.modules())


def compute_trial_features(who: str, network: nn.Module, maps: Tensor) -> Tensor:
    """Return what a network gives for maps [n, ...]; a `PluginError` if that is not features."""
    with attribute_errors(f"{who} on maps {list(maps.shape)}"):
        features = network(maps)
    if not isinstance(features, Tensor):
        raise PluginError(f"{who} gives a {type(features).__name__}, not a tensor of features")
    shape = list(features.shape)
    if features.dtype != torch.float32:
        raise PluginError(f"{who} gives {features.dtype}, not torch.float32")
    if features.ndim not in (2, 4) or len(features) != len(maps):
        form = f"[{len(maps)}, d] or [{len(maps)}, maps, height, width]"
        raise PluginError(f"{who} gives {shape} for {len(maps)} images; it must be {form}")
    if features.numel() == 0:
        raise PluginError(f"{who} gives {shape}, which has no values")
    if not bool(torch.isfinite(features).all()):
        raise PluginError(f"{who} gives features that are not finite")
    return features


def make_random_maps(shape: Shape) -> Tensor:
    """Return the maps [n, *shape] of the trial."""
    return torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))


def are_alike(found: Tensor, expected: Tensor, scale: Tensor | None = None) -> bool:
    """Whether features differ by rounding alone, relative to the largest of `scale`, by default of what is expected."""
    if found.shape != expected.shape:
        return False
    largest = (expected if scale is None else scale).abs().max()
    return bool((found - expected).abs().max() <= TOLERANCE[found.device.type] * largest)


@contextmanager
def attribute_errors(what: str) -> Iterator[None]:
    """Turn what a user's code raises into a `PluginError` that says whose code it is."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise PluginError(f"{what} raises {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """Return the class and the message of an error, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
