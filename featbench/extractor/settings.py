"""The parameters of an `Extractor`, read when it is fitted: scikit-learn wants them kept as they were given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import isabstract
from typing import Any

import torch

from featbench.arguments import read_flag, read_integer, read_list, read_mapping, read_text, show, unwrap_scalar
from featbench.data.maps import Preprocessing
from featbench.devices.selection import resolve_device
from featbench.errors import UnknownNameError, UsageError
from featbench.learning.learner import FeatureLearner, FilterLearner, NetworkLearner
from featbench.operations.precision import Precision, check_precision
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture


@dataclass(frozen=True)
class Computing:
    """Where and how an `Extractor` computes, in `fit` and in `transform`.

    row_shape: the shape of the image that a row holds, one side of which may be -1; None for square images.
    """

    row_shape: tuple[int, ...] | None
    device: torch.device
    precision: Precision
    verbose: bool

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Computing:
        """Read the parameters of an `Extractor`; a `UsageError` names the one that cannot be taken."""
        return cls(
            row_shape=_read_row_shape(given["image_shape"]),
            device=_read_device(given["device"]),
            precision=check_precision(read_text("precision", given["precision"])),
            verbose=read_flag("verbose", given["verbose"]),
        )


@dataclass(frozen=True)
class Settings:
    """What an `Extractor` learns; architecture: None for a learner that gives the whole network."""

    architecture: Architecture | None
    learner: FeatureLearner
    refined: bool
    refinement: Refinement
    preprocessing: Preprocessing
    seed: int

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Settings:
        """Read the parameters of an `Extractor`; a `UsageError` names the one that cannot be taken."""
        learner = _read_learner(given["learner"], given["learner_params"])
        refined = read_flag("refined", given["refined"])
        if learner.family == "supervised" and not refined:
            raise UsageError(f"{learner.name} learns from labels alone: set refined=True, and give labels to fit")
        if refined and not learner.differentiable:
            raise UsageError(f"{learner.name} is not differentiable, so labels cannot refine it")
        takes_none = isinstance(learner, NetworkLearner)
        return cls(
            architecture=None if takes_none else _read_architecture(given["architecture"]),
            learner=learner,
            refined=refined,
            refinement=_read_refinement(given["refinement"]),
            preprocessing=_read_preprocessing(given["preprocessing"]),
            seed=read_integer("seed", given["seed"]),
        )


def _read_device(value: object) -> torch.device:
    """Return the device of a name, or of one of torch's devices."""
    return resolve_device(str(value) if isinstance(value, torch.device) else read_text("device", value))


def _read_architecture(value: object) -> Architecture:
    return value if isinstance(value, Architecture) else Architecture.parse(read_text("architecture", value))


def _read_learner(value: object, given: object) -> FeatureLearner:
    """Return the learner of a name, as the command line writes it, of a class, or the instance itself."""
    parameters = {} if given is None else read_mapping("learner_params", given)
    plain = unwrap_scalar(value)
    if isinstance(plain, FilterLearner | NetworkLearner):
        if parameters:
            raise UsageError("learner_params go with a learner's name or class, not with an instance")
        return plain
    if isinstance(plain, type) and issubclass(plain, FilterLearner | NetworkLearner) and not isabstract(plain):
        return plain.create(parameters)
    if not isinstance(plain, str):
        raise UsageError(f"learner takes a name, such as 'psd(lam=0.5)', a class or an instance, not {show(value)}")
    choice = Choice.read(plain)
    for name, one in choice.parameters:
        if name in parameters:
            raise UsageError(f"learner and learner_params both give {name}: give it once")
        if isinstance(one, tuple):
            raise UsageError(
                f"learner gives several values of {name}, and an Extractor takes one: search them with GridSearchCV, "
                f"as learner_params__{name}"
            )
    return Registry().learner(choice.name).create({**dict(choice.parameters), **parameters})


def _read_refinement(value: object) -> Refinement:
    if value is None:
        return Refinement()
    # Settings that are an instance already are read once more: nobody has looked at the types of their values.
    given = value.parameters() if isinstance(value, Refinement) else value
    return Refinement.create(read_mapping("refinement", given))


def _read_preprocessing(value: object) -> Preprocessing:
    if value is None or isinstance(value, Preprocessing):
        return value or Preprocessing()
    if not isinstance(value, Mapping):
        raise UsageError(f"preprocessing takes a featbench.Preprocessing or a mapping of its fields, not {show(value)}")
    given = read_mapping("preprocessing", value)
    known = [field.name for field in fields(Preprocessing)]
    for name in given:
        if name not in known:
            raise UnknownNameError("field of preprocessing", name, known)
    try:
        return Preprocessing(**given)
    except (ValueError, TypeError) as error:
        raise UsageError(f"preprocessing: {error}") from error


def _read_row_shape(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    shape = tuple(read_integer("image_shape", one) for one in read_list("image_shape", value))
    sides = shape[:2]
    if (
        len(sides) < 2
        or shape[2:] not in ((), (3,))
        or any(side < 1 and side != -1 for side in sides)
        or max(sides) < 1
    ):
        raise UsageError(
            "image_shape takes (height, width) or (height, width, 3), one side of which may be -1 for what fits, not "
            f"{shape}"
        )
    return shape
