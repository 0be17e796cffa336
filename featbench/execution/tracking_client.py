"""MLflow's client, kept quiet, kept from waiting for long, and kept from making one database twice."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from featbench.execution.tracking_address import find_sqlite_file
from featbench.system.locks import hold_lock

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings of MLflow where the user has none: a server that does not answer must not delay a comparison by minutes."""

PATIENCE = {"server": 20.0, "file": 120.0}
"""Seconds that writing one run may take; a database in a file may have to be made first, on a busy machine."""

LOGGERS = ("mlflow", "alembic", "sqlalchemy", "urllib3")
"""They would tell of each failed attempt, with passwords; what matters is in the error that follows."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's page show runs with their metrics; without it the page is the one for language models."""


def import_mlflow() -> None:
    """Import MLflow with our settings, where the user has none, and silent.

    It takes seconds, which are no delay of a server's.
    """
    # Before the import, which reads them.
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.store.db import utils

    # It would try ten times to open a database, which takes two minutes.
    utils.MAX_RETRY_COUNT = 1
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def call_within(uri: str, call: Callable[[], object]) -> None:
    """Call something that talks to MLflow at an address.

    Raises what it raises, and `TimeoutError` if it takes too long: it then goes on in a thread that nobody waits for.
    """
    seconds = PATIENCE["file" if find_sqlite_file(uri) else "server"]
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="featbench-mlflow", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if raised:
        raise raised[0]


def connect(uri: str, experiment: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    """Return a client, and the experiment of a name, which is made if there is none.

    artifacts: where the files of a new experiment lie; None leaves it to MLflow.
    """
    from mlflow.tracking import MlflowClient

    database = find_sqlite_file(uri)
    # MLflow makes its tables one after the other: two processes at once would each make half of them.
    with contextlib.nullcontext(uri) if database is None else _prepare_database(uri, database) as address:
        client = MlflowClient(address)
        return client, _find_experiment(client, experiment, artifacts)


def _find_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    # One that was deleted on MLflow's page keeps its name, and stays deleted: the next one has a number.
    number, wanted = 1, name
    while (found := client.get_experiment_by_name(wanted)) is not None:
        if found.lifecycle_stage == "active":
            return str(found.experiment_id)
        number += 1
        wanted = f"{name} {number}"
    try:
        return str(client.create_experiment(wanted, artifact_location=artifacts, tags=KIND))
    except Exception:
        # On a server, another comparison may just have made it.
        found = client.get_experiment_by_name(wanted)
        if found is None:
            raise
        return str(found.experiment_id)


@contextlib.contextmanager
def _prepare_database(uri: str, path: Path) -> Iterator[str]:
    """Hold the lock of a database, and give its address; raises `sqlite3.Error` if it cannot be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path.with_name(f"{path.name}.lock"), PATIENCE["file"]):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        yield _renew_address(uri, path.stat().st_ino if tables else 0)


_seen: dict[str, list[int]] = {}
"""The files that lay at an address in the life of this process, by their numbers; 0 stands for an empty one."""


def _renew_address(uri: str, file: int) -> str:
    """Return an address that means the file which is there now.

    MLflow keeps its connections, also those to a file that somebody deleted since. Another address gets new ones: it
    says in other words how many seconds to wait for others.
    """
    files = _seen.setdefault(uri, [])
    if not files or file == 0 or files[-1] not in (0, file):
        files.append(file)
    elif files[-1] == 0:
        files[-1] = file
    changes = len(files) - 1
    return uri if changes == 0 else f"{uri}{'&' if '?' in uri else '?'}timeout={20 + changes}"
