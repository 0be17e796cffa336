"""The steps of a cell, from images to a classifier. `run_cell` puts them in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from featbench.classification.training import TrainedClassifier, TrainingData, train
from featbench.data.dataset import load_images, prefix_errors, wrap_errors
from featbench.data.maps import JoinedMaps, Maps, Preprocessing, find_map_shape
from featbench.data.prepare import PreparedImages, prepare
from featbench.errors import DataError
from featbench.evaluation.split import Census, Survey, draw_split
from featbench.evaluation.task import TASKS
from featbench.experiment.artifacts import Artifacts, Part, Weights
from featbench.experiment.cell import Cell
from featbench.experiment.unlabelled import describe_unused, find_unlabelled_images, get_pool_name, joins_training
from featbench.features.extraction import FeatureBlock, compute_features, keep_in_least_precision
from featbench.features.rows import Extracted, Features
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.networks import StageFilters, assemble, learn_network, learn_stages
from featbench.learning.trial import has_foreign_modules, try_network
from featbench.parameters import Choice
from featbench.refinement.classifier_layer import add_hidden_layer
from featbench.refinement.refine import refine
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.system.clock import Clock
from featbench.system.global_state import keep_global_state
from featbench.system.printable import make_printable
from featbench.system.seeds import derive_seed
from featbench.system.updates import watch_updates
from featbench.types import Images, Split

log = logging.getLogger("featbench")

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how much of it is finished, and out of how much."""


