"""Artifacts: what the steps of a cell give, and who keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from featbench.data.maps import Preprocessing
from featbench.data.prepare import PreparedImages
from featbench.evaluation.split import Survey
from featbench.experiment.cell import Cell
from featbench.features.extraction import FeatureBlock
from featbench.features.rows import Extracted
from featbench.learning.networks import StageFilters
from featbench.refinement.checkpoint import Checkpoint, NoCheckpoint

Part = Literal["all", "train", "test"]
"""Which images of a draw are extracted together."""

Weights = dict[str, Tensor]
"""The weights of a network, by name, as its `state_dict` has them."""


class Artifacts:
    """What the steps of a cell give. This class keeps none of it; one that does overrides every method.

    `read_…` returns what was kept, with the seconds that it took when it was computed, or None where nothing was.
    `write_…` keeps it.
    """

    def read_survey(self, dataset: str, preprocessing: Preprocessing) -> tuple[Survey, Sequence[str]] | None:
        """Return the survey of a data set, and a line for each image that was left out of it."""
        return None

    def write_survey(self, dataset: str, preprocessing: Preprocessing, survey: Survey, left_out: Sequence[str]) -> None:
        """Keep the survey of a data set, and a line for each image that was left out of it."""

    def read_images(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages | None:
        """Return the prepared images of a data set."""
        return None

    def write_images(self, dataset: str, preprocessing: Preprocessing, images: PreparedImages) -> None:
        """Keep the prepared images of a data set."""

    def read_filters(self, cell: Cell) -> tuple[list[StageFilters], float] | None:
        """Return the filters of every stage, before the labels refine them."""
        return None

    def write_filters(self, cell: Cell, stages: Sequence[StageFilters], seconds: float) -> None:
        """Keep the filters of every stage."""

    def read_network(self, cell: Cell) -> tuple[Weights, float] | None:
        """Return the weights of a learner's whole network, before the labels refine them."""
        return None

    def write_network(self, cell: Cell, network: nn.Module, seconds: float) -> None:
        """Keep the weights of a learner's whole network."""

    def read_refined(self, cell: Cell) -> tuple[Weights, dict[str, Any], float] | None:
        """Return the weights of a refined network, and the report of its refinement."""
        return None

    def write_refined(self, cell: Cell, network: nn.Module, report: dict[str, Any], seconds: float) -> None:
        """Keep the weights of a refined network, and the report of its refinement."""

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """Return where the refinement of a cell is kept while it lasts."""
        return NoCheckpoint()

    def read_features(self, cell: Cell, part: Part) -> tuple[Extracted, float] | None:
        """Return the features of one part of a draw."""
        return None

    def write_features(
        self, cell: Cell, part: Part, blocks: Iterator[FeatureBlock], seconds: Callable[[], float]
    ) -> tuple[Extracted, float]:
        """Take the features of one part as their blocks come, and return them as they can be read from now on.

        `seconds` is asked after the last block was taken: extraction lasts until its features can be read.
        """
        taken = list(blocks)
        array = np.concatenate([block.values for block in taken])
        return Extracted.of(array, [grid for block in taken for grid in block.grids]), seconds()
