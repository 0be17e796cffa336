"""A fitted pipeline as users hold it: images in, classes out, with the numbers of the comparison that it comes from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.classification.classifier import MapPredictor, Predictor
from featbench.data.maps import Maps
from featbench.data.prepare import prepare
from featbench.errors import DataError, FeatbenchError, PluginError
from featbench.features.extraction import FeatureBlock, compute_features
from featbench.features.rows import BLOCK_VALUES, Extracted
from featbench.model.inputs import NewImages, read_inputs
from featbench.model.restoring import Restored
from featbench.operations.fused_network import is_reentrant_class
from featbench.stages.architecture import Architecture
from featbench.system.threads import Workers
from featbench.types import FloatArray, Images, IntArray

log = logging.getLogger("featbench")

CHUNK = 256
"""Images that are read and computed together; each image has the same features in any company."""

Progress = Callable[[int, int], None]
"""Receives how many images are done, and out of how many."""


Chunk = tuple[int, int]
"""The positions of the first image of a chunk, and of the first one after it."""

Made = tuple[IntArray, list[FeatureBlock], tuple[str, ...]]
"""The positions of the images of a chunk that could be read, their features, and a line for each of the others."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of images.

    positions: [n], where each stands among those that were given. labels: [n] indices of classes. scores: [n, classes],
    or None where the classifier gives none. left_out: a line for each image that could not be read.
    """

    positions: IntArray
    labels: IntArray
    scores: FloatArray | None
    left_out: tuple[str, ...] = ()


class Model:
    """A row of a comparison as it was fitted on one draw: made by `featbench export`, read by `featbench.load`.

    Images are given as paths of files or folders, as an array [h, w] or [h, w, 3] of one image, as an array [n, h, w]
    or [n, h, w, 3], or as a list of paths or of arrays. An array [h, w, 3] is one image in colour.

    Parameters
    ----------
    document : dict
        What `model.json` holds; `docs/models.md` describes it.
    restored : object
        Its network and its classifier; `load` makes both from the model's folder.
    """

    def __init__(self, document: Mapping[str, Any], restored: Restored) -> None:
        self.document = dict(document)
        self.restored = restored
        self._half = document["features"] == "float16"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of scores."""
        return tuple(self.document["classes"])

    @property
    def measure(self) -> str:
        """What stands beside a predicted class: `probability`, `margin`, or nothing."""
        predictor = self.restored.classified.predictor
        if not gives_scores(predictor):
            return ""
        return "margin" if predictor.scores_are == "margins" else "probability"

    def predict(self, images: Any) -> NDArray[np.str_]:
        """Predict the class of each image.

        Parameters
        ----------
        images : str, Path, array, or list of them
            Images, in one of the forms that the class describes.

        Returns
        -------
        numpy.ndarray
            Names of classes, [n].

        Raises
        ------
        DataError
            If an image cannot be read, or has a size that the model does not take; the message names it.
        """
        return np.array(self.classes)[self.examine(read_inputs(images)).labels]

    @property
    def predict_proba(self) -> Callable[[Any], FloatArray]:
        """The probabilities of the classes, [n, classes], of images; missing where the classifier gives none."""
        if self.measure != "probability":
            raise AttributeError(f"{self.restored.cell.classifier} gives no probabilities")
        return lambda images: self.convert_scores(self._score(images))

    @property
    def decision_function(self) -> Callable[[Any], FloatArray]:
        """The margins or logits of the classes, [n, classes], of images; missing where the classifier gives none."""
        predictor = self.restored.classified.predictor
        if not gives_scores(predictor) or predictor.scores_are == "probabilities":
            raise AttributeError(f"{self.restored.cell.classifier} gives no margins")
        return self._score

    def _score(self, images: Any) -> FloatArray:
        scores = self.examine(read_inputs(images)).scores
        assert scores is not None  # asked before
        return scores

    def convert_scores(self, scores: FloatArray) -> FloatArray:
        """Return the scores [n, classes] as what `measure` says; -∞ for classes that are never predicted is kept."""
        if self.restored.classified.predictor.scores_are == "logits":
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return np.where(np.isneginf(scores), 0.0, scores) if self.measure == "probability" else scores

    def examine(self, inputs: NewImages, *, skip_bad: bool = False, progress: Progress | None = None) -> Predictions:
        """Return what the model says of images; `skip_bad` leaves out those that cannot be read, and says so."""
        count = len(inputs.names)
        chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        preprocessing = self.restored.cell.preprocessing

        def compute(chunk: Chunk) -> Made:
            start, end = chunk
            given = Images(inputs.select(start, end), np.zeros(end - start, dtype=np.int64), ("",))
            try:
                prepared = prepare(
                    given,
                    preprocessing.size,
                    channels=preprocessing.channels,
                    least=preprocessing.least,
                    skip_bad=skip_bad,
                )
            except DataError as error:
                if skip_bad:  # of this chunk not one image is left
                    return np.zeros(0, dtype=np.int64), [], (str(error),)
                raise
            positions = start + prepared.positions
            maps = Maps(prepared.pixels, preprocessing)
            self._require_sizes(maps, [inputs.names[int(position)] for position in positions])
            return positions, list(self.compute_features(maps)), prepared.left_out

        positions: list[IntArray] = []
        left_out: list[str] = []

        def blocks() -> Iterator[FeatureBlock]:
            for done, (found, made, bad) in zip(chunks, self._map_chunks(compute, chunks), strict=True):
                positions.append(found)
                left_out.extend(bad)
                yield from made
                if progress is not None:
                    progress(done[1], count)

        labels, scores = self.classify(blocks())
        if not len(labels):
            raise DataError(f"none of the {count} images can be read; the first: {left_out[0]}")
        return Predictions(np.concatenate(positions), labels, scores, tuple(left_out))

    def compute_features(self, maps: Maps) -> Iterator[FeatureBlock]:
        """Yield the features of maps, in the precision that those of the comparison were kept in."""
        cell, several = self.restored.cell, bool(self.document["several_sizes"])
        device = torch.device(cell.device)
        network = self.restored.network
        for block in compute_features(network, maps, device, several_sizes=several, precision=cell.precision):
            with np.errstate(over="ignore"):  # an infinity is refused by the classifier
                values = block.values.astype(np.float16) if self._half else block.values
            yield FeatureBlock(values, block.grids)

    def classify(self, blocks: Iterator[FeatureBlock]) -> tuple[IntArray, FloatArray | None]:
        """Return the labels and the scores of features; some blocks at a time, as large as those of a comparison."""
        labels: list[IntArray] = []
        scores: list[FloatArray] = []
        waiting: list[FeatureBlock] = []
        for block in blocks:
            waiting.append(block)
            if sum(one.values.size for one in waiting) >= BLOCK_VALUES:
                self._classify_some(waiting, labels, scores)
                waiting = []
        if waiting:
            self._classify_some(waiting, labels, scores)
        found = np.concatenate(labels) if labels else np.zeros(0, dtype=np.int64)
        return found, np.concatenate(scores) if scores else None

    def _classify_some(self, blocks: list[FeatureBlock], labels: list[IntArray], scores: list[FloatArray]) -> None:
        grids = [grid for block in blocks for grid in block.grids]
        extracted = Extracted.of(np.concatenate([block.values for block in blocks]), grids)
        features = extracted.take(np.arange(len(grids) or len(extracted.array)))
        classified = self.restored.classified
        predicted = np.asarray(classified.predict(features))
        if predicted.dtype.kind not in "iu" or (len(predicted) and not self._are_labels(predicted)):
            raise PluginError(f"classifier {classified.name} predicted values that are no indices of its classes")
        labels.append(predicted.astype(np.int64))
        if gives_scores(classified.predictor):
            scores.append(classified.scores(features, len(self.classes), "of predictions"))

    def _are_labels(self, predicted: IntArray) -> bool:
        return bool(predicted.min() >= 0 and predicted.max() < len(self.classes))

    def _require_sizes(self, maps: Maps, names: Sequence[str]) -> None:
        """Raise a `DataError` that names an image of a size that the model does not take."""
        channels, height, width = self.restored.shape
        for name, (rows, columns) in zip(names, maps.image_sizes.tolist(), strict=True):
            if not self.document["several_sizes"] and (rows, columns) != (height, width):
                raise DataError(f"{name} comes to {rows}×{columns} pixels, and the model takes {height}×{width} alone")
            if self.restored.cell.architecture and (rows, columns) != (height, width):
                try:
                    Architecture.parse(self.restored.cell.architecture).shapes((channels, rows, columns))
                except FeatbenchError as error:
                    raise DataError(f"{name} comes to {rows}×{columns} pixels: {error}") from error

    def _map_chunks(self, compute: Callable[[Chunk], Made], chunks: Sequence[Chunk]) -> Iterator[Made]:
        """Yield compute(chunk) of each chunk, computed with as many of torch's threads as the comparison had for it."""
        modules = self.restored.network.modules()
        if self.restored.cell.device == "cpu" and all(is_reentrant_class(type(module)) for module in modules):
            return Workers(torch.get_num_threads()).map(compute, chunks)
        # Nobody else may run the network meanwhile, so that each operation has all threads; the last bits of some
        # depend on how many these are.
        return map(compute, chunks)

    def __repr__(self) -> str:
        return f"Model({self.document['row']!r}, {len(self.classes)} classes)"


def gives_scores(predictor: Any) -> bool:
    """Whether a predictor overrides `scores`, which gives none by default."""
    return type(predictor).scores not in (Predictor.scores, MapPredictor.scores)
