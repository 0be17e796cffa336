"""The steps of a cell with a store behind them: what was computed once is read back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from featbench.data.maps import Maps, Preprocessing, map_shape
from featbench.data.prepare import PackedImages, PreparedImages
from featbench.errors import DataError
from featbench.evaluation.split import Census, Survey
from featbench.experiment.cell import Cell
from featbench.experiment.steps import Part, Progress, Steps
from featbench.features.rows import Extracted
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.networks import StageFilters
from featbench.refinement.descent import Checkpoint
from featbench.refinement.refine import with_hidden
from featbench.registry import Registry
from featbench.stages.filters import Filters
from featbench.store.keys import Document, Keys, code_version
from featbench.store.store import Store
from featbench.system.clock import Clock
from featbench.system.hashing import content_hash
from featbench.types import FloatArray, Split

log = logging.getLogger("featbench")


class CachedSteps(Steps):
    """Steps that look into the store first; the seconds they give are those of the first computation."""

    def __init__(
        self,
        registry: Registry,
        data_dir: Path | None,
        store: Store,
        progress: Progress | None = None,
        *,
        skip_bad_images: bool = False,
    ) -> None:
        super().__init__(registry, data_dir, progress, skip_bad_images=skip_bad_images)
        self.store, self.keys = store, Keys(registry, data_dir)

    def survey(self, dataset: str, preprocessing: Preprocessing) -> Survey:
        """Return the sizes of a data set's maps, and how many images it has; reads it only the first time."""
        key = content_hash([self.keys.prepared(dataset, preprocessing), asdict(preprocessing), code_version()])
        known = self.store.read_record("surveys", key)
        if known is None:
            images, maps = self.load(dataset, preprocessing)
            sizes = {"least": list(maps.least), "one_size": len(maps.sizes) == 1}
            known = {**sizes, "census": vars(Census.of(images)), "left_out": list(images.left_out)}
            self.store.write_record("surveys", key, known)
        self._require_whole(dataset, known["left_out"])
        channels, height, width = known["least"]
        return Survey((channels, height, width), bool(known["one_size"]), Census.restore(known["census"]))

    def prepare(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages:
        """Read a data set's images once; afterwards by memory map."""
        key = content_hash(self.keys.prepared(dataset, preprocessing))
        found = _read_images(self.store, key)
        if found is not None:
            self._require_whole(dataset, found.left_out)
            return found
        images = super().prepare(dataset, preprocessing)
        for line in images.left_out:
            log.warning("data set %s: left out: %s", dataset, line)
        _write_images(self.store, key, images)
        return images

    def _require_whole(self, dataset: str, left_out: Sequence[str]) -> None:
        """Refuse what an earlier run with --skip-bad-images left of a data set, unless that is asked for again."""
        if left_out and not self.skip_bad_images:
            raise DataError(
                f"data set {dataset}: {len(left_out)} images cannot be used, the first: {left_out[0]}; mend or remove "
                "them, or leave them out with --skip-bad-images"
            )

    def learn_network(self, cell: Cell, split: Split, learner: NetworkLearner, maps: Maps) -> tuple[nn.Module, float]:
        """Get the network of a learner that gives the whole extractor; one that can be built again is kept."""
        if type(learner).rebuild is NetworkLearner.rebuild:
            return super().learn_network(cell, split, learner, maps)
        document = self.keys.learned(cell)
        found = self.store.read_tensors("networks", content_hash(document))
        if found is not None:
            state = {name: torch.from_numpy(array.copy()) for name, array in found[0].items()}
            return learner.rebuild(map_shape(maps), state), float(found[1]["seconds"])
        network, seconds = super().learn_network(cell, split, learner, maps)
        arrays = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
        self.store.write_tensors("networks", content_hash(document), arrays, _about(document, seconds))
        return network, seconds

    def learn_filters(
        self, cell: Cell, split: Split, learner: FilterLearner, maps: Maps
    ) -> tuple[list[StageFilters], float]:
        """Get the filters of every stage; U and U+ share theirs."""
        document = self.keys.learned(cell)
        found = self.store.read_tensors("filters", content_hash(document))
        if found is not None:
            return _stages_of(found[0]), float(found[1]["seconds"])
        stages, seconds = super().learn_filters(cell, split, learner, maps)
        tensors = {
            f"filters/{number}/{name}": tensor.numpy()
            for number, stage in enumerate(stages, start=1)
            for name, tensor in stage.filters.tensors().items()
        }
        tables = {f"table/{number}": stage.table for number, stage in enumerate(stages, start=1)}
        about = _about(document, seconds)
        self.store.write_tensors("filters", content_hash(document), {**tensors, **tables}, about)
        return stages, seconds

    def refine(
        self, cell: Cell, split: Split, network: nn.Module, maps: Maps, images: PreparedImages
    ) -> tuple[nn.Module, dict[str, Any], float]:
        """Refine the network, or give it the weights of the refinement that the store holds."""
        document = self.keys.network(cell)
        found = self.store.read_tensors("networks", content_hash(document))
        if found is not None:
            state = {name: torch.from_numpy(array.copy()) for name, array in found[0].items()}
            if cell.refinement is not None and cell.refinement.hidden:
                network = with_hidden(network, state["1.weight"].shape[1], cell.refinement, 0)
            network.load_state_dict(state)
            return network, dict(found[1]["report"]), float(found[1]["seconds"])
        refined, report, seconds = super().refine(cell, split, network, maps, images)
        arrays = {name: tensor.cpu().numpy() for name, tensor in refined.state_dict().items()}
        self.store.write_tensors(
            "networks", content_hash(document), arrays, {**_about(document, seconds), "report": report}
        )
        self.store.remove("checkpoints", content_hash(document))
        return refined, report, seconds

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """Return where a refinement is kept while it lasts: a killed one goes on from there."""
        return _StoredCheckpoint(self.store, content_hash(self.keys.network(cell)))

    def extract(self, cell: Cell, split: Split, part: Part, network: nn.Module, maps: Maps) -> tuple[Extracted, float]:
        """Extract features once for all classifiers, and for all draws where the network does not depend on them."""
        found = self._read_features(cell, part)
        if found is None:
            super().extract(cell, split, part, network, maps)
            found = self._read_features(cell, part)
            assert found is not None  # just written
        return found

    def keep_features(
        self, cell: Cell, part: Part, blocks: Iterator[FloatArray], grids: list[tuple[int, int]], clock: Clock
    ) -> Extracted:
        """Write the features to the store as they come; they are read back by memory map."""
        document = self.keys.features(cell, part)
        self.store.write_blocks(
            "features",
            content_hash(document),
            None,
            blocks,
            lambda: {**_about(document, clock.seconds()), "grids": grids},
        )
        return Extracted(np.empty((0, 0), dtype=np.float16))

    def _read_features(self, cell: Cell, part: Part) -> tuple[Extracted, float] | None:
        found = self.store.read_array("features", content_hash(self.keys.features(cell, part)))
        if found is None:
            return None
        array, about = found
        return Extracted.of(array, about["grids"]), float(about["seconds"])

    def first_filters(self, cell: Cell) -> np.ndarray[Any, Any] | None:
        """Return the weight of a cell's first filter bank [filters, maps, size, size] if the store holds it.

        A cell that leaves parameters open has none of its own.
        """
        if len(cell.learner.alternatives()) > 1:
            return None
        key = content_hash(self.keys.network(cell))
        if not cell.regime.refined:
            filters = self.store.read_tensors("filters", key)
            return None if filters is None else filters[0]["filters/1/weight"]
        network = self.store.read_tensors("networks", key)
        weights = {} if network is None else {name: array for name, array in network[0].items() if array.ndim == 4}
        return weights[min(weights)] if weights else None


@dataclass(frozen=True)
class _StoredCheckpoint:
    """Training in the store while it lasts."""

    store: Store
    key: str

    def read(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]] | None:
        return self.store.read_tensors("checkpoints", self.key)

    def write(self, arrays: dict[str, np.ndarray[Any, Any]], about: Mapping[str, Any]) -> None:
        self.store.write_tensors("checkpoints", self.key, arrays, about)


