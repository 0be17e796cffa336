"""Artifacts in the store: what one cell computed, others and later runs read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featbench.data.maps import Preprocessing
from featbench.data.prepare import PackedImages, PreparedImages
from featbench.errors import StoreError
from featbench.evaluation.split import Census, Survey
from featbench.experiment.artifacts import Artifacts, Part, Weights
from featbench.experiment.cell import Cell
from featbench.features.extraction import FeatureBlock
from featbench.features.rows import Extracted
from featbench.learning.networks import StageFilters
from featbench.refinement.checkpoint import Checkpoint
from featbench.stages.filters import Filters
from featbench.store.keys import Key, Keys
from featbench.store.store import Store
from featbench.types import FloatArray, Pixels

Arrays = dict[str, NDArray[Any]]

Made = TypeVar("Made")


class StoredArtifacts(Artifacts):
    """Artifacts in the store, each under the hash of what decides it."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self.store, self.keys = store, keys

    def read_survey(
        self, dataset: str, preprocessing: Preprocessing
    ) -> tuple[Survey, Sequence[str], Sequence[str]] | None:
        """Return the survey of a data set, a line for each image that was left out of it, and the warnings."""
        key = self.keys.survey_hash(dataset, preprocessing)
        return self.store.restore("surveys", key, self.store.read_record("surveys", key), _to_survey)

    def write_survey(
        self,
        dataset: str,
        preprocessing: Preprocessing,
        survey: Survey,
        left_out: Sequence[str],
        warnings: Sequence[str],
    ) -> None:
        """Keep the survey of a data set, and what was said of its images, where the store can."""
        if self.store.write_problem is not None:
            # A plan is made in any store, and not kept.
            return
        sizes = {"least": list(survey.least), "one_size": survey.one_size}
        said = {"left_out": list(left_out), "warnings": list(warnings)}
        document = {**sizes, "census": vars(survey.census), **said}
        self.store.write_record("surveys", self.keys.survey_hash(dataset, preprocessing), document)

    def read_images(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages | None:
        """Return the prepared images of a data set, their pixels by memory map."""
        key = self.keys.prepared(dataset, preprocessing).hash
        labels, flat = self.store.read_tensors("labels", key), self.store.read_array("images", key)
        if labels is None or flat is None:
            return None
        return self.store.restore("artifacts/labels", key, (flat[0], *labels), _to_images)

    def write_images(self, dataset: str, preprocessing: Preprocessing, images: PreparedImages) -> None:
        """Keep the prepared images of a data set, where the store can: all pixels in one array, of whatever sizes."""
        if self.store.write_problem is not None:
            return
        key = self.keys.prepared(dataset, preprocessing).hash
        # The pixels go first: a run that is killed in between leaves no labels without them.
        self.store.write_array("images", key, images.pixels.flat, {})
        test = {} if images.test is None else {"test": images.test}
        tensors = {"shapes": images.pixels.shapes, "labels": images.labels, "positions": images.positions, **test}
        about = {
            "classes": list(images.classes),
            "left_out": list(images.left_out),
            "warnings": list(images.warnings),
            "channels": images.pixels.channels,
        }
        self.store.write_tensors("labels", key, tensors, about)

    def read_filters(self, cell: Cell) -> tuple[list[StageFilters], float] | None:
        """Return the filters of every stage, before the labels refine them."""
        return self._read_tensors("filters", self.keys.for_cell(cell).learned, unpack_stages)

    def write_filters(self, cell: Cell, stages: Sequence[StageFilters], seconds: float) -> None:
        """Keep the filters of every stage."""
        key = self.keys.for_cell(cell).learned
        self.store.write_tensors("filters", key.hash, pack_stages(stages), _describe(key, seconds))

    def read_network(self, cell: Cell) -> tuple[Weights, float] | None:
        """Return the weights of a learner's whole network, before the labels refine them."""
        return self._read_tensors("networks", self.keys.for_cell(cell).learned, make_tensors)

    def write_network(self, cell: Cell, network: nn.Module, seconds: float) -> None:
        """Keep the weights of a learner's whole network."""
        key = self.keys.for_cell(cell).learned
        self.store.write_tensors("networks", key.hash, read_weights(network), _describe(key, seconds))

    def read_refined(self, cell: Cell) -> tuple[Weights, dict[str, Any], float] | None:
        """Return the weights of a refined network, and the report of its refinement."""

        def restore(found: tuple[Arrays, dict[str, Any]]) -> tuple[Weights, dict[str, Any], float]:
            arrays, about = found
            return make_tensors(arrays), dict(about["report"]), float(about["seconds"])

        key = self.keys.for_cell(cell).network.hash
        return self.store.restore("artifacts/networks", key, self.store.read_tensors("networks", key), restore)

    def write_refined(self, cell: Cell, network: nn.Module, report: dict[str, Any], seconds: float) -> None:
        """Keep the weights of a refined network, and the report of its refinement."""
        key = self.keys.for_cell(cell).network
        about = {**_describe(key, seconds), "report": report}
        self.store.write_tensors("networks", key.hash, read_weights(network), about)
        # Only now: a run that is killed before the network is safe resumes from the checkpoint.
        self.store.remove("checkpoints", key.hash)

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """Return where the refinement of a cell is kept while it lasts: a run that was killed resumes there."""
        return _StoredCheckpoint(self.store, self.keys.for_cell(cell).network.hash)

    def read_features(self, cell: Cell, part: Part) -> tuple[Extracted, float] | None:
        """Return the features of one part of a draw, by memory map."""

        def restore(found: tuple[NDArray[Any], dict[str, Any]]) -> tuple[Extracted, float]:
            array, about = found
            return Extracted.of(array, about["grids"]), float(about["seconds"])

        key = self.keys.for_cell(cell).features[part].hash
        return self.store.restore("artifacts/features", key, self.store.read_array("features", key), restore)

    def write_features(
        self, cell: Cell, part: Part, blocks: Iterator[FeatureBlock], seconds: Callable[[], float]
    ) -> tuple[Extracted, float]:
        """Write features to their file block by block, so that they may be larger than the memory."""
        key = self.keys.for_cell(cell).features[part]
        grids: list[tuple[int, int]] = []

        def values() -> Iterator[FloatArray]:
            for block in blocks:
                grids.extend(block.grids)
                yield block.values

        # What is known of the features, their grids and seconds, is known when the last block is written.
        self.store.write_blocks(
            "features", key.hash, None, values(), lambda: {**_describe(key, seconds()), "grids": grids}
        )
        written = self.read_features(cell, part)
        if written is None:
            raise StoreError(f"features that were just written to {self.store.home} are gone: run the command again")
        return written

    def _read_tensors(self, kind: str, key: Key, make: Callable[[Arrays], Made]) -> tuple[Made, float] | None:
        """Return what `make` makes of named tensors, and the seconds that computing them took."""

        def restore(found: tuple[Arrays, dict[str, Any]]) -> tuple[Made, float]:
            return make(found[0]), float(found[1]["seconds"])

        return self.store.restore(f"artifacts/{kind}", key.hash, self.store.read_tensors(kind, key.hash), restore)

    def read_first_filters(self, cell: Cell) -> NDArray[Any] | None:
        """Return the weight of a cell's first filter bank [filters, maps, size, size] if the store holds it.

        A cell that leaves parameters open has none of its own.
        """
        if len(cell.learner.alternatives()) > 1:
            return None
        key = self.keys.for_cell(cell).network.hash
        if not cell.regime.refined:
            filters = self.store.read_tensors("filters", key)
            return None if filters is None else filters[0]["filters/1/weight"]
        network = self.store.read_tensors("networks", key)
        # Modules are named by their numbers: the first in the alphabet lies at the input.
        weights = {} if network is None else {name: array for name, array in network[0].items() if array.ndim == 4}
        return weights[min(weights)] if weights else None


@dataclass(frozen=True)
class _StoredCheckpoint:
    """Training in the store while it lasts."""

    store: Store
    key: str

    def read(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Return what was kept last, or None."""
        return self.store.read_tensors("checkpoints", self.key)

    def write(self, arrays: Arrays, document: Mapping[str, Any]) -> None:
        """Keep arrays and a JSON object in place of what was kept."""
        self.store.write_tensors("checkpoints", self.key, arrays, document)


def _to_survey(known: Mapping[str, Any]) -> tuple[Survey, Sequence[str], Sequence[str]]:
    """Rebuild a survey, a line for each image that was left out, and the warnings, from their record."""
    channels, height, width = map(int, known["least"])
    survey = Survey((channels, height, width), bool(known["one_size"]), Census.restore(known["census"]))
    return survey, list(known["left_out"]), list(known["warnings"])


def _to_images(found: tuple[Pixels, Arrays, Mapping[str, Any]]) -> PreparedImages:
    """Rebuild prepared images from their pixels, their other arrays and what was written about these."""
    flat, tensors, about = found
    images = PreparedImages(
        pixels=PackedImages(flat, tensors["shapes"], about["channels"]),
        labels=tensors["labels"],
        classes=tuple(about["classes"]),
        positions=tensors["positions"],
        test=tensors.get("test"),
        left_out=tuple(about["left_out"]),
        warnings=tuple(about["warnings"]),
    )
    # Two files, which two processes may have written.
    count, size = len(images.pixels), int(tensors["shapes"].prod(axis=1).sum()) * about["channels"]
    if flat.size != size or {len(images.labels), len(images.positions)} != {count}:
        raise ValueError("the pixels are not those of these labels")
    return images


def _describe(key: Key, seconds: float) -> dict[str, Any]:
    """Return what stands beside every artifact, for those who look into the store."""
    return {"made_from": key.document, "seconds": seconds}


def read_weights(network: nn.Module) -> Arrays:
    """Return the weights of a network as arrays, by name."""
    return {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}


def make_tensors(arrays: Arrays) -> Weights:
    """Return arrays as tensors on the CPU."""
    # Arrays from a file are views of bytes that cannot be written; torch wants memory of its own.
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def pack_stages(stages: Sequence[StageFilters]) -> Arrays:
    """Return the filters and the connection tables of stages, by names that tell the stages apart."""
    filters = {
        f"filters/{number}/{name}": tensor.numpy()
        for number, stage in enumerate(stages, start=1)
        for name, tensor in stage.filters.tensors().items()
    }
    return {**filters, **{f"table/{number}": stage.table for number, stage in enumerate(stages, start=1)}}


def unpack_stages(arrays: Arrays) -> list[StageFilters]:
    """Rebuild what `pack_stages` made of stages."""
    stages = []
    for number in range(1, sum(name.startswith("table/") for name in arrays) + 1):
        own = f"filters/{number}/"
        named = {name.removeprefix(own): array for name, array in arrays.items() if name.startswith(own)}
        filters = Filters.from_tensors(make_tensors(named))
        stages.append(StageFilters(filters, arrays[f"table/{number}"].astype(np.int64)))
    return stages
