"""The filters that `featbench filters` draws: learned under a protocol or on a folder of images, sorted, on a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from featbench.comparison import Workbench
from featbench.data.maps import Preprocessing
from featbench.devices.selection import resolve_device
from featbench.errors import UsageError
from featbench.experiment.request import Request, parse_choice
from featbench.learning.learner import FilterLearner
from featbench.learning.networks import StageFilters, find_refusal, learn_stages
from featbench.stages.architecture import Architecture
from featbench.stages.filters import Bank
from featbench.stages.stage import Stage

NATURAL = Preprocessing(standardise=True, lcn=1.0)
"""Preprocessing of natural images where no protocol declares one: local contrast normalisation, as in the papers."""


@dataclass(frozen=True)
class DrawnFilters:
    """Filters to be drawn.

    Parameters
    ----------
    weight : array [filters, maps, size, size]
        The filters.
    grid : (int, int) or None, default None
        Rows and columns of the map they lie on, if they have one.
    colour : bool, default False
        Whether the maps are red, green and blue: those of a colour image before the first stage.
    """

    weight: NDArray[Any]
    grid: tuple[int, int] | None = None
    colour: bool = False


def learn_under_protocol(workbench: Workbench, request: Request, stage: int, name: str) -> DrawnFilters:
    """Return the filters of one stage for the first draw of a request's only learner.

    `name` is the tensor to draw: `weight`, or another that the learner keeps with its filters, such as PSD's `decoder`.
    Raises `UsageError` for more than one learner, for a cell that is skipped, and for a missing stage or tensor.
    """
    learner = _find_only_learner(workbench, request)
    cell = next(cell for cell in workbench.plan(replace(request, draws=1)) if cell.architecture)
    if cell.skip:
        raise UsageError(cell.skip)
    steps = workbench.steps
    images, maps = steps.load(cell.dataset, cell.preprocessing)
    split = steps.split(cell, images)
    # Refinement changes the encoder alone: a decoder is drawn as it was learned, under R+ and U+ too.
    if not cell.regime.refined or name != "weight":
        stages, _ = steps.learn_filters(cell, split, learner, maps)
        weight = _find_tensor(stages, stage, name)
    else:
        network, _ = steps.learn(cell, split, maps)
        steps.refine(cell, split, network, maps, images)
        weight = _find_refined_weight(network, stage)
    grid = _find_grid(learner, Architecture.parse(cell.architecture), stage, weight.shape[1])
    return DrawnFilters(weight, grid, stage == 1 and weight.shape[1] == cell.preprocessing.channels == 3)


def learn_on_folder(workbench: Workbench, request: Request, stage: int, name: str) -> DrawnFilters:
    """Return the filters of one stage that a request's only learner finds on its folder of unlabelled images.

    Raises `UsageError` as `learn_under_protocol` does, and if the learner refuses the architecture.
    """
    # The command line fills both in before it calls this; the types of a request allow None.
    assert request.unlabelled is not None and request.stages is not None
    learner = _find_only_learner(workbench, request)
    architecture, device = Architecture.parse(request.stages), resolve_device(request.device)
    maps = workbench.steps.load_pool(request.unlabelled, NATURAL)
    smallest = maps.least
    reason = find_refusal(architecture, learner, smallest)
    if reason:
        raise UsageError(reason)
    stages = learn_stages(architecture, learner, smallest, maps, seed=request.seed, device=device)
    weight = _find_tensor(stages, stage, name)
    return DrawnFilters(weight, _find_grid(learner, architecture, stage, weight.shape[1]))


def sort_filters(shown: DrawnFilters, by: str) -> DrawnFilters:
    """Return the filters sorted by one of `ORDERS`, without their map."""
    keys = ORDERS[by](shown.weight.astype(np.float64))
    return replace(shown, weight=shown.weight[np.argsort(keys, kind="stable")], grid=None)


def put_on_map(shown: DrawnFilters, rows: int, columns: int) -> DrawnFilters:
    """Return the filters on a map of so many rows and columns. Raises `UsageError` if they do not fill it."""
    filters, maps = shown.weight.shape[:2]
    if maps > 1 and not shown.colour:
        raise UsageError(f"these filters see {maps} maps each: only those that see one are drawn on a map")
    if rows * columns != filters:
        raise UsageError(f"{filters} filters do not fill a map of {rows}×{columns}")
    return replace(shown, grid=(rows, columns))


def _rank_by_variance(weight: NDArray[Any]) -> NDArray[Any]:
    """Return the negative variance of each filter: sorting is ascending, and the largest comes first."""
    return -np.asarray(weight.var(axis=(1, 2, 3)))


def _rank_by_frequency(weight: NDArray[Any]) -> NDArray[Any]:
    """Return the mean distance from 0 of the filters' power spectra, in cycles per pixel."""
    power, down, right = _compute_spectra(weight)
    total = power.sum(axis=(1, 2))
    return np.asarray((power * np.hypot(down, right)).sum(axis=(1, 2)) / np.where(total > 0, total, 1))


