"""A row of a stored comparison becomes a model: what it was fitted to, tried on the images that it was tested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from featbench.comparison import Workbench
from featbench.data.maps import Maps, find_map_shape
from featbench.data.prepare import PreparedImages
from featbench.errors import ModelError
from featbench.execution.runner import Run
from featbench.execution.stored_comparison import StoredComparison, StoredRow
from featbench.experiment.cell import Cell
from featbench.features.extraction import FeatureBlock
from featbench.features.rows import Features
from featbench.learning.learner import FilterLearner
from featbench.learning.networks import assemble
from featbench.model.folder import Arrays
from featbench.model.loading import restore_model
from featbench.model.model import Model
from featbench.model.restoring import describe_files, list_plugins
from featbench.parameters import Choice
from featbench.stages.architecture import Architecture
from featbench.store.artifacts import pack_stages, read_weights
from featbench.store.provenance import find_versions
from featbench.types import IntArray, Split


def fit_model(
    workbench: Workbench, comparison: StoredComparison, row: StoredRow, draw: int
) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """Return the document and the arrays of a row as it was fitted on a draw.

    What the store holds is read, the rest is computed again. Raises `ModelError` unless the model predicts for the test
    images what the comparison did, and `UsageError` if the draw has no score.
    """
    run = row.find_run(draw)
    stored = _read_predictions(workbench, run)
    cell = _choose_learner(workbench, run)
    images, maps = workbench.steps.load(cell.dataset, cell.preprocessing)
    split = workbench.steps.split(cell, images)
    parts, features, document = _fit(workbench, cell, images, maps, split)
    document = {
        **_describe(workbench, comparison, row, run, images),
        **document,
        "shape": list(find_map_shape(maps)),
        "several_sizes": len(maps.sizes) > 1,
        "features": features.test.array.dtype.name,
    }
    code = [Path(one["path"]) for one in document["needs"] if one["path"].endswith(".py")]
    model = restore_model(document, parts, workbench.registry, code, "the model")
    _require_same(model, maps.select(split.test), stored, row.name)
    return document, parts


def _read_predictions(workbench: Workbench, run: Run) -> IntArray:
    """Return what the comparison predicted, if the present code and data would predict it as well."""
    if workbench.keys.for_cell(run.cell).result.hash != run.result.key:
        raise ModelError(
            f"{run.cell} was computed from other data or by other code than are here now: run the comparison again"
        )
    found = workbench.store.read_array("predictions", run.result.key)
    if found is None:
        raise ModelError(f"the predictions of {run.cell} are not in the store any more: run the comparison again")
    return np.asarray(found[0], dtype=np.int64)


def _choose_learner(workbench: Workbench, run: Run) -> Cell:
    """Return the cell with the learner that validation images decided for, where several were open."""
    if len(run.cell.learner.alternatives()) == 1:
        return run.cell
    chosen = Choice.read(str(run.result.report["learner"]))
    choice = workbench.registry.learner(chosen.name).choice(dict(chosen.parameters))
    return replace(run.cell, learner=choice)


def _fit(
    workbench: Workbench, cell: Cell, images: PreparedImages, maps: Maps, split: Split
) -> tuple[dict[str, Arrays], Features, dict[str, Any]]:
    """Return the arrays of a fitted cell, its features, and what the document says of learner and classifier."""
    steps, registry = workbench.steps, workbench.registry
    learner = registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
    parts: dict[str, Arrays] = {}
    if isinstance(learner, FilterLearner):
        stages, _ = steps.learn_filters(cell, split, learner, maps)
        parts["filters"] = _copy(pack_stages(stages))
        network = assemble(Architecture.parse(cell.architecture), learner, find_map_shape(maps), stages)
    else:
        network, _ = steps.learn(cell, split, maps)  # type: ignore[assignment]
        parts["start"] = _copy(read_weights(network))
    if cell.regime.refined:
        network, _, _ = steps.refine(cell, split, network, maps, images)  # type: ignore[assignment]
        parts["refined"] = _copy(read_weights(network))
    features, _ = steps.extract(cell, split, network, maps)
    classified, _ = steps.classify(cell, split, features, images)
    try:
        parts["classifier"] = _copy(classified.predictor.state())
    except NotImplementedError as error:
        raise ModelError(
            f"classifier {classified.name} cannot be exported: its predictor has no `state`; docs/plugins.md says what "
            "a plugin needs"
        ) from error
    fitted = replace(cell, classifier=classified.name)
    document = {
        "cell": fitted.describe(),
        "parameters": learner.parameters(),
        "classifier_report": _keep_plain(classified.report),
        "plugins": list_plugins(fitted, registry, workbench.keys),
        "needs": describe_files(fitted, registry),
    }
    return parts, features, document


def _describe(
    workbench: Workbench, comparison: StoredComparison, row: StoredRow, run: Run, images: PreparedImages
) -> dict[str, Any]:
    """Return where a model comes from."""
    assert run.result.score is not None  # a run that is ok has one
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": find_versions(),
        "row": row.name,
        "draw": run.cell.draw,
        "score": asdict(run.result.score),
        "comparison": comparison.key,
        "result": run.result.key,
        "dataset": run.cell.dataset,
        "fingerprint": workbench.keys.dataset(run.cell.dataset),
        "classes": list(images.classes),
    }


def _require_same(model: Model, maps: Maps, stored: IntArray, name: str) -> None:
    """Raise a `ModelError` unless the model predicts what the comparison did."""

    def compute() -> Iterator[FeatureBlock]:
        yield from model.compute_features(maps)

    predicted, _ = model.classify(compute())
    if not np.array_equal(predicted, stored):
        different = int((predicted != stored).sum()) if predicted.shape == stored.shape else len(stored)
        raise ModelError(
            f"the model of {name} predicts {different} of {len(stored)} test images otherwise than the comparison did, "
            "and is not written: its learner or its classifier is not the same function each time"
        )


def _copy(arrays: Mapping[str, Any]) -> Arrays:
    # Of weights that training goes on to change, or of a memory map.
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def _keep_plain(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in report.items()}
