"""A request becomes cells: what is asked for, minus nothing; what makes no sense is kept with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from featbench.data.maps import Preprocessing
from featbench.devices.selection import resolve_device, select_operations
from featbench.errors import ArchitectureError, UsageError
from featbench.evaluation.protocol import Protocol
from featbench.evaluation.regimes import REGIMES, Regime, parse_regimes
from featbench.evaluation.split import Survey
from featbench.experiment.cell import Cell
from featbench.experiment.refusals import pair_refusal, shape_refusal, size_refusal, takes_maps
from featbench.experiment.request import Request, parse_choice
from featbench.experiment.unlabelled import pool_name, unlabelled_images
from featbench.learning.learner import FilterLearner
from featbench.operations.precision import check_precision
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture

BASELINES = ("chance", "raw-pixels")
"""Learners that every table holds."""


Surveyor = Callable[[str, Preprocessing], Survey]
"""Returns the sizes of a data set's maps and how many images it has."""


def enumerate_cells(request: Request, registry: Registry, survey: Surveyor, data_dir: Path | None = None) -> list[Cell]:
    """Return every cell of the request, baselines first; those with `skip` set make no sense and say why.

    Raises before anything is computed if a name is unknown, the architecture does not fit the images, a class has too
    few images, or the device, the precision or the unlabelled images are not there.
    """
    protocol = registry.protocol(request.protocol)
    dataset = request.dataset or protocol.dataset
    registry.dataset(dataset)
    architecture = _architecture(request.stages, protocol)
    classifiers = [_classifier(name, registry) for name in _distinct(request.classifiers or protocol.classifiers)]
    train_per_class = _train_per_class(request.train_per_class, protocol)
    test_per_class = _test_per_class(request.test_per_class, protocol)
    draws = _draws(request, protocol, train_per_class)
    device = resolve_device(request.device).type
    precision = select_operations(device, check_precision(request.precision)).precision
    refinement = _refinement(request.refine, protocol)
    pairs = _pairs(request, protocol, registry)
    if request.unlabelled is not None:
        if not pool_name(request.unlabelled):
            raise UsageError(
                f"--unlabelled {request.unlabelled} names no images: add a folder or a data set after the +"
            )
        unlabelled_images(pool_name(request.unlabelled), registry, data_dir)
    surveyed = survey(dataset, protocol.preprocessing)
    taken = any(issubclass(registry.learner(choice.name), FilterLearner) for choice, _, _ in pairs)
    if taken or request.stages is not None:
        architecture.shapes(surveyed.least)
    surveyed.census.require(train_per_class, protocol.test)

    pixels = (Choice("raw-pixels"), REGIMES["fixed"])
    rows = [(Choice("chance"), REGIMES["fixed"], "guess", "")]
    rows += [
        (*pixels, name, size_refusal(*pixels, name, registry, surveyed, architecture))
        for name in _of_rows(classifiers, registry)
    ]
    for choice, regime, skip in pairs:
        skip = skip or shape_refusal(choice, regime, registry, architecture, surveyed.least)
        for name in classifiers:
            reason = skip or size_refusal(choice, regime, name, registry, surveyed, architecture)
            rows.append((choice, regime, name, reason))
    return [
        Cell(
            protocol=protocol.name,
            dataset=dataset,
            preprocessing=protocol.preprocessing,
            architecture=str(architecture) if issubclass(registry.learner(choice.name), FilterLearner) else "",
            learner=choice,
            regime=regime,
            classifier=classifier,
            train_per_class=train_per_class,
            test_per_class=test_per_class,
            validation_fraction=protocol.validation_fraction,
            test=protocol.test,
            metric=protocol.metric,
            seed=request.seed,
            draw=draw,
            device=device,
            unlabelled=request.unlabelled if registry.learner(choice.name).looks() else None,
            precision=precision,
            refinement=refinement if regime.refined else None,
            skip=skip,
        )
        for choice, regime, classifier, skip in dict.fromkeys(rows)
        for draw in range(draws)
    ]


