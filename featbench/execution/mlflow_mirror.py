"""The mirror in MLflow: results that are safe in the store, written there to be looked at, and never read back."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from featbench.execution.listeners import Listener
from featbench.experiment.cell import Cell
from featbench.report.filters import filters_png
from featbench.store.artifacts import StoredArtifacts
from featbench.store.store import Store
from featbench.system.hashing import content_hash
from featbench.types import Result

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger("featbench")

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings of MLflow where the user has none: a server that does not answer must not delay a comparison by minutes."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's page show runs with their metrics; without it the page is the one for language models."""


def find_default_uri(store: Store) -> str:
    """Return the address of MLflow where the user names none: MLFLOW_TRACKING_URI, else a database inside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{find_database(store)}"


def find_database(store: Store) -> Path:
    """Return the path of the store's own MLflow database."""
    return (store.home / "mlflow.db").resolve()


def find_artifact_folder(store: Store) -> Path:
    """Return the folder of the pictures that belong to the store's own MLflow database."""
    return (store.home / "mlartifacts").resolve()


class Mirror(Listener):
    """Writes a comparison to MLflow: a parent run, and a child run for each cell.

    A journal in the store says what MLflow has. So the same command writes what is missing, and does not load MLflow if
    nothing is. The first failure is logged as a warning and ends the mirroring; the comparison goes on.
    """

    def __init__(
        self,
        artifacts: StoredArtifacts,
        comparison: str,
        protocol: str,
        asked: Mapping[str, Any],
        uri: str | None,
    ) -> None:
        self._store, self._artifacts, self._comparison = artifacts.store, artifacts, comparison
        self._protocol, self._asked = protocol, asked
        self._uri = uri or find_default_uri(self._store)
        self._journal_key = content_hash([self._uri, comparison])
        known: dict[str, Any] = {"parent": None, "cells": {}, "closed": False}
        own = self._uri == f"sqlite:///{find_database(self._store)}"
        # The user may have deleted the store's database: a journal of what it held would leave the new one empty.
        if not own or find_database(self._store).exists():
            known = self._store.read_record("tracked", self._journal_key) or known
        self._parent: str | None = known["parent"]
        self._cells: dict[str, str] = known["cells"]
        self._closed: bool = known["closed"]
        self._client: MlflowClient | None = None
        self._broken = False

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Write a cell's child run, if MLflow does not have it yet."""
        if result.status in ("ok", "failed") and (computed or result.key not in self._cells):
            self._attempt(lambda client: self._write_cell(client, cell, result))

    def close(self, rows: pd.DataFrame | None) -> None:
        """End the parent run: with the rows of the table, or as killed, without rows, if the comparison was stopped."""
        if self._client is not None or (rows is not None and not self._closed):
            self._attempt(lambda client: self._write_parent(client, rows))

    def _attempt(self, write: Callable[[MlflowClient], None]) -> None:
        if self._broken:
            return
        try:
            write(self._connect())
        except Exception as error:  # whatever MLflow raises: a mirror must not sink the comparison
            self._broken = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning(
                "MLflow at %s cannot be written: %s. The comparison goes on; its results are safe in the store, "
                "and the same command writes them to MLflow when it is back",
                self._uri,
                reason[:300],
            )

    def _connect(self) -> MlflowClient:
        if self._client is None:
            # Before the import, which reads them; and that only now, as it takes seconds and often nothing is missing.
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)
            logging.getLogger("alembic").setLevel(logging.WARNING)
            self._client = MlflowClient(self._uri)
        return self._client

    def _find_parent_run(self, client: MlflowClient) -> tuple[str, str]:
        """Return the experiment and the parent run of this comparison; create what does not exist."""
        name = f"featbench {self._protocol}"
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # For a database of files MLflow would put the pictures into the current folder.
            location = find_artifact_folder(self._store).as_uri() if self._uri.startswith("sqlite:") else None
            experiment_id = client.create_experiment(name, artifact_location=location, tags=KIND)
        else:
            experiment_id = experiment.experiment_id
        if self._parent is None:
            tags = {"featbench.comparison": self._comparison}
            run = client.create_run(experiment_id, tags=tags, run_name=f"compare {self._comparison[:8]}")
            self._parent = run.info.run_id
            _log(client, self._parent, {k: v for k, v in self._asked.items() if v is not None}, {})
            self._write_journal()
        return experiment_id, self._parent

    def _write_cell(self, client: MlflowClient, cell: Cell, result: Result) -> None:
        experiment_id, parent = self._find_parent_run(client)
        tags = {
            "mlflow.parentRunId": parent,
            "featbench.result": result.key,
            "featbench.status": result.status,
        }
        if result.message:
            tags["featbench.message"] = result.message[:4000]
        metrics = {"fit_seconds": result.seconds.fit, "extract_seconds": result.seconds.extract}
        if result.score is not None:
            metrics[result.score.metric] = result.score.value
            tags["featbench.unit"] = result.score.unit
        run = client.create_run(experiment_id, tags=tags, run_name=str(cell))
        chosen = {f"chosen.{name}": value for name, value in result.report.items()}
        _log(client, run.info.run_id, {**cell.describe(), **chosen}, metrics)
        weight = self._artifacts.read_first_filters(cell)
        if weight is not None:
            colour = weight.shape[1] == cell.preprocessing.channels == 3
            _log_file(client, run.info.run_id, "filters.png", filters_png(weight, colour=colour))
        client.set_terminated(run.info.run_id, "FINISHED" if result.status == "ok" else "FAILED")
        self._cells[result.key] = run.info.run_id
        # After each cell: a comparison that is killed must not write its first cells a second time.
        self._write_journal()

    def _write_parent(self, client: MlflowClient, rows: pd.DataFrame | None) -> None:
        _, parent = self._find_parent_run(client)
        if rows is None:
            client.set_terminated(parent, "KILLED")
            return
        means = {
            f"mean.{row['learner']}.{row['label']}.{row['classifier']}": float(row["mean"])
            for row in rows[rows["status"] == "ok"].to_dict("records")
        }
        _log(client, parent, {}, means)
        _log_file(client, parent, "rows.csv", rows.to_csv(index=False).encode())
        client.set_terminated(parent, "FAILED" if (rows["status"] == "failed").any() else "FINISHED")
        self._closed = True
        self._write_journal()

    def _write_journal(self) -> None:
        document = {"parent": self._parent, "cells": self._cells, "closed": self._closed}
        self._store.write_record("tracked", self._journal_key, document)


def _log(client: MlflowClient, run: str, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run,
        metrics=[Metric(_clean_name(name), value, now, 0) for name, value in metrics.items()],
        params=[Param(_clean_name(name), str(value)[:6000]) for name, value in parameters.items()],
    )


def _log_file(client: MlflowClient, run: str, name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        client.log_artifact(run, str(path))


def _clean_name(name: str) -> str:
    """Return a name that MLflow accepts, at most 250 characters: it refuses + and brackets."""
    kept = "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name.replace("+", "plus"))
    return kept[:250]
