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

    def read_survey(
        self, dataset: str, preprocessing: Preprocessing
    ) -> tuple[Survey, Sequence[str], Sequence[str]] | None:
        """Return the survey of a data set.

        Parameters
        ----------
        dataset : str
            Name of the data set.
        preprocessing : Preprocessing
            What the protocol does to its images.

        Returns
        -------
        tuple of (Survey, sequence of str, sequence of str) or None
            The survey, a line for each image that was left out, and a line for each thing that is strange about the
            images. None: nothing was kept.
        """
        return None

    def write_survey(
        self,
        dataset: str,
        preprocessing: Preprocessing,
        survey: Survey,
        left_out: Sequence[str],
        warnings: Sequence[str],
    ) -> None:
        """Keep the survey of a data set.

        Parameters
        ----------
        dataset : str
            Name of the data set.
        preprocessing : Preprocessing
            What the protocol does to its images.
        survey : Survey
            Sizes of the maps and numbers of the images.
        left_out : sequence of str
            A line for each image that was left out.
        warnings : sequence of str
            A line for each thing that is strange about the images, as copies.
        """

    def read_images(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages | None:
        """Return the prepared images of a data set.

        Parameters
        ----------
        dataset : str
            Name of the data set.
        preprocessing : Preprocessing
            What the protocol does to its images; only what prepares them plays a part here.

        Returns
        -------
        PreparedImages or None
            The images. None: nothing was kept.
        """
        return None

    def write_images(self, dataset: str, preprocessing: Preprocessing, images: PreparedImages) -> None:
        """Keep the prepared images of a data set.

        Parameters
        ----------
        dataset : str
            Name of the data set.
        preprocessing : Preprocessing
            What the protocol does to its images; only what prepares them plays a part here.
        images : PreparedImages
            The images.
        """

    def read_filters(self, cell: Cell) -> tuple[list[StageFilters], float] | None:
        """Return the filters of every stage, before the labels refine them.

        Parameters
        ----------
        cell : Cell
            The cell.

        Returns
        -------
        tuple of (list of StageFilters, float) or None
            The filters of each stage, and the seconds that computing took. None: nothing was kept.
        """
        return None

    def write_filters(self, cell: Cell, stages: Sequence[StageFilters], seconds: float) -> None:
        """Keep the filters of every stage.

        Parameters
        ----------
        cell : Cell
            The cell.
        stages : sequence of StageFilters
            The filters of each stage, the first stage first.
        seconds : float
            What learning them took.
        """

    def read_network(self, cell: Cell) -> tuple[Weights, float] | None:
        """Return the weights of a learner's whole network, before the labels refine them.

        Parameters
        ----------
        cell : Cell
            The cell.

        Returns
        -------
        tuple of (dict of str to Tensor, float) or None
            The weights by name, and the seconds that computing took. None: nothing was kept.
        """
        return None

    def write_network(self, cell: Cell, network: nn.Module, seconds: float) -> None:
        """Keep the weights of a learner's whole network.

        Parameters
        ----------
        cell : Cell
            The cell.
        network : nn.Module
            The network.
        seconds : float
            What learning it took.
        """

    def read_refined(self, cell: Cell) -> tuple[Weights, dict[str, Any], float] | None:
        """Return the weights of a refined network.

        Parameters
        ----------
        cell : Cell
            The cell.

        Returns
        -------
        tuple of (dict of str to Tensor, dict, float) or None
            Weights, report of the refinement, seconds. None: nothing was kept.
        """
        return None

    def write_refined(self, cell: Cell, network: nn.Module, report: dict[str, Any], seconds: float) -> None:
        """Keep the weights of a refined network.

        Parameters
        ----------
        cell : Cell
            The cell.
        network : nn.Module
            The refined network.
        report : dict
            What refinement did, as JSON.
        seconds : float
            What it took, runs that were killed included.
        """

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """Return where the refinement of a cell is kept while it lasts.

        Parameters
        ----------
        cell : Cell
            The cell.

        Returns
        -------
        Checkpoint
            Its latest snapshot; here one that keeps nothing.
        """
        return NoCheckpoint()

    def read_features(self, cell: Cell, part: Part) -> tuple[Extracted, float] | None:
        """Return the features of one part of a draw.

        Parameters
        ----------
        cell : Cell
            The cell.
        part : {"all", "train", "test"}
            Which images.

        Returns
        -------
        tuple of (Extracted, float) or None
            The features, and the seconds that computing took. None: nothing was kept.
        """
        return None

    def write_features(
        self, cell: Cell, part: Part, blocks: Iterator[FeatureBlock], seconds: Callable[[], float]
    ) -> tuple[Extracted, float]:
        """Take the features of one part as their blocks come.

        Parameters
        ----------
        cell : Cell
            The cell.
        part : {"all", "train", "test"}
            Which images.
        blocks : iterator of FeatureBlock
            The features, some images at a time, in order.
        seconds : callable
            Returns the seconds so far. It is asked after the last block was taken: extraction lasts until its features
            can be read.

        Returns
        -------
        tuple of (Extracted, float)
            The features as they can be read from now on, and the seconds.
        """
        taken = list(blocks)
        array = np.concatenate([block.values for block in taken])
        return Extracted.of(array, [grid for block in taken for grid in block.grids]), seconds()
