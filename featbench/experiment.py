"""Run one cell, from images to a score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from featbench.architecture import Architecture
from featbench.cell import Cell
from featbench.classifier import Predictor
from featbench.clock import Clock
from featbench.dataset import blaming, check_images, reading
from featbench.errors import PluginError, UsageError
from featbench.images import ImageFiles, image_files
from featbench.learner import FilterLearner, NetworkLearner
from featbench.network import (
    HalfPrecisionError,
    StageFilters,
    assemble,
    feature_blocks,
    in_half_precision,
    learn_stages,
    network_of,
)
from featbench.prepare import PackedImages, prepare
from featbench.preprocess import JoinedMaps, Maps, Preprocessing, map_shape, maps_of
from featbench.refine import refine
from featbench.registry import Registry
from featbench.scoring import compute_score
from featbench.seeds import derive_seed
from featbench.split import draw_split
from featbench.types import Features, FloatArray, Images, IntArray, Pixels, Rows, Score, Seconds, Split

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
    trained = [
        _train(replace(cell, learner=learner), steps, split, images, maps) for learner in cell.learner.alternatives()
    ]
    best = trained[0] if len(trained) == 1 else _best(trained)
    predictions = np.concatenate([_predict(cell, best.predictor, block) for block in best.features.test.blocks()])
    score = compute_score(cell.metric, predictions, images.labels[split.test], len(images.classes))
    report = {
        **best.predictor.report,
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
    predictor: Predictor
    refinement: dict[str, Any] | None
    seconds: Seconds


def _train(cell: Cell, steps: Steps, split: Split, images: Images, maps: Maps) -> _Trained:
    network, learning = steps.learn(cell, split, maps)
    refinement, refining = None, 0.0
    if cell.regime.refined:
        refinement, refining = steps.refine(cell, split, network, maps, images)
    features, extracting = steps.features(cell, split, network, maps)
    predictor, classifying = steps.classify(cell, split, features, images)
    return _Trained(cell, features, predictor, refinement, Seconds(learning, refining, extracting, classifying))


def _best(trained: list[_Trained]) -> _Trained:
    """Return the one with the best accuracy on validation images, the first of equals."""
    for one in trained:
        if "validation_accuracy" not in one.predictor.report:
            raise UsageError(
                f"{one.cell.classifier} reports no validation_accuracy, which is to decide between the values of "
                f"{one.cell.learner.name}'s parameters: give one value each, or a classifier that validates"
            )
    return max(trained, key=lambda one: float(one.predictor.report["validation_accuracy"]))


def _total(seconds: Iterable[Seconds]) -> Seconds:
    return Seconds(*(sum(parts) for parts in zip(*(astuple(one) for one in seconds), strict=True)))


def _predict(cell: Cell, predictor: Predictor, features: FloatArray) -> IntArray:
    predictions = np.asarray(predictor.predict(features))
    if predictions.shape != (len(features),):
        raise PluginError(
            f"classifier {cell.classifier} gave predictions of shape {predictions.shape} for {len(features)} images"
        )
    return predictions


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
        with blaming(f"data set {dataset}"):
            maps = Maps(images.pixels, preprocessing)
            maps.require_one_size()
        return images, maps

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
            source, device = self._seen_images(cell, split, maps), torch.device(cell.device)
            clock = Clock(device)
            return network_of(learner, map_shape(maps), source, seed=cell.seed, device=device), clock.seconds()
        assert isinstance(learner, FilterLearner)  # the registry admits no third kind
        stages, seconds = self.learn_filters(cell, split, learner, maps)
        return assemble(Architecture.parse(cell.architecture), learner, map_shape(maps), stages), seconds

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

    def features(self, cell: Cell, split: Split, network: nn.Module, maps: Maps) -> tuple[Features, float]:
        """Extract features; all images at once where those that do not train test, so that draws can share them."""
        if cell.test == "rest":
            everything, seconds = self.extract(cell, split, "all", network, maps)
            return Features(Rows(everything, split.train), Rows(everything, split.test)), seconds
        train, train_seconds = self.extract(cell, split, "train", network, maps.select(split.train))
        test, test_seconds = self.extract(cell, split, "test", network, maps.select(split.test))
        every_row = (np.arange(len(features)) for features in (train, test))
        return Features(*map(Rows, (train, test), every_row)), train_seconds + test_seconds

    def extract(self, cell: Cell, split: Split, part: Part, network: nn.Module, maps: Maps) -> tuple[FloatArray, float]:
        """Extract the features [n, d] of one part of the draw, in half precision where that is harmless."""
        device = torch.device(cell.device)
        clock = Clock(device)

        def blocks() -> Iterator[FloatArray]:
            report = partial(self.progress, "extracting, image")
            return feature_blocks(network, maps, device, report)

        try:
            features = self.keep_features(cell, part, len(maps), in_half_precision(blocks()), clock)
        except HalfPrecisionError:
            features = self.keep_features(cell, part, len(maps), blocks(), clock)
        return features, clock.seconds()

    def keep_features(
        self, cell: Cell, part: Part, count: int, blocks: Iterator[FloatArray], clock: Clock
    ) -> FloatArray:
        """Gather the features of `count` images."""
        return np.concatenate(list(blocks))

    def classify(self, cell: Cell, split: Split, features: Features, images: Images) -> tuple[Predictor, float]:
        """Train the classifier on the training images."""
        self.progress("training the classifier", 0, 1)
        clock = Clock(torch.device("cpu"))
        predictor = self.registry.classifier(cell.classifier).fit(
            features.train.read(),
            images.labels[split.train],
            split.validation,
            len(images.classes),
            derive_seed(cell.seed, "classify", cell.draw),
        )
        return predictor, clock.seconds()

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
