"""What can happen to MLflow: databases that are gone or damaged, servers that are away or none, and several at once."""

import contextlib
import http.server
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.mlflow_runs import client_of, runs_of

from featbench.execution.tracking_address import find_database
from featbench.execution.tracking_client import PATIENCE
from featbench.execution.tracking_journal import Journal
from featbench.store.store import Store


@pytest.fixture(scope="module")
def fresh_database(tmp_path_factory):
    """An MLflow database without runs, which takes MLflow seconds to make."""
    path = tmp_path_factory.mktemp("fresh") / "mlflow.db"
    client_of(path).search_experiments()
    return path


@pytest.fixture
def empty_database(fresh_database, tmp_path, monkeypatch):
    """A copy of it for one test."""
    monkeypatch.chdir(tmp_path)  # MLflow puts the files of a database that is not the store's own into ./mlruns
    return Path(shutil.copy(fresh_database, tmp_path / "empty.db"))


@pytest.fixture
def own_database(empty_database, home):
    """A copy, where the store of this test has its own."""
    home.mkdir()
    return Path(shutil.move(empty_database, find_database(Store(home))))


# Databases that somebody deleted, emptied or damaged.


@pytest.fixture
def mirrored(compare_tiny, own_database):
    """A comparison that is in the store's own database, and the command that ran it."""

    def compare(*options):
        return compare_tiny("--regimes", "R", "--draws", "1", *options, track=True)

    assert compare().code == 0
    return compare, own_database


def change_database(*statements):
    def change(path):
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    return change


GONE = {
    "experiment deleted": change_database("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name LIKE 'feat%'"),
    "runs deleted": change_database("UPDATE runs SET lifecycle_stage = 'deleted'"),
    "runs gone": change_database(
        *(f"DELETE FROM {table}" for table in ("metrics", "latest_metrics", "params", "tags", "runs"))
    ),
    "all gone": change_database(
        *(f"DELETE FROM {table}" for table in ("metrics", "latest_metrics", "params", "tags", "runs")),
        "DELETE FROM experiment_tags",
        "DELETE FROM experiments",
    ),
}


@pytest.mark.parametrize("how", GONE)
def test_what_is_gone_from_a_database_is_written_anew(mirrored, how):
    compare, database = mirrored
    GONE[how](database)
    ran = compare()
    assert (ran.code, "cannot be written" in ran.err) == (0, False)
    (parent,), children = runs_of(database)
    assert (parent.info.status, len(children)) == ("FINISHED", 3)
    assert {run.info.lifecycle_stage for run in children.values()} == {"active"}
    stored = database.read_bytes()
    assert compare().code == 0
    assert database.read_bytes() == stored


def test_one_run_that_is_gone_is_written_anew_beside_the_others(mirrored):
    compare, database = mirrored
    _, children = runs_of(database)
    child = children["random R nearest draw 0"].info.run_id
    client_of(database).delete_run(child)
    assert compare().code == 0
    (parent,), children = runs_of(database)
    assert (parent.info.status, len(children)) == ("FINISHED", 3)
    assert children["random R nearest draw 0"].info.run_id != child


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("how", ["deleted", "empty file"])
def test_a_database_that_is_gone_is_made_anew(compare_tiny, home, empty_database, own, how):
    path = find_database(Store(home)) if own else empty_database
    home.mkdir()
    if own:
        shutil.move(empty_database, path)
    options = ("--regimes", "R", "--draws", "1", *(() if own else ("--track", f"sqlite:///{path}")))
    compare_tiny(*options, track=True)
    path.unlink()
    if how == "empty file":
        path.touch()
    ran = compare_tiny(*options, track=True)
    assert (ran.code, "cannot be written" in ran.err) == (0, False)
    (parent,), children = runs_of(path)
    assert (parent.info.status, len(children)) == ("FINISHED", 3)


