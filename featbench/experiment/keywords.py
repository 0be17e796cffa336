"""What a caller in Python asks for: the keywords of `featbench.compare`, made what the command line would make of them.

Equal requests become equal, however they are written, so that they find the same results in the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from featbench.arguments import (
    read_count,
    read_flag,
    read_integer,
    read_list,
    read_mapping,
    read_path,
    read_text,
    show,
    unwrap_scalar,
)
from featbench.errors import UsageError
from featbench.experiment.request import Request, split_list
from featbench.experiment.unlabelled import TRAINING
from featbench.parameters import Choice, Parametrised
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture

OPTIONAL = frozenset(one.name for one in fields(Request) if one.default is None)
"""The fields of a request that a caller may leave open with None."""


def read_request(registry: Registry, given: Mapping[str, Any]) -> Request:
    """Return the request of these keywords, the fields of `Request`; a `UsageError` names one that cannot be taken."""

    def write_learner(name: str, value: object) -> str:
        return _write_choice(name, value, registry.learner)

    def write_classifier(name: str, value: object) -> str:
        return _write_choice(name, value, registry.classifier)

    def read(name: str, value: object) -> Any:
        if value is None and name in OPTIONAL:
            return None
        if name == "features":
            return _read_names(name, value, write_learner)
        if name == "classifiers":
            return _read_names(name, value, write_classifier)
        return READERS[name](name, value)

    return Request(**{name: read(name, value) for name, value in given.items()})


def read_plugins(value: object) -> list[str | Path | object]:
    """Return plugins as a list: paths, a leading ~ expanded, modules and objects; one alone need not be in a list."""
    plain = unwrap_scalar(value)
    if plain is None or (isinstance(plain, list | tuple | set | frozenset) and not plain):
        return []
    alone = isinstance(plain, str | os.PathLike) or not hasattr(type(plain), "__iter__")
    return [_read_plugin(one) for one in ([plain] if alone else read_list("plugins", plain))]


def _read_plugin(value: object) -> str | Path | object:
    if isinstance(value, str | os.PathLike):
        return read_path("plugins", value)
    if value is None or isinstance(value, bool | int | float | bytes | Mapping | list | tuple):
        raise UsageError(f"plugins takes paths of Python files, modules and objects with hooks, not {show(value)}")
    return value


def read_track(value: object) -> str | bool:
    """Return the address of an MLflow server, True for the default one, or False for none."""
    plain = os.fspath(value) if isinstance(value, os.PathLike) else unwrap_scalar(value)
    if not isinstance(plain, str | bool) or plain == "":
        raise UsageError(f"track takes True, False or the address of an MLflow server, not {show(value)}")
    return plain


def _read_names(name: str, value: object, write: Callable[[str, object], str] = read_text) -> list[str]:
    """Return a list of names; a text is read as the command line reads it, so that "random,psd" are two."""
    plain = unwrap_scalar(value)
    if isinstance(plain, str):
        given: list[Any] = split_list(plain) or read_list(name, [])
    elif isinstance(plain, Parametrised | type):
        given = [plain]
    else:
        given = read_list(name, plain)
    return [write(name, one) for one in given]


def _write_choice(name: str, value: object, find: Callable[[str], Any]) -> str:
    """Return the text of a learner or classifier: its name, or what names a class or an instance that is registered."""
    if isinstance(value, str):
        return read_text(name, value)
    cls = value if isinstance(value, type) else type(value)
    if not issubclass(cls, Parametrised) or not hasattr(cls, "name"):
        raise UsageError(f"{name} takes names, such as 'psd(lam=0.5)', classes and instances, not {show(value)}")
    known = find(cls.name)
    if cls is not known and cls is not type(known):
        raise UsageError(f"{name}: {cls.name} is registered as another class than the one given: load it by plugins")
    choice = cls.choice(value.parameters() if isinstance(value, Parametrised) else {})
    text = str(choice)
    if _read_again(text) != choice:
        raise UsageError(f"{name}: {show(value)} has parameters that cannot be written as text, {text}")
    return text


def _read_again(text: str) -> Choice | None:
    try:
        return Choice.read(text)
    except UsageError:
        return None


def _read_architecture(name: str, value: object) -> str:
    return str(value) if isinstance(value, Architecture) else read_text(name, value)


def _read_dataset(name: str, value: object) -> str:
    """Return the name of a data set; a path stands for the folder of images that it leads to."""
    return f"folder:{read_path(name, value)}" if isinstance(value, os.PathLike) else read_text(name, value)


def _read_unlabelled(name: str, value: object) -> str:
    """Return a folder or a data set, a leading ~ expanded, after `training+` too."""
    if isinstance(value, os.PathLike):
        return str(read_path(name, value))
    text = read_text(name, value)
    start = TRAINING if text.startswith(TRAINING) else ""
    pool = text.removeprefix(start)
    return start + (str(read_path(name, pool)) if pool.startswith("~") else pool)


def _read_refinement(name: str, value: object) -> str:
    """Return settings of refinement as text; a mapping has those that differ, a `Refinement` all of them."""
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, Mapping | Refinement):
        raise UsageError(f"{name} takes a text or a mapping of settings, such as {{'epochs': 30}}, not {show(value)}")
    given = read_mapping(name, value.parameters() if isinstance(value, Refinement) else value)
    settings = Refinement.create(given)
    return ",".join(f"{one}={getattr(settings, one)}" for one in given)


def _read_device(name: str, value: object) -> str:
    return str(value) if isinstance(value, torch.device) else read_text(name, value)


READERS: Mapping[str, Callable[[str, object], Any]] = {
    "protocol": read_text,
    "dataset": _read_dataset,
    "regimes": _read_names,
    "stages": _read_architecture,
    "train_per_class": read_count,
    "test_per_class": read_count,
    "draws": read_integer,
    "seed": read_integer,
    "device": _read_device,
    "unlabelled": _read_unlabelled,
    "precision": read_text,
    "refine": _read_refinement,
    "channels": read_text,
    "thorough": read_flag,
}
"""What reads the fields of a request for which no registry is needed."""
