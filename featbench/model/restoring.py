"""A network and a classifier rebuilt from the document and the arrays of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featbench.classification.training import TrainedClassifier
from featbench.errors import FeatbenchError, ModelError
from featbench.experiment.cell import Cell
from featbench.experiment.steps import set_refined_weights
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.networks import assemble, learn_network
from featbench.model.folder import Arrays
from featbench.parameters import Choice
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.stages.specs import Shape
from featbench.store.artifacts import make_tensors, unpack_stages
from featbench.store.keys import Keys
from featbench.system.hashing import file_hash
from featbench.system.printable import make_printable

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Restored:
    """What a model computes with: the cell that it was, its network and its classifier."""

    cell: Cell
    network: nn.Module
    classified: TrainedClassifier
    shape: Shape


def restore(
    document: Mapping[str, Any], parts: Mapping[str, Arrays], registry: Registry, code: Sequence[Path]
) -> Restored:
    """Rebuild what a model computes with; raises `ModelError` for what is missing or does not fit together."""
    require_plugins(document["plugins"], registry)
    cell = Cell.restore(document["cell"])
    if cell.learner.alternatives() != [cell.learner]:
        raise ModelError("the model is damaged: its learner leaves parameters open")
    cell = replace(cell, learner=_find_files(cell.learner, document["needs"], code))
    channels, height, width = (int(side) for side in document["shape"])
    shape = (channels, height, width)
    network = rebuild_network(cell, parts, registry, shape)
    try:
        predictor = registry.classifier(cell.classifier).restore(parts["classifier"])
    except NotImplementedError as error:
        raise ModelError(f"classifier {cell.classifier} has no `restore`: its rows cannot be exported") from error
    return Restored(cell, network, TrainedClassifier(cell.classifier, predictor, {}), shape)


def rebuild_network(cell: Cell, parts: Mapping[str, Arrays], registry: Registry, shape: Shape) -> nn.Module:
    """Rebuild a cell's network from its arrays, on the CPU."""
    learner = registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
    if isinstance(learner, FilterLearner):
        stages = unpack_stages(parts["filters"])
        network: nn.Module = assemble(Architecture.parse(cell.architecture), learner, shape, stages)
    else:
        assert isinstance(learner, NetworkLearner)  # the registry admits no third kind
        weights = make_tensors(parts["start"])
        if type(learner).rebuild is not NetworkLearner.rebuild:
            network = learner.rebuild(shape, weights)
        elif not learner.looks():
            # What looks at no image is made of its parameters, the shape and the seed alone.
            network = learn_network(learner, shape, None, seed=cell.seed, device=CPU)
            network.load_state_dict(weights)
        else:
            raise ModelError(f"learner {learner.name} has no `rebuild`: its rows cannot be exported")
    if cell.regime.refined:
        network = set_refined_weights(network, make_tensors(parts["refined"]), cell.refinement)
    return network


def list_plugins(cell: Cell, registry: Registry, keys: Keys) -> list[dict[str, str]]:
    """Return the learner and the classifier of a cell with the plugins that gave them, and the hashes of their code."""
    listed = []
    for kind, name in (("learner", cell.learner.name), ("classifier", Choice.read(cell.classifier).name)):
        owner = next(one for one in registry.records if name in one.gave.get(f"{kind}s", ()))
        code = keys.source(kind, name)
        listed.append({"kind": kind, "name": name, "plugin": owner.name, "origin": owner.origin, "code": code})
    return listed


def require_plugins(listed: Sequence[Mapping[str, str]], registry: Registry) -> None:
    """Raise a `ModelError` that names a plugin that is not loaded, or not the one that the model was made with."""
    keys = Keys(registry, None)
    for one in listed:
        kind, name, plugin = one["kind"], one["name"], make_printable(one["plugin"])
        if kind not in ("learner", "classifier"):
            raise ModelError(f"the model is damaged: it needs a {make_printable(kind)} from a plugin")
        if name not in registry.names(f"{kind}s"):
            origin = make_printable(one["origin"])
            raise ModelError(
                f"the model needs the {kind} {make_printable(name)} of the plugin {plugin} ({origin}), which is not "
                f"loaded: name its file with --plugin, or plugins=[…] in Python{registry.hint}"
            )
        # featbench's own code has its version in the document, and changes with it.
        if one["origin"] != "built in" and keys.source(kind, name) != one["code"]:
            raise ModelError(
                f"the {kind} {make_printable(name)} is not the one that the model was exported with: the code of the "
                f"plugin {plugin} has changed; load that version of it, or export the row again"
            )


def describe_files(cell: Cell, registry: Registry) -> list[dict[str, str]]:
    """Return the files that the learner's parameters name, with the hashes of their content."""
    learner = registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
    named = {str(path) for path in learner.files()}
    return [
        {"parameter": name, "path": str(value), "sha256": file_hash(Path(value))}
        for name, value in learner.parameters().items()
        if isinstance(value, str) and str(Path(value)) in named
    ]


def _find_files(learner: Choice, needs: Sequence[Mapping[str, str]], code: Sequence[Path]) -> Choice:
    """Return the learner with the files of code that the user named in place of those that the model names.

    No path of the model is read: whoever wrote it could run code of their own.
    """
    parameters = dict(learner.parameters)
    for one in needs:
        if not one["path"].endswith(".py"):
            continue  # weights are in the model
        found = [path for path in code if _hash_or_none(path) == one["sha256"]]
        if not found:
            raise ModelError(
                f"the model runs code of yours, {make_printable(one['path'])}, which is not part of it: name that file "
                f"with --code, or code=[…] in Python; its SHA-256 is {one['sha256'][:16]}…"
            )
        parameters[one["parameter"]] = str(found[0])
    unnamed = [
        value
        for name, value in parameters.items()
        if isinstance(value, str) and value.endswith(".py") and Path(value) not in code
    ]
    if unnamed:
        raise ModelError(f"the model is damaged: it runs {make_printable(unnamed[0])}, whose hash it does not have")
    return Choice.of(learner.name, parameters)


def _hash_or_none(path: Path) -> str | None:
    try:
        return file_hash(path)
    except OSError as error:
        raise ModelError(f"{make_printable(path)} cannot be read: {error.strerror or error}") from error


def explain_damage(shown: str, error: Exception) -> ModelError:
    """Return the error for a model whose parts do not fit together."""
    reason = str(error) if isinstance(error, FeatbenchError) else f"{type(error).__name__}: {error}"
    return ModelError(f"{shown} is damaged: its parts do not fit together ({' '.join(reason.split())[:300]})")
