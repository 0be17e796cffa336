"""Feature learners: the contract that plugins fill. docs/plugins.md shows one of each kind."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.architecture import Shape
from featbench.errors import PluginError, UnknownNameError, UsageError
from featbench.filters import Bank, Filters
from featbench.patches import MapSource, PatchSource
from featbench.regimes import Family
from featbench.stages import tanh_encoder


class FeatureLearner:
    """A feature learner: a dataclass whose fields are its parameters, with defaults.

    name: what `--features` calls it. family: random, fixed, unsupervised or supervised (decides its regimes, and
    whether it is given patches). initial: the regime's letter in tables where the family is fixed (G for Gabor;
    without one they say "fixed"). source: paper. differentiable: whether R+ and U+ can refine it. needs_gpu: refused
    on a CPU.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    initial: ClassVar[str] = ""
    source: ClassVar[str] = ""
    differentiable: ClassVar[bool] = True
    needs_gpu: ClassVar[bool] = False

    @classmethod
    def create(cls, parameters: Mapping[str, Any]) -> FeatureLearner:
        """Build the learner; unknown or mistyped parameters are named."""
        known = {field.name: field for field in cls._fields()}
        for name, value in parameters.items():
            if name not in known:
                raise UnknownNameError(f"parameter of {cls.name}", name, known or ["none"])
            default = known[name].default
            _require_type(cls.name, name, value, default)
        try:
            return cls(**parameters)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{cls.name}: {error}") from error

    @classmethod
    def _fields(cls) -> tuple[dataclasses.Field[Any], ...]:
        return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()

    def parameters(self) -> dict[str, Any]:
        """Return every parameter with its value."""
        return {field.name: getattr(self, field.name) for field in self._fields()}


class FilterLearner(FeatureLearner, ABC):
    """A learner that gives the filters of one filter bank; featbench puts the stages around them."""

    @abstractmethod
    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters | Tensor | NDArray[Any]:
        """Return filters of shape `bank.shape`, or a bare weight (gain 1, bias 0).

        `patches` is a source of training patches if the family is unsupervised, else None. With a connection table
        this is asked once for each group of filters. All randomness must come from `seed`.
        """

    def refusal(self, bank: Bank) -> str | None:
        """Say why this learner cannot fill `bank`, or None. Asked before anything is computed."""
        return None

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build what `F` stands for; F_CSG (tanh with gain and bias) unless overridden."""
        return tanh_encoder(filters, table)


class NetworkLearner(FeatureLearner, ABC):
    """A learner that gives the whole extractor and takes no architecture."""

    @abstractmethod
    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return a module from [n, *shape] to [n, ...]; `maps` are training images if the family is unsupervised."""


def fill_bank(learner: FilterLearner, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
    """Ask the learner for the filters of `bank` and hold it to its contract."""
    given = learner.filters(bank, patches, seed)
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(np.ascontiguousarray(given))
    if isinstance(given, Tensor):
        given = Filters(given)
    if not isinstance(given, Filters):
        raise PluginError(f"learner {learner.name} gave {type(given).__name__} where Filters or a weight is expected")
    problem = given.problem(bank)
    if problem:
        raise PluginError(f"learner {learner.name} broke its contract: {problem}")
    return Filters.from_tensors({k: v.detach().to("cpu", torch.float32) for k, v in given.tensors().items()})


def _require_type(learner: str, name: str, value: object, default: object) -> None:
    if isinstance(default, bool) or default is dataclasses.MISSING or default is None:
        fits = default is dataclasses.MISSING or default is None or isinstance(value, bool)
    elif isinstance(default, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise UsageError(f"{learner}: parameter {name} takes a {type(default).__name__}, not {value!r}")