def _of_rows(classifiers: Sequence[str], registry: Registry) -> list[str]:
    """Return the classifiers that raw pixels are paired with: single grey values are no local vectors."""
    return [name for name in classifiers if not takes_maps(name, registry)] or ["logistic"]


def _pairs(request: Request, protocol: Protocol, registry: Registry) -> list[tuple[Choice, Regime, str]]:
    """Return learner × regime with the reason to skip it.

    Pairs that make no sense are left out where the user named learners or regimes alone, and so left the other side to
    featbench; but nothing that was named vanishes.
    """
    learners = [parse_choice(text, registry) for text in _distinct(request.features or protocol.features)]
    learners = [choice for choice in learners if choice.name not in BASELINES]
    regimes = parse_regimes(_distinct(request.regimes or protocol.regimes))
    pairs = [
        (choice, regime, pair_refusal(registry.learner(choice.name), regime, request.device))
        for choice in learners
        for regime in dict.fromkeys(regimes)
    ]
    if request.features is not None and request.regimes is not None:
        return pairs
    fitting = [pair for pair in pairs if not pair[2]]
    served: set[object] = {choice for choice, _, _ in fitting} | {regime for _, regime, _ in fitting}
    named: Sequence[object] = (
        learners if request.features is not None else regimes if request.regimes is not None else ()
    )
    forgotten = [thing for thing in named if thing not in served]
    return [pair for pair in pairs if not pair[2] or pair[0] in forgotten or pair[1] in forgotten]


def _architecture(stages: str | None, protocol: Protocol) -> Architecture:
    """Read an architecture, or look up the name that the protocol gives it."""
    if stages is None:
        return Architecture.parse(protocol.architecture)
    try:
        return Architecture.parse(protocol.architectures.get(stages, stages))
    except ArchitectureError as error:
        if not protocol.architectures:
            raise
        names = ", ".join(protocol.architectures)
        raise ArchitectureError(f"{error}; {protocol.name} also knows by name: {names}") from error


def _refinement(asked: str | None, protocol: Protocol) -> Refinement:
    """Return the protocol's settings of refinement, with what is asked for, by its names or plainly, on top."""
    try:
        parts = [protocol.refinements.get(part.strip(), part) for part in (asked or "").split(",")]
        return Refinement.read(protocol.refinement, *parts)
    except UsageError as error:
        names = (
            f"; {protocol.name} also knows by name: {', '.join(protocol.refinements)}" if protocol.refinements else ""
        )
        raise UsageError(f"--refine {asked}: {error}{names}") from error


def _classifier(text: str, registry: Registry) -> str:
    """Return the canonical text of a classifier with its parameters."""
    choice = Choice.read(text)
    return str(registry.classifier(choice.name).choice(dict(choice.parameters)))


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _train_per_class(asked: int | str | None, protocol: Protocol) -> int | None:
    if asked is None:
        return protocol.train_per_class
    if asked == "all":
        return None
    try:
        count = int(asked)
    except ValueError:
        raise UsageError(f"--train-per-class takes a number or 'all', not {asked!r}") from None
    if count < 2:
        raise UsageError("--train-per-class must be at least 2: one image of each class serves as validation")
    return count


def _test_per_class(asked: int | str | None, protocol: Protocol) -> int | None:
    if asked is None:
        return protocol.test_per_class
    if asked == "all":
        return None
    try:
        count = int(asked)
    except ValueError:
        raise UsageError(f"--test-per-class takes a number or 'all', not {asked!r}") from None
    if count < 1:
        raise UsageError("--test-per-class must be at least 1")
    return count


def _draws(request: Request, protocol: Protocol, train_per_class: int | None) -> int:
    if request.draws is not None and request.draws < 1:
        raise UsageError(f"--draws must be at least 1, not {request.draws}")
    if train_per_class is not None:
        return request.draws or protocol.draws
    if request.draws is not None and request.draws > 1:
        raise UsageError("all training images make one draw: leave out --draws, and vary --seed instead")
    return 1
