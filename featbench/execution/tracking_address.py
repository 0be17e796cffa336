"""Addresses of MLflow servers: which one is meant, which file it stands for, and which parts of it are secret."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from featbench.store.store import Store

HIDDEN = "***"
"""Stands in place of what is secret."""

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]*)")

_CREDENTIALS = re.compile(r"((?:(?:[\w.+-]+:)?//)?)(.*)@", re.DOTALL)
"""What may stand before a host, greedily: a password that was not escaped may hold whatever else is in an address."""

_QUERY = re.compile(r"(?<=[?&;])([^=&;#]*=)([^&;#]*)")

_SECRET = re.compile(r"MLFLOW_.*(PASSWORD|TOKEN|SECRET|KEY)|DATABRICKS_.*(TOKEN|SECRET)|AWS_(SECRET|SESSION).*")
"""Variables of the environment that MLflow reads secrets from."""


def find_default_uri(store: Store) -> str:
    """Return the address of MLflow where the user names none: MLFLOW_TRACKING_URI, else a database inside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or find_own_uri(store)


def find_own_uri(store: Store) -> str:
    """Return the address of the store's own MLflow database."""
    path = str(find_database(store))
    # SQLAlchemy ends the path at a question mark, and reads %20 as a space. The driver is named in such an address
    # alone: otherwise MLflow would make folders that are called as the address is.
    escaped = quote(path, safe="/", errors="surrogateescape")
    return f"sqlite+pysqlite:///{escaped}" if re.search(r"\?|%[0-9a-fA-F]{2}", path) else f"sqlite:///{path}"


def find_database(store: Store) -> Path:
    """Return the path of the store's own MLflow database."""
    return (store.home / "mlflow.db").resolve()


def find_artifact_folder(store: Store) -> Path:
    """Return the folder of the pictures that belong to the store's own MLflow database."""
    return (store.home / "mlartifacts").resolve()


def find_sqlite_file(uri: str) -> Path | None:
    """Return the file of a database; None if the address is another one."""
    found = _SQLITE.match(uri)
    path = "" if found is None else unquote(found[1], errors="surrogateescape")
    return None if path in ("", ":memory:") or path.startswith("file:") else Path(path)


def hide_secrets(uri: str) -> str:
    """Return an address as it may be printed: without user and password, and without the values of its query."""
    found = None if _is_path(uri) else _CREDENTIALS.match(uri)
    shown = uri if found is None else f"{found[1]}{HIDDEN}@{uri[found.end() :]}"
    return _QUERY.sub(rf"\1{HIDDEN}", shown)


def remove_secrets(text: str, uri: str) -> str:
    """Return a text, such as the message of an error, without what is secret in an address and in the environment."""
    text = text.replace(uri, hide_secrets(uri))
    for secret in sorted(_list_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _list_secrets(uri: str) -> set[str]:
    found = None if _is_path(uri) else _CREDENTIALS.match(uri)
    whole = "" if found is None else found[2]
    # As it stands, and in the parts that programs take it for.
    parts = [
        whole,
        whole.partition(":")[2],
        *re.split(r"[:/@#?]", whole),
        *(match[2] for match in _QUERY.finditer(uri)),
    ]
    parts += [value for name, value in os.environ.items() if _SECRET.fullmatch(name)]
    every = {form for part in parts for form in (part, unquote(part), quote(part, safe=""))}
    # A letter or two tell nothing, and may stand anywhere in a text.
    return {form for form in every if len(form) > 2}


def _is_path(uri: str) -> bool:
    """Whether an address is a path, in which an @ is a letter like others."""
    return re.match(r"/(?!/)|[.~]|[\w.+-]+:///", uri) is not None
