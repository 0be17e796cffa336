"""Filters to look at: those that a learner finds under a protocol, or on a folder of images alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from torch import nn

from featbench.architecture import Architecture
from featbench.comparison import Workbench
from featbench.errors import UsageError
from featbench.grid import Request, parse_choice
from featbench.learner import FilterLearner
from featbench.network import StageFilters, learn_stages, refusal, resolve_device
from featbench.preprocess import Preprocessing
from featbench.stages import Stage

NATURAL = Preprocessing(standardise=True, lcn=1.0)
"""How natural images are preprocessed where no protocol says it: local contrast normalisation, as in the papers."""


def protocol_filters(workbench: Workbench, request: Request, stage: int, name: str) -> NDArray[Any]:
    """Return the filters [filters, maps, size, size] of one stage for the first draw of a request's only learner.

    `name` is what is shown: `weight`, or another tensor that the learner keeps with its filters, as `decoder` of PSD.
    """
    learner = _only_learner(workbench, request)
    cell = next(cell for cell in workbench.plan(replace(request, draws=1)) if cell.architecture)
    if cell.skip:
        raise UsageError(cell.skip)
    steps = workbench.steps
    images, maps = steps.load(cell.dataset, cell.preprocessing)
    split = steps.split(cell, images)
    if not cell.regime.refined or name != "weight":
        stages, _ = steps.learn_filters(cell, split, learner, maps)
        return _tensor(stages, stage, name)
    network, _ = steps.learn(cell, split, maps)
    steps.refine(cell, split, network, maps, images)
    return _refined_weight(network, stage)


def folder_filters(workbench: Workbench, request: Request, stage: int, name: str) -> NDArray[Any]:
    """Return the filters of one stage that the request's only learner finds on its folder of unlabelled images."""
    assert request.unlabelled is not None and request.stages is not None
    learner = _only_learner(workbench, request)
    architecture, device = Architecture.parse(request.stages), resolve_device(request.device)
    maps = workbench.steps.pool(request.unlabelled, NATURAL)
    smallest = (1, min(height for height, _ in maps.sizes), min(width for _, width in maps.sizes))
    reason = refusal(architecture, learner, smallest)
    if reason:
        raise UsageError(reason)
    stages = learn_stages(architecture, learner, smallest, maps, seed=request.seed, device=device)
    return _tensor(stages, stage, name)


def _only_learner(workbench: Workbench, request: Request) -> FilterLearner:
    if request.features is None or len(request.features) != 1:
        raise UsageError("filters are drawn of one learner at a time: give one to --features")
    choice = parse_choice(request.features[0], workbench.registry)
    learner = workbench.registry.learner(choice.name).create(dict(choice.parameters))
    if not isinstance(learner, FilterLearner):
        raise UsageError(f"{choice.name} has no filters to draw")
    return learner


def _tensor(stages: list[StageFilters], stage: int, name: str) -> NDArray[Any]:
    tensors = stages[_index(stage, len(stages))].filters.tensors()
    if name not in tensors or tensors[name].ndim != 4:
        drawable = ", ".join(key for key, tensor in tensors.items() if tensor.ndim == 4)
        raise UsageError(f"this learner has no {name!r} to draw: it has {drawable}")
    return tensors[name].numpy()


def _refined_weight(network: nn.Module, stage: int) -> NDArray[Any]:
    stages = [module for module in network.modules() if isinstance(module, Stage)]
    parameters = stages[_index(stage, len(stages))].parameters()
    return next(parameter for parameter in parameters if parameter.ndim == 4).detach().cpu().numpy()


def _index(stage: int, count: int) -> int:
    if not 1 <= stage <= count:
        raise UsageError(f"there is no stage {stage}: the architecture has {count}")
    return stage - 1