DAMAGED = {
    "garbage": lambda path: path.write_bytes(b"garbage" * 1000),
    "header": lambda path: path.write_bytes(b"\0" * 100 + path.read_bytes()[100:]),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_database_is_said_in_one_line_and_nothing_else(mirrored, how):
    compare, database = mirrored
    DAMAGED[how](database)
    ran = compare("--quiet")
    assert (ran.code, [row["status"] for row in ran.rows]) == (0, ["ok"] * 3)
    assert ran.err.count("\n") == 1
    assert f"MLflow at sqlite:///{database} cannot be written: " in ran.err


# Secrets, and servers that do not do what servers do.


@pytest.fixture
def serve():
    """Start a server on this machine that answers every request with this; returns its port."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            do_POST = do_GET

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer_with(status, body, kind="application/json"):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hang(handler):
    time.sleep(60)


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


ANSWERS = {
    "500": answer_with(500, b"the password is s3cret-1"),
    "503": answer_with(503, b""),
    "401": answer_with(401, b"s3cret-1 is wrong"),
    "403": answer_with(403, b"no"),
    "404": answer_with(404, b"nothing here"),
    "429": answer_with(429, b"slowly"),
    "a page": answer_with(200, b"<html>hello</html>", "text/html"),
    "no JSON": answer_with(200, b"{"),
    "other JSON": answer_with(200, b"[1, 2]"),
    "empty": answer_with(200, b""),
    "hangs": hang,
    "drips": drip,
}


@pytest.mark.parametrize("how", ANSWERS)
def test_a_server_that_is_none_costs_one_line_without_secrets(compare_tiny, home, serve, monkeypatch, how):
    monkeypatch.setitem(PATIENCE, "server", 1.5)
    port = serve(ANSWERS[how])
    uri = f"http://me:s3cret-1@127.0.0.1:{port}"
    began = time.monotonic()
    ran = compare_tiny("--regimes", "R", "--draws", "1", "--quiet", "--track", uri, track=True)
    assert time.monotonic() - began < 50
    assert (ran.code, [row["status"] for row in ran.rows]) == (0, ["ok"] * 3)
    assert ran.err.count("\n") == 1
    assert f"featbench: MLflow at http://***@127.0.0.1:{port} cannot be written: " in ran.err
    assert "s3cret" not in ran.err + ran.out
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"s3cret" not in written


AWAY = [
    "http://me:s3cret-1@127.0.0.1:9",
    "http://127.0.0.1:9/?token=s3cret-1",
    "http://me:s3cret-1@no-such-host.invalid",
    "postgresql://me:s3cret-1@127.0.0.1:9/db",
    "mysql+pymysql://me:s3cret-1@127.0.0.1:9/db",
    "me:s3cret-1@127.0.0.1:9",
    "http://me:s3cret-1@[::bad",
    "http://me:s3/cret-1@127.0.0.1:9",
    "sqlite:////proc/nowhere/x.db",
    "sqlite:////dev/null/x.db",
]


@pytest.mark.parametrize("uri", AWAY)
def test_a_server_that_is_away_costs_one_line_without_secrets(compare_tiny, home, monkeypatch, tmp_path, uri):
    monkeypatch.chdir(tmp_path)
    ran = compare_tiny("--regimes", "R", "--draws", "1", "--quiet", "--debug", "--track", uri, track=True)
    assert (ran.code, [row["status"] for row in ran.rows]) == (0, ["ok"] * 3)
    assert ran.err.count("\n") == 1
    assert ran.err.count("cannot be written: ") == 1
    assert "cret-1" not in ran.err + ran.out
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"cret-1" not in written


def test_a_server_that_lost_a_comparison_is_asked_for_it_first(compare_tiny, serve, store):
    uri = f"http://127.0.0.1:{serve(answer_with(404, json.dumps({'error_code': 'RESOURCE_DOES_NOT_EXIST'}).encode()))}"
    Journal("parent", {"key": "run"}, True).write(store, uri, "comparison")
    assert Journal.read(store, uri, "comparison") == Journal()
    for answer in (answer_with(500, b""), answer_with(404, b"no such page"), answer_with(200, b"hello")):
        uri = f"http://me:s3cret@127.0.0.1:{serve(answer)}"
        Journal("parent", {"key": "run"}, True).write(store, uri, "comparison")
        assert Journal.read(store, uri, "comparison") == Journal("parent", {"key": "run"}, True)


def test_a_journal_of_another_version_is_set_aside(store, caplog):
    uri = "http://127.0.0.1:9"
    Journal("parent").write(store, uri, "comparison")
    (path,) = (store.home / "tracked").iterdir()
    store.write_record("tracked", path.stem, {"runs": []})
    assert Journal.read(store, uri, "comparison") == Journal()
    assert "is damaged" in caplog.text


# Stores in folders of any name, and several comparisons at once.


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a b#c", "é漢", "100%", "a@b:c"])
def test_a_store_of_any_name_is_tracked(compare_tiny, empty_database, tmp_path, name):
    home = tmp_path / name
    home.mkdir()
    database = Path(shutil.move(empty_database, find_database(Store(home))))
    before = set(tmp_path.iterdir())
    ran = compare_tiny("--regimes", "R", "--draws", "1", "--home", home, track=True)
    assert (ran.code, "cannot be written" in ran.err) == (0, False)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (4,)
    assert list((home / "mlartifacts").rglob("filters.png"))
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "log"}


def test_first_comparisons_at_once_are_all_tracked(tiny, home):
    command = [sys.executable, "-m", "featbench", "compare", "--protocol", "tiny", "--plugin", str(tiny), "--quiet"]
    options = ["--device", "cpu", "--regimes", "R", "--draws", "1", "--seed"]
    started = [subprocess.Popen([*command, *options, str(seed)], stderr=subprocess.PIPE) for seed in range(2)]
    assert [one.communicate()[1] for one in started] == [b"", b""]
    client = client_of(find_database(Store(home)))
    (experiment,) = client.search_experiments(filter_string="name LIKE 'featbench%'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 8
    assert {run.info.status for run in runs} == {"FINISHED"}
