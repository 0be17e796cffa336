"""Run one cell, from images to a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from featbench.architecture import Architecture
from featbench.cell import Cell
from featbench.classifier import Predictor
from featbench.clock import Clock
from featbench.dataset import blaming, check_images, reading
from featbench.images import image_files, read_image
from featbench.learner import FilterLearner, NetworkLearner
from featbench.network import StageFilters, assemble, extract, half_precision, learn_stages, network_of
from featbench.preprocess import Preprocessing, map_shape, preprocess, preprocess_one
from featbench.refine import refine
from featbench.registry import Registry
from featbench.scoring import compute_score
from featbench.seeds import derive_seed
from featbench.split import draw_split
from featbench.types import Features, FloatArray, Images, IntArray, Score, Seconds, Split

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is finished, and out of how much."""

Part = Literal["all", "train", "test"]
"""Which images of a draw are extracted together."""


@dataclass(frozen=True)
class Outcome:
    """What running a cell gave."""

    score: Score
    predictions: IntArray
    seconds: Seconds
    report: dict[str, Any]


def run_cell(cell: Cell, steps: Steps) -> Outcome:
    """Run a cell. The classifier and refinement see training images alone; test labels reach the scorer only."""
    images, maps = steps.images(cell)
    split = steps.split(cell, images)
    network, learning = steps.learn(cell, split, maps)
    refinement, refining = None, 0.0
    if cell.regime.refined:
        refinement, refining = steps.refine(cell, split, network, maps, images)
    features, extracting = steps.features(cell, split, network, maps)
    predictor, classifying = steps.classify(cell, split, features, images)
    predictions = predictor.predict(features.test)
    score = compute_score(cell.metric, predictions, images.labels[split.test], len(images.classes))
    report = {**predictor.report, **({"refinement": refinement} if refinement else {})}
    return Outcome(score, predictions, Seconds(learning, refining, extracting, classifying), report)


class Steps:
    """The steps of a cell, computed plainly; `CachedSteps` keeps what they give. Times are in seconds."""

    def __init__(self, registry: Registry, data_dir: Path | None, progress: Progress | None = None) -> None:
        self.registry, self.data_dir = registry, data_dir
        self.progress: Progress = progress or (lambda *_: None)
        self._images: dict[tuple[str, Preprocessing], tuple[Images, Tensor]] = {}

    def images(self, cell: Cell) -> tuple[Images, Tensor]:
        """Load the data set and preprocess it: images, and their maps [n, 1, height, width]."""
        return self.load(cell.dataset, cell.preprocessing)

    def load(self, dataset: str, preprocessing: Preprocessing) -> tuple[Images, Tensor]:
        """Load and preprocess a data set once; the one before it is let go."""
        key = (dataset, preprocessing)
        if key not in self._images:
            self.progress("loading", 0, 1)
            with reading(dataset):
                images = check_images(dataset, self.registry.dataset(dataset).load(self.data_dir))
            with blaming(f"data set {dataset}"):
                self._images = {key: (images, preprocess(images.pixels, preprocessing))}
        return self._images[key]

    def split(self, cell: Cell, images: Images) -> Split:
        """Draw training, validation and test images."""
        return draw_split(
            images,
            train_per_class=cell.train_per_class,
            validation_fraction=cell.validation_fraction,
            test=cell.test,
            seed=cell.seed,
            draw=cell.draw,
        )

    def learn(self, cell: Cell, split: Split, maps: Tensor) -> tuple[nn.Module, float]:
        """Build the cell's network: its filters drawn, designed, or learned without labels."""
        learner = self.registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
        if isinstance(learner, NetworkLearner):
            source, device = self._seen_images(cell, split, maps), torch.device(cell.device)
            clock = Clock(device)
            return network_of(learner, map_shape(maps), source, seed=cell.seed, device=device), clock.seconds()
        assert isinstance(learner, FilterLearner)  # the registry admits no third kind
        stages, seconds = self.learn_filters(cell, split, learner, maps)
        return assemble(Architecture.parse(cell.architecture), learner, map_shape(maps), stages), seconds

    def learn_filters(
        self, cell: Cell, split: Split, learner: FilterLearner, maps: Tensor
    ) -> tuple[list[StageFilters], float]:
        """Get the filters of every stage."""
        self.progress("learning filters", 0, 1)
        source, device = self._seen_images(cell, split, maps), torch.device(cell.device)
        clock = Clock(device)
        architecture = Architecture.parse(cell.architecture)
        stages = learn_stages(architecture, learner, map_shape(maps), source, seed=cell.seed, device=device)
        return stages, clock.seconds()

    def refine(
        self, cell: Cell, split: Split, network: nn.Module, maps: Tensor, images: Images
    ) -> tuple[dict[str, Any], float]:
        """Refine the network in place with the labels of the training images; returns what was done."""
        device = torch.device(cell.device)
        clock = Clock(device)
        report = refine(
            network,
            maps[split.train],
            images.labels[split.train],
            split.validation,
            classes=len(images.classes),
            seed=derive_seed(cell.seed, "refine", cell.draw),
            device=device,
            progress=lambda done, total: self.progress("refining, epoch", done, total),
        )
        return report, clock.seconds()

    def features(self, cell: Cell, split: Split, network: nn.Module, maps: Tensor) -> tuple[Features, float]:
        """Extract features; all images at once where those that do not train test, so that draws can share them."""
        if cell.test == "rest":
            everything, seconds = self.extract(cell, split, "all", network, maps)
            return Features(everything[split.train], everything[split.test]), seconds
        train, train_seconds = self.extract(cell, split, "train", network, maps)
        test, test_seconds = self.extract(cell, split, "test", network, maps)
        return Features(train, test), train_seconds + test_seconds

    def extract(
        self, cell: Cell, split: Split, part: Part, network: nn.Module, maps: Tensor
    ) -> tuple[FloatArray, float]:
        """Extract the features [n, d] of one part of the draw, in half precision where that is harmless."""
        chosen = maps if part == "all" else maps[split.train if part == "train" else split.test]
        device = torch.device(cell.device)
        clock = Clock(device)
        features = extract(network, chosen, device, lambda done, total: self.progress("extracting, image", done, total))
        return half_precision(features), clock.seconds()

    def classify(self, cell: Cell, split: Split, features: Features, images: Images) -> tuple[Predictor, float]:
        """Train the classifier on the training images."""
        self.progress("training the classifier", 0, 1)
        clock = Clock(torch.device("cpu"))
        predictor = self.registry.classifier(cell.classifier).fit(
            features.train,
            images.labels[split.train],
            split.validation,
            len(images.classes),
            derive_seed(cell.seed, "classify", cell.draw),
        )
        return predictor, clock.seconds()

    def _seen_images(self, cell: Cell, split: Split, maps: Tensor) -> Tensor | Sequence[Tensor] | None:
        """Return what filters are learned on, if they are: the draw's training images, or the unlabelled folder."""
        if not cell.regime.learned:
            return None
        if cell.unlabelled is None:
            return maps[split.train]
        return unlabelled_maps(Path(cell.unlabelled), cell.preprocessing)


def unlabelled_maps(folder: Path, preprocessing: Preprocessing) -> list[Tensor]:
    """Return the maps [1, 1, height, width] of a folder's images: their own size, otherwise preprocessed alike."""
    alike = replace(preprocessing, size=None, pad=False)
    maps = []
    for path in image_files(folder):
        with blaming(str(path)):
            maps.append(preprocess_one(read_image(path), alike))
    return maps
