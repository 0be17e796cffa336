"""A request resolved: its names looked up, its gaps filled with what its protocol declares. No data are read yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from featbench.data.maps import COLOURS, Preprocessing
from featbench.devices.selection import resolve_device, select_operations
from featbench.errors import ArchitectureError, UsageError
from featbench.evaluation.protocol import Protocol, Selection
from featbench.evaluation.regimes import Regime, parse_regimes
from featbench.experiment.baselines import choose_baseline_classifiers, find_baseline_pairs
from featbench.experiment.refusals import refuse_pair
from featbench.experiment.request import Request, parse_choice, parse_classifier
from featbench.operations.precision import Precision, check_precision
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture

DEFAULT_PROTOCOL = "digits"
"""The protocol of a request that names none."""


@dataclass(frozen=True)
class Combination:
    """A learner under a regime, and the classifiers that its features go to; skip: why the two make no sense, or ""."""

    learner: Choice
    regime: Regime
    classifiers: tuple[str, ...]
    skip: str = ""


@dataclass(frozen=True)
class ResolvedRequest:
    """What is compared, with nothing left open.

    combinations: what becomes rows, those of the baselines first. train_per_class, test_per_class: None for all.
    refinement: settings of the `+` of regimes.
    """

    protocol: Protocol
    dataset: str
    preprocessing: Preprocessing
    architecture: Architecture
    combinations: tuple[Combination, ...]
    train_per_class: int | None
    test_per_class: int | None
    draws: int
    seed: int
    device: str
    precision: Precision
    refinement: Refinement
    unlabelled: str | None


def resolve_request(request: Request, registry: Registry) -> ResolvedRequest:
    """Look up every name of a request; raises for the first that is unknown, and for numbers that make no sense."""
    protocol = registry.protocol(request.protocol or DEFAULT_PROTOCOL)
    dataset = request.dataset or protocol.dataset
    registry.dataset(dataset)
    architecture = _resolve_architecture(request.stages, protocol)
    texts = _drop_repeated(request.classifiers or protocol.classifiers)
    classifiers = [parse_classifier(text, registry) for text in texts]
    train_per_class = _resolve_per_class("train", request.train_per_class, protocol.train_per_class)
    test_per_class = _resolve_per_class("test", request.test_per_class, protocol.test_per_class)
    draws = _resolve_draws(request, protocol, train_per_class)
    device = resolve_device(request.device).type
    # Selected here already, so that a device without its kernels is an error before anything is computed.
    precision = select_operations(device, check_precision(request.precision)).precision
    refinement = _resolve_refinement(request.refine, protocol)
    return ResolvedRequest(
        protocol=protocol,
        dataset=dataset,
        preprocessing=_resolve_preprocessing(request.channels, protocol),
        architecture=architecture,
        combinations=(
            *_combine_baselines(request, protocol, classifiers, registry),
            *_combine_named(request, protocol, classifiers, registry),
        ),
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        draws=draws,
        seed=request.seed,
        device=device,
        precision=precision,
        refinement=refinement,
        unlabelled=request.unlabelled,
    )


def _combine_baselines(
    request: Request, protocol: Protocol, classifiers: Sequence[str], registry: Registry
) -> list[Combination]:
    pairs = find_baseline_pairs(protocol, registry)
    paired = choose_baseline_classifiers(protocol, classifiers, registry)
    return [
        Combination(choice, regime, tuple(names), _refuse(choice, regime, request, registry))
        for (choice, regime), names in zip(pairs, paired, strict=True)
    ]


def _combine_named(
    request: Request, protocol: Protocol, classifiers: Sequence[str], registry: Registry
) -> list[Combination]:
    """Combine learners and regimes, those that were named or those of the protocol.

    Combinations that make no sense are left out where the user named learners or regimes alone, and so left the other
    side to featbench; but nothing that was named vanishes.
    """
    added = _find_thorough_selection(request, protocol)
    named = _drop_repeated(request.features or (*protocol.features, *added.features))
    # Repeated choices are dropped after they are read: psd(lam=3) and psd(lam=3.0) are one.
    learners = list(dict.fromkeys(parse_choice(text, registry) for text in named))
    regimes = list(dict.fromkeys(parse_regimes(_drop_repeated(request.regimes or (*protocol.regimes, *added.regimes)))))
    own = {} if request.classifiers is not None else _read_own_classifiers(protocol, registry)
    combinations = [
        Combination(choice, regime, own.get(choice, tuple(classifiers)), _refuse(choice, regime, request, registry))
        for choice in learners
        for regime in regimes
    ]
    if request.features is None or request.regimes is None:
        combinations = _drop_senseless(
            combinations,
            named=learners if request.features is not None else regimes if request.regimes is not None else (),
        )
    return _drop_baselines(combinations, find_baseline_pairs(protocol, registry))


def _find_thorough_selection(request: Request, protocol: Protocol) -> Selection:
    """Return what --thorough adds to the protocol's own learners and regimes."""
    if not request.thorough:
        return Selection()
    if protocol.thorough is None:
        raise UsageError(f"--thorough adds nothing to protocol {protocol.name}: name --features and --regimes")
    if request.features is not None and request.regimes is not None:
        raise UsageError("--thorough adds nothing where --features and --regimes are given: leave out one of them")
    return protocol.thorough


