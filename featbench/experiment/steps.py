"""Run one cell, from images to a score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from featbench.classification.training import Classified, Training, train
from featbench.data.dataset import blaming, check_images, reading
from featbench.data.maps import JoinedMaps, Maps, Preprocessing, map_shape, maps_of
from featbench.data.prepare import PreparedImages, prepare
from featbench.evaluation.split import draw_split
from featbench.experiment.cell import Cell
from featbench.experiment.unlabelled import joins_training, pool_name, unlabelled_images
from featbench.features.extraction import HalfPrecisionError, feature_blocks, in_half_precision
from featbench.features.rows import Extracted, Features
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.networks import StageFilters, assemble, learn_stages, network_of
from featbench.parameters import Choice
from featbench.refinement.descent import Checkpoint, NoCheckpoint
from featbench.refinement.refine import refine
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.system.clock import Clock
from featbench.system.seeds import derive_seed
from featbench.types import FloatArray, Split

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is finished, and out of how much."""

Part = Literal["all", "train", "test"]
"""Which images of a draw are extracted together."""


class Steps:
    """The steps of a cell, computed plainly; `CachedSteps` keeps what they give. Times are in seconds."""

    def __init__(
        self,
        registry: Registry,
        data_dir: Path | None,
        progress: Progress | None = None,
        *,
        skip_bad_images: bool = False,
    ) -> None:
        self.registry, self.data_dir, self.skip_bad_images = registry, data_dir, skip_bad_images
        self.progress: Progress = progress or (lambda *_: None)
        self._images: dict[tuple[str, Preprocessing], PreparedImages] = {}

    def load(self, dataset: str, preprocessing: Preprocessing) -> tuple[PreparedImages, Maps]:
        """Make a data set ready: its images, grey and at the protocol's size, and their maps."""
        images = self.prepared(dataset, preprocessing)
        return images, Maps(images.pixels, preprocessing)

    def prepared(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages:
        """Read a data set once; the one before it is let go."""
        key = (dataset, preprocessing)
        if key not in self._images:
            self._images = {key: self.prepare(dataset, preprocessing)}
        return self._images[key]

    def prepare(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages:
        """Read a data set's images, grey and at one size."""
        self.progress("reading images", 0, 1)
        with reading(dataset):
            images = check_images(dataset, self.registry.dataset(dataset).load(self.data_dir))
        with blaming(f"data set {dataset}"):
            return prepare(
                images,
                preprocessing.size,
                channels=preprocessing.channels,
                least=preprocessing.least,
                skip_bad=self.skip_bad_images,
                progress=self.progress,
            )

    def pool(self, unlabelled: str, preprocessing: Preprocessing) -> Maps:
        """Return the maps of unlabelled images, a folder's or a data set's: their own size, else treated alike."""
        alike = replace(preprocessing, size=None, pad=False)
        images = unlabelled_images(unlabelled, self.registry, self.data_dir)
        with blaming(f"unlabelled images {unlabelled}"):
            return maps_of(images, alike)

    def split(self, cell: Cell, images: PreparedImages) -> Split:
        """Draw training, validation and test images."""
        return draw_split(
            images,
            train_per_class=cell.train_per_class,
            test_per_class=cell.test_per_class,
            validation_fraction=cell.validation_fraction,
            test=cell.test,
            seed=cell.seed,
            draw=cell.draw,
        )

    def learn(self, cell: Cell, split: Split, maps: Maps) -> tuple[nn.Module, float]:
        """Build the cell's network: its filters drawn, designed, or learned without labels."""
        learner = self.registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
        if isinstance(learner, NetworkLearner):
            return self.learn_network(cell, split, learner, maps)
        assert isinstance(learner, FilterLearner)  # the registry admits no third kind
        stages, seconds = self.learn_filters(cell, split, learner, maps)
        return assemble(Architecture.parse(cell.architecture), learner, map_shape(maps), stages), seconds

    def learn_network(self, cell: Cell, split: Split, learner: NetworkLearner, maps: Maps) -> tuple[nn.Module, float]:
        """Get the network of a learner that gives the whole extractor."""
        self.progress("learning features", 0, 1)
        source, device = self._seen_images(cell, split, maps), torch.device(cell.device)
        clock = Clock(device)
        return network_of(learner, map_shape(maps), source, seed=cell.seed, device=device), clock.seconds()

    def learn_filters(
        self, cell: Cell, split: Split, learner: FilterLearner, maps: Maps
    ) -> tuple[list[StageFilters], float]:
        """Get the filters of every stage."""
        self.progress("learning filters", 0, 1)
        source, device = self._seen_images(cell, split, maps), torch.device(cell.device)
        clock = Clock(device)
        architecture = Architecture.parse(cell.architecture)
        stages = learn_stages(architecture, learner, map_shape(maps), source, seed=cell.seed, device=device)
        return stages, clock.seconds()

    def refine(
        self, cell: Cell, split: Split, network: nn.Module, maps: Maps, images: PreparedImages
    ) -> tuple[nn.Module, dict[str, Any], float]:
        """Refine the network with the labels of the training images; returns it with what was done."""
        device = torch.device(cell.device)
        clock = Clock(device)
        refined, report = refine(
            network,
            maps[split.train],
            images.labels[split.train],
            split.validation,
            classes=len(images.classes),
            seed=derive_seed(cell.seed, "refine", cell.draw),
            device=device,
            settings=cell.refinement,
            precision=cell.precision if device.type == "cuda" else "float32",
            progress=self.progress,
            checkpoint=self.checkpoint(cell),
        )
        return refined, report, clock.seconds() + report.pop("seconds_before", 0.0)

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """Return where a refinement is kept while it lasts."""
        return NoCheckpoint()

    def features(self, cell: Cell, split: Split, network: nn.Module, maps: Maps) -> tuple[Features, float]:
        """Extract features; all images at once where those that do not train test, so that draws can share them."""
        if cell.test == "rest":
            everything, seconds = self.extract(cell, split, "all", network, maps)
            return Features(everything.take(split.train), everything.take(split.test)), seconds
        train, train_seconds = self.extract(cell, split, "train", network, maps.select(split.train))
        test, test_seconds = self.extract(cell, split, "test", network, maps.select(split.test))
        taken = (part.take(np.arange(len(chosen))) for part, chosen in ((train, split.train), (test, split.test)))
        return Features(*taken), train_seconds + test_seconds

    def extract(self, cell: Cell, split: Split, part: Part, network: nn.Module, maps: Maps) -> tuple[Extracted, float]:
        """Extract the features of one part of the draw, in half precision where that is harmless."""
        device = torch.device(cell.device)
        clock = Clock(device)
        one_size = len(maps.sizes) == 1
        report = partial(self.progress, "extracting, image")
        for precision in (in_half_precision, iter):
            grids: list[tuple[int, int]] = []
            blocks = feature_blocks(network, maps, device, report, None if one_size else grids, cell.precision)
            with suppress(HalfPrecisionError):
                return self.keep_features(cell, part, precision(blocks), grids, clock), clock.seconds()
        raise AssertionError("full precision is never refused")

    def keep_features(
        self, cell: Cell, part: Part, blocks: Iterator[FloatArray], grids: list[tuple[int, int]], clock: Clock
    ) -> Extracted:
        """Gather the features of images; `grids` fills as the blocks come."""
        array = np.concatenate(list(blocks))
        return Extracted.of(array, grids)

    def classify(
        self, cell: Cell, split: Split, features: Features, images: PreparedImages, rate: bool = False
    ) -> tuple[Classified, float]:
        """Train the classifier on the training images; `rate` asks for its accuracy on those that validate."""
        self.progress("training the classifier", 0, 1)
        clock = Clock(torch.device(cell.device))
        names = [str(choice) for choice in Choice.read(cell.classifier).alternatives()]
        classifiers = {name: self.registry.classifier(name).on(cell.device) for name in names}
        seed = derive_seed(cell.seed, "classify", cell.draw)
        labels = images.labels[split.train]
        training = Training(features.train, labels, split.validation, len(images.classes), seed)
        return train(classifiers, training, rate=rate), clock.seconds()

    def _seen_images(self, cell: Cell, split: Split, maps: Maps) -> Maps | JoinedMaps | None:
        """Return what filters are made from, if anything: the draw's training images, unlabelled ones, or both."""
        if not self.registry.learner(cell.learner.name).looks():
            return None
        training = maps.select(split.train)
        if cell.unlabelled is None:
            return training
        pool = self.pool(pool_name(cell.unlabelled), cell.preprocessing)
        return JoinedMaps(training, pool) if joins_training(cell.unlabelled) else pool
