"""A request becomes cells: what is asked for, minus nothing; what makes no sense is kept with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featbench.architecture import Architecture, Shape
from featbench.cell import Cell
from featbench.classifier import MapClassifier
from featbench.cuda.reference import check_precision
from featbench.cuda.selection import select
from featbench.errors import ArchitectureError, UsageError
from featbench.experiment import pool_name, unlabelled_images
from featbench.learner import FeatureLearner, FilterLearner, NetworkLearner
from featbench.network import refusal, resolve_device
from featbench.parameters import Choice
from featbench.preprocess import Preprocessing
from featbench.protocol import Protocol
from featbench.regimes import REGIMES, Regime, parse_regimes
from featbench.registry import Registry
from featbench.settings import Refinement
from featbench.split import Survey

BASELINES = ("chance", "raw-pixels")
"""Learners that every table holds."""


@dataclass(frozen=True)
class Request:
    """What a comparison is asked for; None means what the protocol declares.

    train_per_class, test_per_class: a number, or "all". stages: an architecture, or the protocol's name for one.
    refine: settings of R+ and U+, as in "epochs=30,rate=0.01", or the protocol's name for some.
    """

    protocol: str = "digits"
    dataset: str | None = None
    features: Sequence[str] | None = None
    regimes: Sequence[str] | None = None
    classifiers: Sequence[str] | None = None
    stages: str | None = None
    train_per_class: int | str | None = None
    test_per_class: int | str | None = None
    draws: int | None = None
    seed: int = 0
    device: str = "auto"
    unlabelled: str | None = None
    precision: str = "float32"
    refine: str | None = None


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
    precision = select(device, check_precision(request.precision)).precision
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
        (*pixels, name, _size_refusal(*pixels, name, registry, surveyed, architecture))
        for name in _of_rows(classifiers, registry)
    ]
    for choice, regime, skip in pairs:
        skip = skip or _shape_refusal(choice, regime, registry, architecture, surveyed.least)
        for name in classifiers:
            reason = skip or _size_refusal(choice, regime, name, registry, surveyed, architecture)
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


def _shape_refusal(choice: Choice, regime: Regime, registry: Registry, architecture: Architecture, shape: Shape) -> str:
    """Say why a learner cannot fill the architecture, take images of this size, or be refined on them."""
    for alternative in choice.alternatives():
        learner = registry.learner(choice.name).create(dict(alternative.parameters))
        reason = None
        if isinstance(learner, FilterLearner):
            reason = refusal(architecture, learner, shape)
        elif isinstance(learner, NetworkLearner):
            reason = learner.refusal(shape)
        if reason is None and regime.refined:
            reason = learner.refinement_refusal(shape)
        if reason:
            return reason
    return ""


def _size_refusal(
    choice: Choice, regime: Regime, classifier: str, registry: Registry, survey: Survey, architecture: Architecture
) -> str:
    """Say why a classifier cannot take what a learner gives for images of these sizes."""
    learner = registry.learner(choice.name)
    local = _takes_maps(classifier, registry)
    joined = issubclass(learner, FilterLearner) and bool(architecture.kept)
    if local and joined:
        return (
            f"features of several stages have no common grid of local vectors, which {classifier} takes: keep those of "
            "the last stage alone (write > for >+), or pair them with a classifier of rows, as linear-svm"
        )
    if local and learner.gives == "row":
        return (
            f"{choice.name} gives one row of features an image, without the local vectors that {classifier} takes: "
            "pair it with a classifier of rows, as linear-svm"
        )
    if survey.one_size or learner.gives == "row":
        return ""
    remedy = "a protocol that resizes and pads is needed"
    if joined:
        return f"the images differ in size, and so do their rows of features of several stages: {remedy}"
    if regime.refined:
        return f"the images differ in size, and only images of one size can be refined on: {remedy}"
    if not local:
        return f"the images differ in size, and so do their features, of which {classifier} takes rows alone: {remedy}"
    return ""


def _takes_maps(classifier: str, registry: Registry) -> bool:
    return isinstance(registry.classifier(Choice.read(classifier).name), MapClassifier)


def _of_rows(classifiers: Sequence[str], registry: Registry) -> list[str]:
    """Return the classifiers that raw pixels are paired with: single grey values are no local vectors."""
    return [name for name in classifiers if not _takes_maps(name, registry)] or ["logistic"]


def _pairs(request: Request, protocol: Protocol, registry: Registry) -> list[tuple[Choice, Regime, str]]:
    """Return learner × regime with the reason to skip it.

    Pairs that make no sense are left out where the user named learners or regimes alone, and so left the other side to
    featbench; but nothing that was named vanishes.
    """
    learners = [parse_choice(text, registry) for text in _distinct(request.features or protocol.features)]
    learners = [choice for choice in learners if choice.name not in BASELINES]
    regimes = parse_regimes(_distinct(request.regimes or protocol.regimes))
    pairs = [
        (choice, regime, _refusal(registry.learner(choice.name), regime, request.device))
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


def _refusal(learner: type[FeatureLearner], regime: Regime, device: str) -> str:
    reason = regime.refusal(learner.name, learner.family)
    if reason:
        return reason
    if regime.refined and not learner.differentiable:
        return f"{learner.name} is not differentiable, so labels cannot refine it"
    if learner.needs_gpu and resolve_device(device).type == "cpu":
        return f"{learner.name} needs a GPU: use --device cuda"
    return ""


def parse_choice(text: str, registry: Registry) -> Choice:
    """Read `psd` or `psd(lam=0.5|1,updates=2000)`; names, parameters and their types are checked."""
    choice = Choice.read(text)
    return registry.learner(choice.name).choice(dict(choice.parameters))


def split_list(text: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


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