def _about(document: Document, seconds: float) -> dict[str, Any]:
    return {"made_from": document, "seconds": seconds}


def _stages_of(arrays: dict[str, np.ndarray[Any, Any]]) -> list[StageFilters]:
    stages = []
    for number in range(1, sum(name.startswith("table/") for name in arrays) + 1):
        own = f"filters/{number}/"
        named = {name.removeprefix(own): array for name, array in arrays.items() if name.startswith(own)}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in named.items()}
        stages.append(StageFilters(Filters.from_tensors(tensors), arrays[f"table/{number}"].astype(np.int64)))
    return stages


def _write_images(store: Store, key: str, images: PreparedImages) -> None:
    """Keep prepared images; the pixels go first, so that what is said of them is never without them."""
    store.write_array("images", key, images.pixels.flat, {})
    test = {} if images.test is None else {"test": images.test}
    tensors = {"shapes": images.pixels.shapes, "labels": images.labels, **test}
    about = {
        "classes": list(images.classes),
        "left_out": list(images.left_out),
        "channels": images.pixels.channels,
    }
    store.write_tensors("labels", key, tensors, about)


def _read_images(store: Store, key: str) -> PreparedImages | None:
    labels, flat = store.read_tensors("labels", key), store.read_array("images", key)
    if labels is None or flat is None:
        return None
    tensors, about = labels
    return PreparedImages(
        pixels=PackedImages(flat[0], tensors["shapes"], about["channels"]),
        labels=tensors["labels"],
        classes=tuple(about["classes"]),
        test=tensors.get("test"),
        left_out=tuple(about["left_out"]),
    )
