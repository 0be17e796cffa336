"""Run one cell, from images to a score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from featbench.architecture import Architecture
from featbench.cell import Cell
from featbench.clock import Clock
from featbench.dataset import blaming, check_images, reading
from featbench.descent import Checkpoint, NoCheckpoint
from featbench.extraction import HalfPrecisionError, feature_blocks, in_half_precision
from featbench.images import ImageFiles, image_files
from featbench.learner import FilterLearner, NetworkLearner
from featbench.network import StageFilters, assemble, learn_stages, network_of
from featbench.parameters import Choice
from featbench.prepare import PackedImages, prepare
from featbench.preprocess import JoinedMaps, Maps, Preprocessing, map_shape, maps_of
from featbench.refine import refine
from featbench.registry import Registry
from featbench.scoring import compute_score
from featbench.seeds import derive_seed
from featbench.split import draw_split
from featbench.training import Classified, Training, train
from featbench.types import Extracted, Features, FloatArray, Images, IntArray, Pixels, Score, Seconds, Split

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is finished, and out of how much."""

Part = Literal["all", "train", "test"]
"""Which images of a draw are extracted together."""


TRAINING = "training+"
"""What stands before the name of unlabelled images that are seen besides the training images."""


@dataclass(frozen=True)
class Outcome:
    """What running a cell gave."""

    score: Score
    predictions: IntArray
    seconds: Seconds
    report: dict[str, Any]


def run_cell(cell: Cell, steps: Steps) -> Outcome:
    """Run a cell. The classifier and refinement see training images alone; test labels reach the scorer only."""
    images, maps = steps.load(cell.dataset, cell.preprocessing)
    split = steps.split(cell, images)
    learners = cell.learner.alternatives()
    rate = len(learners) > 1
    trained = [_train(replace(cell, learner=learner), steps, split, images, maps, rate) for learner in learners]
    best = max(trained, key=lambda one: float(one.classified.report.get("validation_accuracy", 0)))
    predictions = best.classified.predict(best.features.test)
    score = compute_score(cell.metric, predictions, images.labels[split.test], len(images.classes))
    report = {
        **best.classified.report,
        **({"refinement": best.refinement} if best.refinement else {}),
        **({"learner": str(best.cell.learner)} if len(trained) > 1 else {}),
        **({"images_left_out": len(images.left_out)} if images.left_out else {}),
    }
    return Outcome(score, predictions, _total(one.seconds for one in trained), report)


@dataclass(frozen=True)
class _Trained:
    """A cell up to its classifier."""

    cell: Cell
    features: Features
    classified: Classified
    refinement: dict[str, Any] | None
    seconds: Seconds


def _train(cell: Cell, steps: Steps, split: Split, images: Images, maps: Maps, rate: bool) -> _Trained:
    network, learning = steps.learn(cell, split, maps)
    refinement, refining = None, 0.0
    if cell.regime.refined:
        network, refinement, refining = steps.refine(cell, split, network, maps, images)
    features, extracting = steps.features(cell, split, network, maps)
    classified, classifying = steps.classify(cell, split, features, images, rate)
    return _Trained(cell, features, classified, refinement, Seconds(learning, refining, extracting, classifying))


def _total(seconds: Iterable[Seconds]) -> Seconds:
    return Seconds(*(sum(parts) for parts in zip(*(astuple(one) for one in seconds), strict=True)))


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
        self._images: dict[tuple[str, Preprocessing], Images] = {}

    def load(self, dataset: str, preprocessing: Preprocessing) -> tuple[Images, Maps]:
        """Make a data set ready: its images, grey and at the protocol's size, and their maps."""
        images = self.prepared(dataset, preprocessing)
        assert isinstance(images.pixels, PackedImages)
        return images, Maps(images.pixels, preprocessing)

    def prepared(self, dataset: str, preprocessing: Preprocessing) -> Images:
        """Read a data set once; the one before it is let go."""
        key = (dataset, preprocessing)
        if key not in self._images:
            self._images = {key: self.prepare(dataset, preprocessing)}
        return self._images[key]

    def prepare(self, dataset: str, preprocessing: Preprocessing) -> Images:
        """Read a data set's images, grey and at one size."""
        self.progress("reading images", 0, 1)
        with reading(dataset):
            images = check_images(dataset, self.registry.dataset(dataset).load(self.data_dir))
        with blaming(f"data set {dataset}"):
            return prepare(
                images,
                preprocessing.size,
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

    def split(self, cell: Cell, images: Images) -> Split:
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
        self, cell: Cell, split: Split, network: nn.Module, maps: Maps, images: Images
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
        self, cell: Cell, split: Split, features: Features, images: Images, rate: bool = False
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


def joins_training(unlabelled: str) -> bool:
    """Whether filters are learned on training images besides the unlabelled ones: `training+PATH`."""
    return unlabelled.startswith(TRAINING)


def pool_name(unlabelled: str) -> str:
    """Return the folder or data set of unlabelled images alone."""
    return unlabelled.removeprefix(TRAINING)


def unlabelled_images(name: str, registry: Registry, data_dir: Path | None) -> Sequence[Pixels]:
    """Return the unlabelled images of a data set, or those of a folder."""
    if name in registry.names("datasets"):
        with reading(name):
            return registry.dataset(name).pool(data_dir)
    return ImageFiles(image_files(Path(name)))