def _read_own_classifiers(protocol: Protocol, registry: Registry) -> dict[Choice, tuple[str, ...]]:
    """Return the learners that go with classifiers of their own, each with these."""
    return {
        parse_choice(learner, registry): tuple(parse_classifier(name, registry) for name in names)
        for learner, names in protocol.own_classifiers.items()
    }


def _drop_senseless(combinations: Sequence[Combination], named: Sequence[object]) -> list[Combination]:
    """Leave out what makes no sense, but for what was named and would have no row at all."""
    served: set[object] = set()
    for one in combinations:
        if not one.skip:
            served |= {one.learner, one.regime}
    forgotten = [thing for thing in named if thing not in served]
    return [one for one in combinations if not one.skip or one.learner in forgotten or one.regime in forgotten]


def _drop_baselines(combinations: Sequence[Combination], pairs: Sequence[tuple[Choice, Regime]]) -> list[Combination]:
    """Leave out learners that are baselines: their own rows are there anyway. Another regime that fits them stays."""
    learners = {choice for choice, _ in pairs}
    return [
        one
        for one in combinations
        if one.learner not in learners or not (one.skip or (one.learner, one.regime) in pairs)
    ]


def _refuse(choice: Choice, regime: Regime, request: Request, registry: Registry) -> str:
    return refuse_pair(registry.learner(choice.name), regime, request.device)


def _resolve_architecture(stages: str | None, protocol: Protocol) -> Architecture:
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


def _resolve_preprocessing(channels: str | None, protocol: Protocol) -> Preprocessing:
    """Return the protocol's preprocessing, with the channels that are asked for."""
    if channels is None:
        return protocol.preprocessing
    if channels not in COLOURS:
        raise UsageError(f"--channels takes {', '.join(COLOURS)}, not {channels!r}")
    return replace(protocol.preprocessing, channels=1 if channels == "grey" else 3, opponent=channels == "opponent")


def _resolve_refinement(asked: str | None, protocol: Protocol) -> Refinement:
    """Return the protocol's settings of refinement, with what is asked for, by its names or plainly, on top."""
    try:
        parts = [protocol.refinements.get(part.strip(), part) for part in (asked or "").split(",")]
        return Refinement.read(protocol.refinement, *parts)
    except UsageError as error:
        names = (
            f"; {protocol.name} also knows by name: {', '.join(protocol.refinements)}" if protocol.refinements else ""
        )
        raise UsageError(f"--refine {asked}: {error}{names}") from error


LEAST_PER_CLASS = {
    "train": (2, ": one image of each class serves as validation"),
    "test": (1, ""),
}
"""How many images of each class are needed at least, and why."""


def _resolve_per_class(which: str, asked: int | str | None, declared: int | None) -> int | None:
    """Return how many images of each class train or test, None for all."""
    if asked is None:
        return declared
    if asked == "all":
        return None
    option = f"--{which}-per-class"
    try:
        count = int(asked)
    except ValueError:
        raise UsageError(f"{option} takes a number or 'all', not {asked!r}") from None
    least, reason = LEAST_PER_CLASS[which]
    if count < least:
        raise UsageError(f"{option} must be at least {least}{reason}")
    return count


def _resolve_draws(request: Request, protocol: Protocol, train_per_class: int | None) -> int:
    if request.draws is not None and request.draws < 1:
        raise UsageError(f"--draws must be at least 1, not {request.draws}")
    if train_per_class is not None:
        return request.draws or protocol.draws
    # Draws differ in their training images: where all of them train, there is one.
    if request.draws is not None and request.draws > 1:
        raise UsageError("all training images make one draw: leave out --draws, and vary --seed instead")
    return 1


def _drop_repeated(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
