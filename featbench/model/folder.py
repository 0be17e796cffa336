"""The folder of a model: a JSON document and safetensors, written whole or not at all, and checked when read."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from featbench.errors import ModelError
from featbench.system.hashing import content_hash, file_hash
from featbench.system.printable import make_printable

FORMAT, VERSION = "featbench model", 1
"""What the document says it is, and the version of its form: `docs/models.md` describes it."""

DOCUMENT = "model.json"

PARTS = ("filters", "start", "refined", "classifier")
"""The files of arrays that a model may have, without .safetensors."""

LARGEST_DOCUMENT = 2**26
"""Bytes of a document, at most: one of a thousand classes has a hundredth of it."""

Arrays = dict[str, NDArray[Any]]


def require_place(folder: Path, *, force: bool) -> None:
    """Raise a `ModelError` unless a model can be written here: nothing is there, or, with `force`, a model."""
    shown = make_printable(folder)
    if not folder.parent.is_dir():
        raise ModelError(f"--output {shown}: there is no folder {make_printable(folder.parent)}")
    if not os.access(folder.parent, os.W_OK):
        raise ModelError(f"--output {shown}: the folder {make_printable(folder.parent)} cannot be written")
    if not os.path.lexists(folder) or (folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())):
        return
    if folder.is_symlink() or not (folder / DOCUMENT).is_file():
        raise ModelError(f"--output {shown} is there already, and is no model: name another folder")
    if not force:
        raise ModelError(f"--output {shown} holds a model already: name another folder, or replace it with --force")


def write_model(folder: Path, document: Mapping[str, Any], parts: Mapping[str, Arrays]) -> None:
    """Write a model beside its place, and move it there whole; what lay there is gone then."""
    # With a random name: two exports at once write two folders, of which the last one stays.
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.old")
    try:
        temporary.mkdir()
        files = {}
        for name, arrays in parts.items():
            path = temporary / f"{name}.safetensors"
            _write(path, save({key: np.asarray(array, order="C") for key, array in arrays.items()}))
            files[path.name] = file_hash(path)
        body = {"format": FORMAT, "version": VERSION, **document, "files": files}
        text = json.dumps({**body, "hash": content_hash(body)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        _write(temporary / DOCUMENT, text.encode("utf-8", "backslashreplace"))
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        raise ModelError(f"cannot write {make_printable(folder)}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """Return the document of a model and its arrays, by part; raises `ModelError` unless all is as it was written."""
    shown = make_printable(folder)
    document = _read_document(folder)
    if document.get("format") != FORMAT:
        raise ModelError(f"{shown} holds no model of featbench: its {DOCUMENT} is something else")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise ModelError(f"{shown} is damaged: its format has the version {version!r}")
    if version > VERSION:
        raise ModelError(
            f"{shown} has version {version} of the format of models, and this featbench reads up to {VERSION}: update "
            "featbench"
        )
    body = {name: value for name, value in document.items() if name != "hash"}
    try:
        sound = document.get("hash") == content_hash(body)
    except (ValueError, TypeError):
        sound = False
    if not sound:
        raise ModelError(f"{shown} was changed after it was exported, or is damaged: export it again")
    files = document.get("files")
    if not isinstance(files, dict) or not set(files) <= {f"{part}.safetensors" for part in PARTS}:
        raise ModelError(f"{shown} is damaged: it names files that no model has")
    return document, {name.removesuffix(".safetensors"): _read_part(folder / name, files[name]) for name in files}


def _read_document(folder: Path) -> dict[str, Any]:
    path, shown = folder / DOCUMENT, make_printable(folder)
    if not folder.is_dir():
        raise ModelError(f"there is no folder {shown}: name one that `featbench export` wrote")
    if not path.is_file():
        raise ModelError(f"{shown} holds no model: there is no {DOCUMENT} in it")
    try:
        if path.stat().st_size > LARGEST_DOCUMENT:
            raise ModelError(f"{shown} is damaged: its {DOCUMENT} is too large")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{make_printable(path)} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{shown} is damaged: its {DOCUMENT} is no JSON") from error
    if not isinstance(document, dict):
        raise ModelError(f"{shown} is damaged: its {DOCUMENT} is no object")
    return document


def _read_part(path: Path, digest: object) -> Arrays:
    shown = make_printable(path)
    if not path.is_file():
        raise ModelError(f"{shown} is missing: the model is not whole, export it again")
    try:
        if file_hash(path) != digest:
            raise ModelError(f"{shown} was changed after it was exported, or is damaged: export the model again")
        arrays = load(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{shown} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{shown} is damaged: {error}") from error
    for name, array in arrays.items():
        # Minus infinity is the bias of a class that is never predicted.
        if array.dtype.kind == "f" and bool((np.isnan(array) | (array == np.inf)).any()):
            raise ModelError(f"{shown} holds values that are not finite, in {make_printable(name)}")
    return arrays


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
