"""A model read from its folder, and tried before anybody uses it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featbench.devices.selection import resolve_device
from featbench.errors import ModelError
from featbench.features.extraction import FeatureBlock
from featbench.model.folder import read_model
from featbench.model.model import Model
from featbench.model.restoring import explain_damage, restore
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.store.provenance import find_versions
from featbench.system.printable import make_printable
from featbench.system.user_files import expand_user

log = logging.getLogger("featbench")


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
    except ModelError:
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
    restored = model.restored
    if restored.cell.device != "cpu":
        return
    with torch.no_grad():
        made = restored.network.eval()(torch.zeros(1, *restored.shape)).numpy()
    if restored.shape[0] != restored.cell.preprocessing.channels:
        raise ModelError("the model is damaged: its images have another number of channels")
    if restored.cell.architecture and made.ndim == 4:
        expected = Architecture.parse(restored.cell.architecture).shapes(restored.shape)[-1]
        if made.shape[1:] != tuple(expected):
            raise ModelError("the model is damaged: its filters are not those of its architecture")
    several = bool(model.document["several_sizes"]) and made.ndim == 4
    values = made[0].reshape(len(made[0]), -1).T if several else made
    grids = ((made.shape[2], made.shape[3]),) if several else ()
    _, scores = model.classify(iter([FeatureBlock(np.zeros_like(values), grids)]))
    if scores is not None and scores.shape[1] != len(model.classes):
        raise ModelError("the model is damaged: its classifier has other classes")
