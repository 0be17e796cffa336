"""Addresses of MLflow: no password, token or key in what is printed or stored; stores in folders of any name."""

from pathlib import Path
from urllib.parse import quote

import pytest

from featbench.execution.tracking_address import find_database, find_own_uri, find_sqlite_file, hide_secrets
from featbench.execution.tracking_address import remove_secrets as clean
from featbench.store.store import Store

SHOWN = [
    ("http://user:s3cret@host:5000", "http://***@host:5000"),
    ("https://s3cret@host/path", "https://***@host/path"),
    ("http://user:s3/cr#et@host", "http://***@host"),
    ("http://user:s3@cret@host", "http://***@host"),
    ("http://user:s3cret?@host", "http://***@host"),
    ("http://us%40er:s3%2Fcret@host", "http://***@host"),
    ("postgresql://user:s3cret@host/db", "postgresql://***@host/db"),
    ("mysql+pymysql://user:s3cret@host:3306/db", "mysql+pymysql://***@host:3306/db"),
    ("http://host?token=s3cret", "http://host?token=***"),
    ("http://host/a?x=1&key=s3cret#top", "http://host/a?x=***&key=***#top"),
    ("http://host?a;token=s3cret", "http://host?a;token=***"),
    ("user:s3cret@host:5000", "***@host:5000"),
    ("//user:s3cret@host", "//***@host"),
    ("HTTP://USER:s3cret@HOST", "HTTP://***@HOST"),
]

PLAIN = [
    "http://host:5000",
    "https://host/a/b",
    "sqlite:////home/me@work/mlflow.db",
    "file:///home/me@work",
    "/home/me@work/mlruns",
    "./mlruns",
    "databricks",
    "databricks://profile",
]


@pytest.mark.parametrize(("uri", "shown"), SHOWN)
def test_what_is_secret_is_hidden(uri, shown):
    assert hide_secrets(uri) == shown


@pytest.mark.parametrize("uri", PLAIN)
def test_what_is_not_is_shown(uri):
    assert hide_secrets(uri) == uri


@pytest.mark.parametrize("uri", [uri for uri, _ in SHOWN])
def test_no_message_repeats_a_secret(uri):
    secret = next(part for part in ("s3/cr#et", "s3@cret", "s3%2Fcret", "s3cret") if part in uri)
    messages = (uri, f"cannot connect to {uri}/api: refused", f"host '{secret}'", f"{quote(secret, safe='')} is wrong")
    for message in messages:
        cleaned = clean(message, uri)
        assert secret not in cleaned
        assert "s3cret" not in cleaned


@pytest.mark.parametrize(
    "name",
    [
        *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "AWS_SECRET_ACCESS_KEY"),
        *("AWS_SESSION_TOKEN", "MLFLOW_FLASK_SERVER_SECRET_KEY"),
    ],
)
def test_no_message_repeats_a_secret_of_the_environment(name, monkeypatch):
    monkeypatch.setenv(name, "s3cret/1")
    assert clean("Bearer s3cret/1 and s3cret%2F1", "http://host") == "Bearer *** and ***"
    monkeypatch.delenv(name)
    assert clean("Bearer s3cret/1", "http://host") == "Bearer s3cret/1"


@pytest.mark.parametrize("uri", ["http://host", "sqlite:////a/b.db", "http://u:p@host"])
def test_a_message_without_secrets_is_left_as_it_is(uri):
    assert clean("connection refused: port 9, user u", uri) == "connection refused: port 9, user u"


FOLDERS = ["plain", "a b", "a?b", "a%b", "a%20b", "a#b", "é漢", "a@b:c", "%(x)s", "a'b\"c", "a\\b", "?x=1&y=2", "100%"]


@pytest.mark.parametrize("name", FOLDERS)
def test_the_address_of_a_store_leads_to_its_database(tmp_path, name, monkeypatch):
    from sqlalchemy.engine import make_url

    store = Store(tmp_path / name)
    uri = find_own_uri(store)
    assert Path(make_url(uri).database) == find_database(store) == find_sqlite_file(uri)
    assert (uri == f"sqlite:///{find_database(store)}") == (name not in ("a?b", "a%20b", "?x=1&y=2"))


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///e.db", Path("e.db")),
        ("sqlite:////a/e.db?timeout=5", Path("/a/e.db")),
        ("sqlite+pysqlite:////a/e%3F.db", Path("/a/e?.db")),
        ("sqlite://", None),
        ("sqlite:///", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:/a/e.db?uri=true", None),
        ("http://host/sqlite:///e.db", None),
        ("postgresql://host/db", None),
        ("/a/e.db", None),
    ],
)
def test_a_database_in_a_file_is_told_from_other_addresses(uri, path):
    assert find_sqlite_file(uri) == path
