"""Temporary files: names that never collide, and what becomes of those that killed processes leave."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from textwrap import dedent

import pytest

from featbench.system.files import OLD, remove_leftovers, write_atomically
from featbench.system.json_text import format_json
from featbench.system.locks import hold_lock, lock_open_file

SAME_NUMBER = """
    import os, sys
    from pathlib import Path
    from featbench.system.files import write_atomically
    os.getpid = lambda: 1  # as in a container
    for round in range(30):
        write_atomically(Path(sys.argv[1]), lambda file: file.write(sys.argv[2].encode() * 50_000))
"""


def make_old(path, age=OLD + 60):
    then = time.time() - age
    os.utime(path, (then, then))


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    path, failed = tmp_path / "file", []

    def write(sign):
        try:
            for _ in range(20):
                write_atomically(path, lambda file: file.write(sign * 20_000))
                assert set(path.read_bytes()) <= set(b"abcdefgh")
                assert len(set(path.read_bytes())) == 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(bytes([sign]),)) for sign in b"abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert list(tmp_path.iterdir()) == [path]


def test_processes_of_one_number_that_write_one_file_leave_one_of_their_contents(tmp_path):
    path = tmp_path / "file"
    command = [sys.executable, "-c", dedent(SAME_NUMBER), str(path)]
    writers = [subprocess.Popen([*command, sign], stderr=subprocess.PIPE) for sign in "abc"]
    assert [writer.communicate()[1] for writer in writers] == [b""] * 3
    assert len(set(path.read_bytes())) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["x" * 255, "é" * 127, "a b", ".hidden", "-dash", "a\nb", os.fsdecode(b"m\xfc"), "%s?#"]
)
def test_a_file_of_any_name_is_written(tmp_path, name):
    write_atomically(tmp_path / name, lambda file: file.write(b"whole"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"whole"


def test_a_temporary_file_is_never_one_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    taken = tmp_path / f".featbench-{'0' * 32}.tmp"
    taken.write_bytes(b"another's")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", lambda file: file.write(b"mine"))
    assert not (tmp_path / "file").exists()


LEFT = [
    ".featbench-0123456789abcdef0123456789abcdef.tmp",
    ".key.json.1.tmp",
    ".key.npy.4242.tmp",
    ".w.safetensors.7.tmp",
]


@pytest.mark.parametrize("name", LEFT)
def test_what_a_dead_process_left_a_day_ago_is_removed(tmp_path, name):
    (tmp_path / name).write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert (tmp_path / name).exists()
    make_old(tmp_path / name)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


KEPT = ["key.json", "key.npy", "notes.tmp", ".hidden", ".tmp", "lock", ".featbench", "tmp"]


@pytest.mark.parametrize("name", KEPT)
def test_nothing_else_is_removed(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    make_old(tmp_path / name)
    remove_leftovers(tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_what_a_living_process_writes_stays_however_old_it_looks(tmp_path):
    removed = []

    def write(file):
        file.write(b"slowly")
        file.flush()
        (temporary,) = tmp_path.glob(".*.tmp")
        make_old(temporary, 400 * 24 * 3600)
        remove_leftovers(tmp_path)
        removed.append(not temporary.exists())

    write_atomically(tmp_path / "file", write)
    assert removed == [False]
    assert (tmp_path / "file").read_bytes() == b"slowly"


def test_where_nobody_knows_who_writes_a_file_stays(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError("no locks available")

    monkeypatch.setattr("featbench.system.files.lock_open_file", refuse)
    write_atomically(tmp_path / "file", lambda file: file.write(b"whole"))
    path = tmp_path / LEFT[0]
    path.write_bytes(b"half")
    make_old(path)
    remove_leftovers(tmp_path)
    assert path.exists()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), lambda path: path.mkdir(), os.mkfifo])
def test_what_is_no_file_is_not_followed(tmp_path, make):
    path = tmp_path / LEFT[0]
    make(path)
    os.utime(path, (0, 0), follow_symlinks=False)
    remove_leftovers(tmp_path)
    assert Path("/etc/passwd").exists()


def test_a_store_removes_leftovers_in_all_of_its_folders(store):
    store.write_record("results", "key", {})
    store.write_record("artifacts/features", "key", {})
    for folder in ("", "results", "artifacts/features"):
        path = store.home / folder / LEFT[0]
        path.write_bytes(b"half")
        make_old(path)
    store.remove_leftovers()
    assert list(store.home.rglob("*.tmp")) == []


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        with hold_lock(tmp_path / "lock", 30) as held:
            assert held
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_a_lock_that_somebody_keeps_is_given_up(tmp_path):
    with hold_lock(tmp_path / "lock", 1) as held, hold_lock(tmp_path / "lock", 0.1) as again:
        assert (held, again) == (True, False)
    with hold_lock(tmp_path / "lock", 1) as held:
        assert held


def test_a_lock_of_a_dead_process_is_free(tmp_path):
    program = "import os, sys; from featbench.system.locks import lock_open_file as f\n"
    program += "f(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "lock")], check=False)
    assert done.returncode == -9
    with (tmp_path / "lock").open() as file:
        assert lock_open_file(file.fileno())


def test_a_lock_in_a_folder_that_is_not_there_is_not_held(tmp_path):
    with hold_lock(tmp_path / "nowhere" / "lock", 1) as held:
        assert not held


def test_json_escapes_what_is_no_utf_8_and_nothing_else():
    assert format_json({"a": "m\udcfc é 漢 \U0001f600"}, indent=1) == '{\n "a": "m\\udcfc é 漢 \U0001f600"\n}\n'