def _rank_by_orientation(weight: NDArray[Any]) -> NDArray[Any]:
    """Return the direction across the filters' bars, the axis of their power spectra, in radians from 0 to π."""
    power, down, right = _compute_spectra(weight)
    across = (power * 2 * down * right).sum(axis=(1, 2))
    along = (power * (right**2 - down**2)).sum(axis=(1, 2))
    # Rounding may put an angle of 0 just below 0, which modulo π would become nearly π, the other end of the order.
    return np.asarray((np.arctan2(across, along) / 2 + 1e-9) % np.pi)


def _compute_spectra(weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return power spectra [filters, n, n], summed over maps, and the frequencies down [n, 1] and right [n]."""
    # Padded with zeros to four times their size, for a finer grid of frequencies.
    points = 4 * weight.shape[-1]
    power = (np.abs(np.fft.fft2(weight, s=(points, points))) ** 2).sum(axis=1)
    frequencies = np.fft.fftfreq(points)
    return power, frequencies[:, None], frequencies


ORDERS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "variance": _rank_by_variance,
    "frequency": _rank_by_frequency,
    "orientation": _rank_by_orientation,
}
"""Sort keys of filters: variance of the weights, largest first; frequency, lowest first; orientation, from 0 to π."""


def _find_grid(learner: FilterLearner, architecture: Architecture, stage: int, maps: int) -> tuple[int, int] | None:
    """Return the map of a learner's filters, or None. The groups of a connection table have no common map."""
    bank = architecture.stages[stage - 1].bank
    return learner.grid(Bank(bank.filters, bank.size, maps)) if bank.fan_in is None else None


def _find_only_learner(workbench: Workbench, request: Request) -> FilterLearner:
    if request.features is None or len(request.features) != 1:
        raise UsageError("filters are drawn of one learner at a time: give one to --features")
    choice = parse_choice(request.features[0], workbench.registry)
    learner = workbench.registry.learner(choice.name).create(dict(choice.parameters))
    if not isinstance(learner, FilterLearner):
        raise UsageError(f"{choice.name} has no filters to draw")
    return learner


def _find_tensor(stages: list[StageFilters], stage: int, name: str) -> NDArray[Any]:
    tensors = stages[_read_stage(stage, len(stages))].filters.tensors()
    if name not in tensors or tensors[name].ndim != 4:
        drawable = ", ".join(key for key, tensor in tensors.items() if tensor.ndim == 4)
        raise UsageError(f"this learner has no {name!r} to draw: it has {drawable}")
    return tensors[name].numpy()


def _find_refined_weight(network: nn.Module, stage: int) -> NDArray[Any]:
    stages = [module for module in network.modules() if isinstance(module, Stage)]
    # Of a stage's parameters, filters alone have four dimensions; gains, biases and thresholds have fewer.
    parameters = stages[_read_stage(stage, len(stages))].parameters()
    return next(parameter for parameter in parameters if parameter.ndim == 4).detach().cpu().numpy()


def _read_stage(stage: int, count: int) -> int:
    if not 1 <= stage <= count:
        raise UsageError(f"there is no stage {stage}: the architecture has {count}")
    return stage - 1
