"""Feature learners: the contract that plugins fill. docs/plugins.md shows one of each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.errors import PluginError
from featbench.evaluation.regimes import Family
from featbench.learning.patches import MapSource, PatchSource
from featbench.parameters import Parametrised
from featbench.stages.encoders import build_tanh_encoder
from featbench.stages.filters import Bank, Filters
from featbench.stages.specs import Shape
from featbench.system.seeds import derive_seed
from featbench.types import IntArray


class FeatureLearner(Parametrised):
    """A feature learner: a dataclass whose fields are its parameters, with defaults.

    name: what `--features` calls it. family: random, fixed, unsupervised or supervised (decides its regimes). initial:
    the regime's letters in tables where the family is fixed (G for Gabor; without any they say "fixed").
    samples_images: a learner of another family than unsupervised that is given patches all the same, as one whose
    filters are templates. gives: "row" for an extractor that gives as many numbers for an image of any size. source:
    paper. differentiable: whether R+ and U+ can refine it. needs_gpu: refused on a CPU.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    initial: ClassVar[str] = ""
    source: ClassVar[str] = ""
    differentiable: ClassVar[bool] = True
    needs_gpu: ClassVar[bool] = False
    samples_images: ClassVar[bool] = False
    gives: ClassVar[Literal["maps", "row"]] = "maps"

    @classmethod
    def looks(cls) -> bool:
        """Whether it looks at images, never at labels, while its filters come to be."""
        return cls.family == "unsupervised" or cls.samples_images

    def refinement_refusal(self, shape: Shape) -> str | None:
        """Say why the labels cannot refine it on maps of this shape, or None. Asked before anything is computed."""
        return None

    def files(self) -> tuple[Path, ...]:
        """Return the files whose content decides what it gives, besides its parameters.

        Their hashes enter the store's keys.
        """
        return ()


class FilterLearner(FeatureLearner, ABC):
    """A learner that gives the filters of one filter bank; featbench puts the stages around them."""

    @abstractmethod
    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters | Tensor | NDArray[Any]:
        """Return filters of shape `bank.shape` (`units(bank)` of them), or a bare weight (gain 1, bias 0).

        `patches` is a source of training patches if the learner looks at images, else None. With a connection table
        this is asked once for each group of filters. All randomness must come from `seed`.
        """

    def connected(
        self, bank: Bank, table: IntArray, maps: int, patches: PatchSource | None, seed: int
    ) -> Filters | None:
        """Return the filters of a whole connection table [groups, fan_in], or None: each group is asked for by itself.

        `bank` has the filters of all groups, in order; `maps` is how many there are, and `patches` are of all of them.
        """
        return None

    def refusal(self, bank: Bank) -> str | None:
        """Say why this learner cannot fill `bank`, or None. Asked before anything is computed."""
        return None

    def units(self, bank: Bank) -> int:
        """Return how many filters it takes to give `bank.filters` maps: more where the encoder pools over them."""
        return bank.filters

    def grid(self, bank: Bank) -> tuple[int, int] | None:
        """Return the rows and columns of the map that the filters lie on, if they have one."""
        return None

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build what `F` stands for; F_CSG (tanh with gain and bias) unless overridden."""
        return build_tanh_encoder(filters, table)


class NetworkLearner(FeatureLearner, ABC):
    """A learner that gives the whole extractor and takes no architecture."""

    def refusal(self, shape: Shape) -> str | None:
        """Say why this learner cannot take images of this shape (the smallest of them), or None.

        Asked before anything is computed.
        """
        return None

    @abstractmethod
    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return a module from [n, *shape] to [n, ...]; `maps` are training images if it looks at them."""

    def rebuild(self, shape: Shape, state: Mapping[str, Tensor]) -> nn.Module:
        """Build the network again from its `state_dict`. Where this is not defined, it is learned anew each time."""
        raise NotImplementedError


def fill_table(
    learner: FilterLearner,
    bank: Bank,
    table: IntArray,
    maps: int,
    patches: PatchSource | None,
    seed: int,
    *purpose: object,
) -> Filters:
    """Ask the learner for the filters of every group of a connection table, together if it learns them so.

    `bank` is that of one group; `seed` and `purpose` decide the seeds.
    """
    whole = replace(bank, filters=bank.filters * len(table))
    together = None
    if len(table) > 1:
        together = learner.connected(whole, table, maps, patches, derive_seed(seed, *purpose))
    if together is not None:
        return _held(learner, together, whole)
    return Filters.concatenate(
        [
            fill_bank(learner, bank, patches.of(seen) if patches else None, derive_seed(seed, *purpose, group))
            for group, seen in enumerate(table)
        ]
    )


def fill_bank(learner: FilterLearner, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
    """Ask the learner for the filters of `bank` and hold it to its contract."""
    given = learner.filters(bank, patches, seed)
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(np.ascontiguousarray(given))
    if isinstance(given, Tensor):
        given = Filters(given)
    if not isinstance(given, Filters):
        raise PluginError(f"learner {learner.name} gave {type(given).__name__} where Filters or a weight is expected")
    return _held(learner, given, bank)


def _held(learner: FilterLearner, given: Filters, bank: Bank) -> Filters:
    problem = given.find_problem(replace(bank, filters=learner.units(bank)))
    if problem:
        raise PluginError(f"learner {learner.name} broke its contract: {problem}")
    return Filters.from_tensors({k: v.detach().to("cpu", torch.float32) for k, v in given.tensors().items()})
