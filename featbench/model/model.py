"""A fitted pipeline as users hold it: images in, classes out, with the numbers of the comparison that it comes from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.classification.classifier import MapPredictor, Predictor
from featbench.data.maps import Maps
from featbench.data.prepare import prepare
from featbench.devices.selection import resolve_device
from featbench.errors import DataError, FeatbenchError, ModelError, PluginError
from featbench.features.extraction import FeatureBlock, compute_features
from featbench.features.rows import BLOCK_VALUES, Extracted
from featbench.model.folder import read_model
from featbench.model.inputs import NewImages, read_inputs
from featbench.model.restoring import Restored, explain_damage, restore
from featbench.operations.fused_network import is_reentrant_class
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.store.provenance import find_versions
from featbench.system.printable import make_printable
from featbench.system.threads import Workers
from featbench.system.user_files import expand_user
from featbench.types import FloatArray, Images, IntArray

log = logging.getLogger("featbench")

CHUNK = 256
"""Images that are read and computed together; each image has the same features in any company."""

Progress = Callable[[int, int], None]
"""Receives how many images are done, and out of how many."""


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
        self._restored = restored
        self._half = document["features"] == "float16"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of scores."""
        return tuple(self.document["classes"])

    @property
    def measure(self) -> str:
        """What stands beside a predicted class: `probability`, `margin`, or nothing."""
        predictor = self._restored.classified.predictor
        if not _gives_scores(predictor):
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
            raise AttributeError(f"{self._restored.cell.classifier} gives no probabilities")
        return lambda images: self.convert_scores(self._score(images))

    @property
    def decision_function(self) -> Callable[[Any], FloatArray]:
        """The margins or logits of the classes, [n, classes], of images; missing where the classifier gives none."""
        predictor = self._restored.classified.predictor
        if not _gives_scores(predictor) or predictor.scores_are == "probabilities":
            raise AttributeError(f"{self._restored.cell.classifier} gives no margins")
        return self._score

    def _score(self, images: Any) -> FloatArray:
        scores = self.examine(read_inputs(images)).scores
        assert scores is not None  # asked before
        return scores

    def convert_scores(self, scores: FloatArray) -> FloatArray:
        """Return the scores [n, classes] as what `measure` says; -∞ for classes that are never predicted is kept."""
        if self._restored.classified.predictor.scores_are == "logits":
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return np.where(np.isneginf(scores), 0.0, scores) if self.measure == "probability" else scores

    def examine(self, inputs: NewImages, *, skip_bad: bool = False, progress: Progress | None = None) -> Predictions:
        """Return what the model says of images; `skip_bad` leaves out those that cannot be read, and says so."""
        count = len(inputs.names)
        chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        preprocessing = self._restored.cell.preprocessing

        def compute(chunk: tuple[int, int]) -> tuple[IntArray, list[FeatureBlock], tuple[str, ...]]:
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
            for done, (found, made, bad) in zip(chunks, self._make_workers().map(compute, chunks), strict=True):
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
        cell, several = self._restored.cell, bool(self.document["several_sizes"])
        device = torch.device(cell.device)
        network = self._restored.network
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
        classified = self._restored.classified
        predicted = np.asarray(classified.predict(features))
        if predicted.dtype.kind not in "iu" or (len(predicted) and not self._are_labels(predicted)):
            raise PluginError(f"classifier {classified.name} predicted values that are no indices of its classes")
        labels.append(predicted.astype(np.int64))
        if _gives_scores(classified.predictor):
            scores.append(classified.scores(features, len(self.classes), "of predictions"))

    def _are_labels(self, predicted: IntArray) -> bool:
        return bool(predicted.min() >= 0 and predicted.max() < len(self.classes))

    def _require_sizes(self, maps: Maps, names: Sequence[str]) -> None:
        """Raise a `DataError` that names an image of a size that the model does not take."""
        channels, height, width = self._restored.shape
        for name, (rows, columns) in zip(names, maps.image_sizes.tolist(), strict=True):
            if not self.document["several_sizes"] and (rows, columns) != (height, width):
                raise DataError(f"{name} comes to {rows}×{columns} pixels, and the model takes {height}×{width} alone")
            if self._restored.cell.architecture and (rows, columns) != (height, width):
                try:
                    Architecture.parse(self._restored.cell.architecture).shapes((channels, rows, columns))
                except FeatbenchError as error:
                    raise DataError(f"{name} comes to {rows}×{columns} pixels: {error}") from error

    def _make_workers(self) -> Workers:
        """Return threads of one torch thread each: as many as cores where they may share the network."""
        modules = self._restored.network.modules()
        several = self._restored.cell.device == "cpu" and all(is_reentrant_class(type(module)) for module in modules)
        return Workers(torch.get_num_threads() if several else 1)

    def __repr__(self) -> str:
        return f"Model({self.document['row']!r}, {len(self.classes)} classes)"


