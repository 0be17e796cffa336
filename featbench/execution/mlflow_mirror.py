"""The mirror in MLflow: results that are safe in the store, written there to be looked at, and never read back."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from featbench.execution.listeners import Listener
from featbench.execution.tracking_address import find_artifact_folder, find_default_uri, hide_secrets, remove_secrets
from featbench.execution.tracking_client import call_within, connect, import_mlflow
from featbench.execution.tracking_journal import Journal
from featbench.experiment.cell import Cell
from featbench.report.filters import filters_png
from featbench.report.table import format_csv
from featbench.store.artifacts import StoredArtifacts
from featbench.types import Result

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger("featbench")


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
        self._journal = Journal.read(self._store, self._uri, comparison)
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._broken = False

    def finished(self, index: int, total: int, cell: Cell, result: Result, *, computed: bool) -> None:
        """Write a cell's child run, if MLflow does not have it yet."""
        if result.status in ("ok", "failed") and (computed or result.key not in self._journal.cells):
            self._attempt(lambda client: self._write_cell(client, cell, result))

    def close(self, rows: pd.DataFrame | None) -> None:
        """End the parent run: with the rows of the table, or as killed, without rows, if the comparison was stopped."""
        if self._client is not None or (rows is not None and not self._journal.closed):
            self._attempt(lambda client: self._write_parent(client, rows))

    def _attempt(self, write: Callable[[MlflowClient], None]) -> None:
        if self._broken:
            return
        try:
            import_mlflow()
            call_within(self._uri, lambda: write(self._connect()))
        except Exception as error:  # whatever MLflow raises: a mirror must not sink the comparison
            self._broken = True
            reason = remove_secrets(str(error).strip() or type(error).__name__, self._uri).splitlines()[0]
            log.warning(
                "MLflow at %s cannot be written: %s. The comparison goes on; its results are safe in the store, "
                "and the same command writes them to MLflow when it is back",
                hide_secrets(self._uri),
                reason[:300],
            )

    def _connect(self) -> MlflowClient:
        if self._client is None:
            # For a database of files MLflow would put the pictures into the current folder.
            own = find_artifact_folder(self._store).as_uri() if self._uri.startswith("sqlite") else None
            self._client, self._experiment = connect(self._uri, f"featbench {self._protocol}", own)
        return self._client

    def _find_parent_run(self, client: MlflowClient) -> str:
        """Return the parent run of this comparison, which is made if there is none."""
        if self._journal.parent is None:
            tags = {"featbench.comparison": self._comparison}
            run = client.create_run(self._experiment, tags=tags, run_name=f"compare {self._comparison[:8]}")
            _log(client, run.info.run_id, {k: v for k, v in self._asked.items() if v is not None}, {})
            self._journal.parent = run.info.run_id
            self._write_journal()
        return self._journal.parent

    def _write_cell(self, client: MlflowClient, cell: Cell, result: Result) -> None:
        tags = {
            "mlflow.parentRunId": self._find_parent_run(client),
            "featbench.result": result.key,
            "featbench.status": result.status,
        }
        if result.message:
            tags["featbench.message"] = _clean_text(result.message)[:4000]
        metrics = {"fit_seconds": result.seconds.fit, "extract_seconds": result.seconds.extract}
        if result.score is not None:
            metrics[result.score.metric] = result.score.value
            tags["featbench.unit"] = result.score.unit
        run = client.create_run(self._experiment, tags=tags, run_name=_clean_text(str(cell))[:1000])
        chosen = {f"chosen.{name}": value for name, value in result.report.items()}
        _log(client, run.info.run_id, {**cell.describe(), **chosen}, metrics)
        weight = self._artifacts.read_first_filters(cell)
        if weight is not None:
            colour = weight.shape[1] == cell.preprocessing.channels == 3
            _log_file(client, run.info.run_id, "filters.png", filters_png(weight, colour=colour))
        client.set_terminated(run.info.run_id, "FINISHED" if result.status == "ok" else "FAILED")
        self._journal.cells[result.key] = run.info.run_id
        # After each cell: a comparison that is killed must not write its first cells a second time.
        self._write_journal()

    def _write_parent(self, client: MlflowClient, rows: pd.DataFrame | None) -> None:
        parent = self._find_parent_run(client)
        if rows is None:
            client.set_terminated(parent, "KILLED")
            return
        means = {
            f"mean.{row['learner']}.{row['label']}.{row['classifier']}": float(row["mean"])
            for row in rows[rows["status"] == "ok"].to_dict("records")
        }
        _log(client, parent, {}, means)
        _log_file(client, parent, "rows.csv", format_csv(rows).encode())
        client.set_terminated(parent, "FAILED" if (rows["status"] == "failed").any() else "FINISHED")
        self._journal.closed = True
        self._write_journal()

    def _write_journal(self) -> None:
        self._journal.write(self._store, self._uri, self._comparison)


def _log(client: MlflowClient, run: str, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run,
        metrics=[Metric(_clean_name(name), value, now, 0) for name, value in metrics.items()],
        params=[Param(_clean_name(name), _clean_text(str(value))[:6000]) for name, value in parameters.items()],
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


def _clean_text(text: str) -> str:
    """Return a text that can be written as UTF-8: names of files may hold bytes that cannot."""
    return text.encode(errors="backslashreplace").decode()
