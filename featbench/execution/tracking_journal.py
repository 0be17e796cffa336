"""The journal of the mirror: which runs MLflow has, so that the same command writes what is missing."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from featbench.execution.tracking_address import find_sqlite_file, hide_secrets
from featbench.store.store import Store
from featbench.system.hashing import content_hash

KIND = "tracked"
"""The folder of the store that holds journals."""

TIMEOUT = 3.0
"""Seconds to ask a server whether it still has a comparison; without an answer the journal is believed."""


@dataclass
class Journal:
    """What MLflow has of a comparison.

    parent: its run. cells: the run of each result, by the result's key. closed: whether the parent run was ended.
    """

    parent: str | None = None
    cells: dict[str, str] = field(default_factory=dict)
    closed: bool = False

    @classmethod
    def read(cls, store: Store, uri: str, comparison: str) -> Self:
        """Read the journal of a comparison at an address, without the runs that are there no more."""
        key = _make_key(uri, comparison)
        known = store.restore(KIND, key, store.read_record(KIND, key), cls._restore)
        if known is None or known.parent is None:
            return cls()
        present = _list_present(uri, known)
        if known.parent not in present:
            return cls()
        cells = {result: run for result, run in known.cells.items() if run in present}
        return cls(known.parent, cells, known.closed and len(cells) == len(known.cells))

    @classmethod
    def _restore(cls, document: Mapping[str, Any]) -> Self:
        return cls(document["parent"], dict(document["cells"]), bool(document["closed"]))

    def write(self, store: Store, uri: str, comparison: str) -> None:
        """Keep the journal."""
        document = {"parent": self.parent, "cells": self.cells, "closed": self.closed}
        store.write_record(KIND, _make_key(uri, comparison), document)


def _make_key(uri: str, comparison: str) -> str:
    # A hash of a password could be tried out.
    return content_hash([hide_secrets(uri), comparison])


def _list_present(uri: str, known: Journal) -> set[str]:
    """Return the runs of a journal that MLflow still has; all of them where nobody can know."""
    runs = {*known.cells.values(), *([known.parent] if known.parent else [])}
    database = find_sqlite_file(uri)
    if database is not None:
        return runs & _read_runs(database, runs)
    if uri.startswith(("http://", "https://")):
        return set() if known.parent and _is_gone(uri, known.parent) else runs
    folder = _find_folder(uri)
    return runs if folder is None else {run for run in runs if any(folder.glob(f"*/{run}"))}


def _read_runs(database: Path, known: set[str]) -> set[str]:
    """Return the runs of a database that nobody deleted; none if it is not there, or no database of MLflow's."""
    address = f"file:{quote(str(database.absolute()))}?mode=ro"
    query = (
        "SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) "
        "WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'"
    )
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            return {run for (run,) in connection.execute(query)}
    except sqlite3.Error as error:
        return known if "locked" in str(error) else set()


def _is_gone(uri: str, run: str) -> bool:
    """Whether a server says that it has no such run, or that somebody deleted it."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    address = urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/api/2.0/mlflow/runs/get", f"run_id={run}", ""))
    try:
        with urlopen(Request(address, headers=_make_headers(parts.netloc)), timeout=TIMEOUT) as answer:
            return bool(json.load(answer)["run"]["info"]["lifecycle_stage"] == "deleted")
    except HTTPError as error:
        return error.code == 404 and b"RESOURCE_DOES_NOT_EXIST" in error.read()
    except Exception:  # whatever a server, or something else at its address, answers
        return False


def _make_headers(netloc: str) -> dict[str, str]:
    """Return the headers by which MLflow proves who asks."""
    user, _, password = netloc.rpartition("@")[0].partition(":")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", unquote(user))
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD", unquote(password))
    if user:
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _find_folder(uri: str) -> Path | None:
    """Return the folder that an address means, as MLflow's stores of files have; None if it means something else."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)