def load(path: str | Path, *, plugins: Sequence[str | Path | object] = (), code: Sequence[str | Path] = ()) -> Model:
    """Read a model that `featbench export` wrote.

    No code in the folder is run, and nothing else than its JSON and its arrays is read.

    Parameters
    ----------
    path : str or Path
        The folder of the model.
    plugins : Sequence of str, Path or object, default ()
        Plugins that the model needs, as `featbench.compare` takes them.
    code : Sequence of str or Path, default ()
        Python files that the model needs: that of `module(file=…)`. They are run.

    Returns
    -------
    Model
        The fitted pipeline.

    Raises
    ------
    ModelError
        If there is no model, it is damaged or was changed, its format is newer, or a plugin or a file is missing.

    Examples
    --------
    >>> model = featbench.load("model")  # doctest: +SKIP
    >>> model.predict("photos/new.jpg")  # doctest: +SKIP
    """
    folder = expand_user(path)
    document, parts = read_model(folder)
    registry = Registry([plugins] if isinstance(plugins, str | Path) else plugins)
    files = [expand_user(one) for one in ([code] if isinstance(code, str | Path) else code)]
    return restore_model(document, parts, registry, files, make_printable(folder))


def restore_model(
    document: Mapping[str, Any], parts: Mapping[str, Any], registry: Registry, code: Sequence[Path], shown: str
) -> Model:
    """Return the model of a document and its arrays; raises `ModelError` that names the folder if they do not fit."""
    try:
        restored = restore(document, parts, registry, code)
        _require_classes(document["classes"])
        model = Model(document, restored)
        _try_model(model)
    except (ModelError, PluginError):
        raise
    except Exception as error:  # of whatever kind a part is that does not fit
        raise explain_damage(shown, error) from error
    resolve_device(restored.cell.device)  # one that is not there is an error of its own
    written = document["versions"]
    changed = [f"{name} {written[name]} (here {now})" for name, now in find_versions().items() if written[name] != now]
    if changed:
        log.warning(
            "%s was exported with other versions, so that last digits may differ: %s", shown, ", ".join(changed)
        )
    return model


def _require_classes(classes: object) -> None:
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ModelError("the model is damaged: its classes are no list of names")


def _try_model(model: Model) -> None:
    """Score features of zeros, as many as the network gives: what does not fit together raises an error here."""
    restored = model._restored
    if restored.cell.device != "cpu":
        return
    with torch.no_grad():
        made = restored.network.eval()(torch.zeros(1, *restored.shape)).numpy()
    several = bool(model.document["several_sizes"]) and made.ndim == 4
    values = made[0].reshape(len(made[0]), -1).T if several else made
    grids = ((made.shape[2], made.shape[3]),) if several else ()
    _, scores = model.classify(iter([FeatureBlock(np.zeros_like(values), grids)]))
    if scores is not None and scores.shape[1] != len(model.classes):
        raise ModelError("the model is damaged: its classifier has other classes")


def _gives_scores(predictor: Any) -> bool:
    """Whether a predictor overrides `scores`, which gives none by default."""
    return type(predictor).scores not in (Predictor.scores, MapPredictor.scores)
