"""The steps of a cell with a store behind them: what was computed once is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featbench.architecture import Shape
from featbench.cell import Cell
from featbench.experiment import Part, Progress, Steps
from featbench.filters import Filters
from featbench.hashing import content_hash
from featbench.keys import Document, Keys
from featbench.learner import FilterLearner
from featbench.network import StageFilters
from featbench.preprocess import Preprocessing, map_shape
from featbench.registry import Registry
from featbench.split import Census
from featbench.store import Store
from featbench.types import FloatArray, Images, Split


class CachedSteps(Steps):
    """Steps that look into the store first; the seconds they give are those of the first computation."""

    def __init__(
        self, registry: Registry, data_dir: Path | None, store: Store, progress: Progress | None = None
    ) -> None:
        super().__init__(registry, data_dir, progress)
        self.store, self.keys = store, Keys(registry, data_dir)

    def survey(self, dataset: str, preprocessing: Preprocessing) -> tuple[Shape, Census]:
        """Return the shape of a data set's maps, and how many images it has; loads it only the first time."""
        key = content_hash({"dataset": self.keys.dataset(dataset), "preprocessing": vars(preprocessing)})
        known = self.store.read_record("surveys", key)
        if known is None:
            images, maps = self.load(dataset, preprocessing)
            known = {"shape": list(map_shape(maps)), "census": vars(Census.of(images))}
            self.store.write_record("surveys", key, known)
        channels, height, width = known["shape"]
        return (channels, height, width), Census.restore(known["census"])

    def learn_filters(
        self, cell: Cell, split: Split, learner: FilterLearner, maps: Tensor
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
        self, cell: Cell, split: Split, network: nn.Module, maps: Tensor, images: Images
    ) -> tuple[dict[str, Any], float]:
        """Refine the network, or give it the weights of the refinement that the store holds."""
        document = self.keys.network(cell)
        found = self.store.read_tensors("networks", content_hash(document))
        if found is not None:
            network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in found[0].items()})
            return dict(found[1]["report"]), float(found[1]["seconds"])
        report, seconds = super().refine(cell, split, network, maps, images)
        state = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
        self.store.write_tensors(
            "networks", content_hash(document), state, {**_about(document, seconds), "report": report}
        )
        return report, seconds

    def extract(
        self, cell: Cell, split: Split, part: Part, network: nn.Module, maps: Tensor
    ) -> tuple[FloatArray, float]:
        """Extract features once for all classifiers, and for all draws where the network does not depend on them."""
        document = self.keys.features(cell, part)
        found = self.store.read_array("features", content_hash(document))
        if found is not None:
            return found[0], float(found[1]["seconds"])
        features, seconds = super().extract(cell, split, part, network, maps)
        self.store.write_array("features", content_hash(document), features, _about(document, seconds))
        return features, seconds

    def first_filters(self, cell: Cell) -> np.ndarray[Any, Any] | None:
        """Return the weight of a cell's first filter bank [filters, maps, size, size] if the store holds it."""
        key = content_hash(self.keys.network(cell))
        if not cell.regime.refined:
            filters = self.store.read_tensors("filters", key)
            return None if filters is None else filters[0]["filters/1/weight"]
        network = self.store.read_tensors("networks", key)
        weights = {} if network is None else {name: array for name, array in network[0].items() if array.ndim == 4}
        return weights[min(weights)] if weights else None


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