class Steps:
    """The steps of a cell. What `artifacts` already holds is read from there, and what is computed is kept there.

    Each step returns what it gives with the seconds that it took, whenever that was: a step that reads an artifact
    returns the seconds of its computation, so that a cell costs the same in every run.
    """

    def __init__(
        self,
        registry: Registry,
        data_dir: Path | None,
        *,
        artifacts: Artifacts | None = None,
        progress: Progress | None = None,
        skip_bad_images: bool = False,
    ) -> None:
        self.registry, self.data_dir, self.skip_bad_images = registry, data_dir, skip_bad_images
        self.artifacts = artifacts or Artifacts()
        self.progress: Progress = progress or (lambda *_: None)
        self._loaded: dict[tuple[str, Preprocessing], PreparedImages] = {}
        self._warned: set[str] = set()

    # Images.

    def survey(self, dataset: str, preprocessing: Preprocessing) -> Survey:
        """Return the sizes of a data set's maps and how many images it has; its images are read the first time only."""
        known = self.artifacts.read_survey(dataset, preprocessing)
        if known is None:
            images, maps = self.load(dataset, preprocessing)
            survey = Survey(maps.least, len(maps.sizes) == 1, Census.of(images))
            known = survey, images.left_out, images.warnings
            self.artifacts.write_survey(dataset, preprocessing, *known)
        survey, left_out, warnings = known
        self._require_whole(dataset, left_out)
        self._warn(dataset, left_out, warnings)
        return survey

    def load(self, dataset: str, preprocessing: Preprocessing) -> tuple[PreparedImages, Maps]:
        """Return the prepared images of a data set, and their maps; those asked for last stay in memory."""
        key = (dataset, preprocessing)
        if key not in self._loaded:
            # One data set at a time, since two might not fit into the memory.
            self._loaded = {key: self.find_images(dataset, preprocessing)}
        images = self._loaded[key]
        return images, Maps(images.pixels, preprocessing)

    def find_images(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages:
        """Return the prepared images of a data set from the artifacts, where they were kept, or from its own files."""
        images = self.artifacts.read_images(dataset, preprocessing)
        if images is None:
            images = self.read_dataset(dataset, preprocessing)
            self.artifacts.write_images(dataset, preprocessing, images)
        self._require_whole(dataset, images.left_out)
        self._warn(dataset, images.left_out, images.warnings)
        return images

    @keep_global_state()
    def read_dataset(self, dataset: str, preprocessing: Preprocessing) -> PreparedImages:
        """Read a data set from its own files, and prepare its images."""
        self.progress("reading images", 0, 1)
        images = load_images(dataset, self.registry.dataset(dataset), self.data_dir)
        with prefix_errors(f"data set {dataset}"):
            return self._prepare(images, preprocessing)

    def _prepare(self, images: Images, preprocessing: Preprocessing) -> PreparedImages:
        return prepare(
            images,
            preprocessing.size,
            channels=preprocessing.channels,
            least=preprocessing.least,
            skip_bad=self.skip_bad_images,
            progress=self.progress,
        )

    def _require_whole(self, dataset: str, left_out: Sequence[str]) -> None:
        """Refuse what an earlier run with --skip-bad-images left of a data set, unless this run asks for it too."""
        if left_out and not self.skip_bad_images:
            raise DataError(
                f"data set {dataset}: {len(left_out)} images cannot be used, the first: {left_out[0]}; mend or remove "
                "them, or leave them out with --skip-bad-images"
            )

    def _warn(self, dataset: str, left_out: Sequence[str], warnings: Sequence[str]) -> None:
        """Say once what of a data set is not used, and what is strange about it, wherever its images come from."""
        whose = f"data set {make_printable(dataset)}"
        if whose in self._warned:
            return
        lines, found = [f"left out: {line}" for line in left_out], self.registry.dataset(dataset)
        # A set with a known content is what others publish scores on, whatever is strange about it.
        if not found.content:
            with wrap_errors(dataset):
                lines += [*found.remarks(self.data_dir), *warnings]
        self._say_once(whose, lines)

    def _say_once(self, whose: str, lines: Sequence[str]) -> None:
        if whose not in self._warned:
            self._warned.add(whose)
            for line in lines:
                log.warning("%s: %s", whose, line)

    def warn_of_pool(self, unlabelled: str) -> None:
        """Say once what lies in a folder of unlabelled images and is not used."""
        lines = describe_unused(get_pool_name(unlabelled), self.registry)
        self._say_once(f"unlabelled images {make_printable(unlabelled)}", lines)

    def load_pool(self, unlabelled: str, preprocessing: Preprocessing) -> Maps:
        """Return the maps of unlabelled images, a folder's or a data set's: their own size, else treated alike."""
        pixels = find_unlabelled_images(unlabelled, self.registry, self.data_dir)
        images = Images(pixels, np.zeros(len(pixels), dtype=np.int64), ("",))
        whose = f"unlabelled images {make_printable(unlabelled)}"
        try:
            prepared = self._prepare(images, replace(preprocessing, size=None))
        except DataError as error:
            # Unlike the data set's own images, these are not read before cells run, and the store keeps what failed.
            raise DataError(f"{whose}: {error}\nA cell that failed is computed again with --retry") from error
        self._say_once(f"{whose}, read", [*(f"left out: {line}" for line in prepared.left_out), *prepared.warnings])
        return Maps(prepared.pixels, replace(preprocessing, size=None, pad=False))

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
            task=TASKS[cell.task],
        )

    # Networks.

    def learn(self, cell: Cell, split: Split, maps: Maps) -> tuple[nn.Module, float]:
        """Return the cell's network: its filters drawn, designed, or learned without labels."""
        learner = self.registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
        if isinstance(learner, NetworkLearner):
            return self.learn_network(cell, split, learner, maps)
        assert isinstance(learner, FilterLearner)  # the registry admits no third kind
        stages, seconds = self.learn_filters(cell, split, learner, maps)
        return assemble(Architecture.parse(cell.architecture), learner, find_map_shape(maps), stages), seconds

    def learn_network(self, cell: Cell, split: Split, learner: NetworkLearner, maps: Maps) -> tuple[nn.Module, float]:
        """Return the network of a learner that gives the whole extractor."""
        # Weights alone make no network: only a learner that can build one around them gets its own back.
        rebuilds = type(learner).rebuild is not NetworkLearner.rebuild
        if rebuilds and (found := self.artifacts.read_network(cell)):
            weights, seconds = found
            return learner.rebuild(find_map_shape(maps), weights), seconds
        self.progress("learning features", 0, 1)
        source, device = self._seen_images(cell, split, maps), torch.device(cell.device)
        clock = Clock(device)
        with watch_updates(self.progress):
            network = learn_network(learner, find_map_shape(maps), source, seed=cell.seed, device=device)
        seconds = clock.seconds()
        if rebuilds:
            self.artifacts.write_network(cell, network, seconds)
        return network, seconds

    def learn_filters(
        self, cell: Cell, split: Split, learner: FilterLearner, maps: Maps
    ) -> tuple[list[StageFilters], float]:
        """Return the filters of every stage; cells that refine them with labels share them with those that do not."""
        found = self.artifacts.read_filters(cell)
        if found is not None:
            return found
        self.progress("learning filters", 0, 1)
        source, device = self._seen_images(cell, split, maps), torch.device(cell.device)
        clock = Clock(device)
        architecture = Architecture.parse(cell.architecture)
        with watch_updates(self.progress):
            stages = learn_stages(architecture, learner, find_map_shape(maps), source, seed=cell.seed, device=device)
        seconds = clock.seconds()
        self.artifacts.write_filters(cell, stages, seconds)
        return stages, seconds

    def _seen_images(self, cell: Cell, split: Split, maps: Maps) -> Maps | JoinedMaps | None:
        """Return what filters are made from, if anything: the draw's own images, unlabelled ones, or both."""
        if not self.registry.learner(cell.learner.name).looks():
            return None
        training = maps.select(split.seen)
        if cell.unlabelled is None:
            return training
        pool = self.load_pool(get_pool_name(cell.unlabelled), cell.preprocessing)
        return JoinedMaps(training, pool) if joins_training(cell.unlabelled) else pool

    @keep_global_state()
    def refine(
        self, cell: Cell, split: Split, network: nn.Module, maps: Maps, images: PreparedImages
    ) -> tuple[nn.Module, dict[str, Any], float]:
        """Refine the network with the labels of the training images; returns it with a report of what was done."""
        found = self.artifacts.read_refined(cell)
        if found is not None:
            weights, report, seconds = found
            return set_refined_weights(network, weights, cell.refinement), report, seconds
        device = torch.device(cell.device)
        clock = Clock(device)
        refined, report = refine(
            network,
            maps[split.train],
            TASKS[cell.task].find_targets(images)[split.train],
            split.validation,
            classes=len(images.classes),
            seed=derive_seed(cell.seed, "refine", cell.draw),
            device=device,
            settings=cell.refinement,
            precision=cell.precision if device.type == "cuda" else "float32",
            progress=self.progress,
            checkpoint=self.artifacts.checkpoint(cell),
        )
        if has_foreign_modules(refined):
            try_network(f"the refined network of {cell.learner}", refined, find_map_shape(maps), device)
        # A run that was killed has spent its seconds too: its checkpoint remembers them.
        seconds = clock.seconds() + report.pop("seconds_before", 0.0)
        self.artifacts.write_refined(cell, refined, report, seconds)
        return refined, report, seconds

    # Features and classifier.

    def extract(self, cell: Cell, split: Split, network: nn.Module, maps: Maps) -> tuple[Features, float]:
        """Return the features of the training and the test images."""
        if cell.test != "fixed":
            # All images train or test in some draw: extracted together, they serve every draw.
            everything, seconds = self.extract_part(cell, "all", network, maps)
            return Features(everything.take(split.train), everything.take(split.test)), seconds
        train, train_seconds = self.extract_part(cell, "train", network, maps.select(split.train))
        test, test_seconds = self.extract_part(cell, "test", network, maps.select(split.test))
        taken = (part.take(np.arange(len(chosen))) for part, chosen in ((train, split.train), (test, split.test)))
        return Features(*taken), train_seconds + test_seconds

    @keep_global_state()
    def extract_part(self, cell: Cell, part: Part, network: nn.Module, maps: Maps) -> tuple[Extracted, float]:
        """Return the features of one part of the draw, in half precision where that is harmless."""
        found = self.artifacts.read_features(cell, part)
        if found is not None:
            return found
        device = torch.device(cell.device)
        clock = Clock(device)
        report = partial(self.progress, "extracting, image")
        several = len(maps.sizes) > 1

        def compute() -> Iterator[FeatureBlock]:
            return compute_features(network, maps, device, report, several_sizes=several, precision=cell.precision)

        def keep(blocks: Iterator[FeatureBlock]) -> tuple[Extracted, float]:
            return self.artifacts.write_features(cell, part, blocks, clock.seconds)

        return keep_in_least_precision(compute, keep)

    def classify(
        self, cell: Cell, split: Split, features: Features, images: PreparedImages, rate: bool = False
    ) -> tuple[TrainedClassifier, float]:
        """Train the classifier on the training images; `rate` asks for its accuracy on those that validate."""
        self.progress("training the classifier", 0, 1)
        clock = Clock(torch.device(cell.device))
        names = [str(choice) for choice in Choice.read(cell.classifier).alternatives()]
        classifiers = {name: self.registry.classifier(name).on(cell.device) for name in names}
        seed = derive_seed(cell.seed, "classify", cell.draw)
        labels = TASKS[cell.task].find_targets(images)[split.train]
        training = TrainingData(features.train, labels, split.validation, len(images.classes), seed)
        return train(classifiers, training, rate=rate), clock.seconds()


def set_refined_weights(network: nn.Module, weights: Weights, refinement: Refinement | None) -> nn.Module:
    """Give a network that was not refined the weights of its refinement."""
    if refinement is not None and refinement.hidden:
        # Refinement set a layer on the network, as the second of two modules; its weights are overwritten at once.
        network = add_hidden_layer(network, weights["1.weight"].shape[1], refinement.hidden, 0)
    network.load_state_dict(weights)
    return network
