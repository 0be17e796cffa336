import errno
import io
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.errors import StoreError
from featbench.store.records import DEFAULT_HOME
from featbench.store.store import Store
from featbench.system.files import write_atomically
from featbench.types import Result, Score, Seconds

RECORD = {"score": 12.5, "name": "±", "list": [1, None, True]}


def flip_first(data):
    return bytes([data[0] ^ 1]) + data[1:]


def flip_middle(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def flip_last(data):
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGES = {
    "first byte flipped": flip_first,
    "middle byte flipped": flip_middle,
    "last byte flipped": flip_last,
    "truncated": lambda data: data[: len(data) // 2],
    "two bytes short": lambda data: data[:-2],
    "too long": lambda data: data + b"x",
    "empty": lambda data: b"",
    "garbage": lambda data: bytes(range(256)) * 3,
    "another document": lambda data: b'{"checksum": "0", "status": "ok"}',
    "no object": lambda data: b"[1, 2]",
}


def leftovers(folder):
    """Return temporary files below a folder."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def damage(path, how):
    path.write_bytes(DAMAGES[how](path.read_bytes()))


# Writing.


def test_blocks_with_rows_of_another_length_are_refused(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="rows of"):
        store.write_blocks("features", "key", None, iter([np.zeros((2, 3)), np.zeros((2, 4))]), dict)
    assert store.read_array("features", "key") is None


def test_a_writer_that_raises_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the new")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "made" / "file"
    seen = []

    def write(file):
        file.write(b"first half,")
        file.flush()
        seen.append(path.exists())
        file.write(b" second half")

    write_atomically(path, write)
    assert seen == [False]
    assert path.read_bytes() == b"first half, second half"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    path = tmp_path / "file"
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("rename"), replace(*names)))
    write_atomically(path, lambda file: file.write(b"new"))
    assert order == ["sync", "rename"]


def test_a_process_killed_while_it_writes_leaves_the_old_record(store):
    store.write_record("results", "key", RECORD)
    program = """
        import os, signal, sys
        from pathlib import Path
        from featbench.system.files import write_atomically

        def write(file):
            file.write(b"{")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        write_atomically(Path(sys.argv[1]), write)
    """
    path = store.home / "results/key.json"
    done = subprocess.run([sys.executable, "-c", dedent(program), str(path)], capture_output=True, check=False)
    assert done.returncode == -9
    assert Store(store.home).read_record("results", "key") == RECORD
    assert [key for key, _ in Store(store.home).records("results")] == ["key"]


def no_space(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(*_arguments, **_options):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def open_to_read(path, mode="r", *arguments, open=io.open, **options):
    if "x" in mode:
        read_only()
    return open(path, mode, *arguments, **options)


FULL_DISKS = {
    "cannot sync": ("os.fsync", no_space, "No space left on device"),
    "cannot rename": ("os.replace", no_space, "No space left on device"),
    "cannot open": ("io.open", open_to_read, "Read-only file system"),
    "cannot make folders": ("os.mkdir", read_only, "Read-only file system"),
}


@pytest.fixture(params=FULL_DISKS)
def full_disk(request):
    """Break the disk for as long as the context lasts (permissions would not stop a test that runs as root)."""
    target, broken, reason = FULL_DISKS[request.param]

    def break_disk(monkeypatch):
        monkeypatch.setattr(target, broken)
        return reason

    return break_disk


def test_a_store_that_cannot_be_written_says_so_and_what_to_do(store, full_disk):
    with pytest.MonkeyPatch.context() as patch:
        reason = full_disk(patch)
        with pytest.raises(StoreError, match=f"cannot write .*key.json: {reason}; choose another store with --home"):
            store.write_record("results", "key", RECORD)
    assert leftovers(store.home) == []
    assert store.read_record("results", "key") is None


def test_a_store_that_cannot_be_written_stops_a_comparison_at_once(compare_tiny, home, full_disk, log):
    with pytest.MonkeyPatch.context() as patch:
        reason = full_disk(patch)
        ran = compare_tiny("--quiet")
    assert ran.code == 2
    assert ran.err.startswith(f"featbench: error: cannot write {home}")
    assert reason in ran.err
    assert ran.err.count("\n") == 1
    assert log.lines() == []


def test_a_disk_that_fills_up_stops_a_comparison_which_goes_on_later(compare_tiny, write_learner, home, log):
    replace = os.replace
    learner = write_learner("counted")
    options = ("--features", "counted", "--regimes", "U", "--draws", "3", "--quiet")

    def fill_up(source, target):
        if log.count("counted") == 2:
            no_space()
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", fill_up)
        ran = compare_tiny(*options, plugins=[learner])
    assert (ran.code, ran.out) == (2, "")
    assert "No space left on device" in ran.err
    assert leftovers(home) == []
    again = compare_tiny(*options, plugins=[learner])
    assert again.code == 0
    assert again.row("counted")["n"] == 3
    assert log.count("counted") == 4  # the second draw again, and the third


def test_a_home_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file").require_writable()
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file").read_record("results", "key")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("inside", ["", "inside"])
def test_a_comparison_into_a_file_ends_with_one_line(compare_tiny, tmp_path, inside):
    (tmp_path / "file").write_text("mine")
    ran = compare_tiny("--quiet", "--home", tmp_path / "file" / inside)
    assert ran.code == 2
    assert ran.err.startswith("featbench: error: ")
    assert str(tmp_path / "file") in ran.err
    assert ran.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_the_home_is_the_argument_then_the_environment_then_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATBENCH_HOME", str(tmp_path / "environment"))
    assert Store(tmp_path / "argument").home == tmp_path / "argument"
    assert Store().home == tmp_path / "environment"
    monkeypatch.setenv("FEATBENCH_HOME", "")
    assert Store().home == DEFAULT_HOME


def test_asking_whether_a_store_is_writable_leaves_nothing_behind(store):
    store.require_writable()
    assert list(store.home.iterdir()) == []


# Records.


def test_a_record_comes_back_as_it_was_written(store):
    store.write_record("results", "key", RECORD)
    assert store.read_record("results", "key") == RECORD
    assert store.read_record("results", "another") is None
    assert leftovers(store.home) == []


def test_numbers_keep_their_full_precision(store):
    numbers = [0.1 + 0.2, 1 / 3, 1e-300, 2**53 + 1]
    store.write_record("results", "key", {"numbers": numbers})
    assert store.read_record("results", "key") == {"numbers": numbers}


def test_records_are_strict_json(store):
    with pytest.raises(ValueError, match="JSON"):
        store.write_record("results", "key", {"score": float("nan")})
    assert store.read_record("results", "key") is None


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_record_is_set_aside_and_said(store, caplog, how):
    store.write_record("results", "key", RECORD)
    path = store.home / "results/key.json"
    damage(path, how)
    damaged = path.read_bytes()
    with caplog.at_level(logging.WARNING, logger="featbench"):
        assert store.read_record("results", "key") is None
    assert f"{path} is damaged" in caplog.text
    assert not path.exists()
    assert (store.home / "damaged" / path.relative_to(store.home)).read_bytes() == damaged
    store.write_record("results", "key", RECORD)
    assert store.read_record("results", "key") == RECORD


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_changed_byte_never_gives_another_document(data):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.write_record("results", "key", RECORD)
        path = store.home / "results/key.json"
        text = bytearray(path.read_bytes())
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(text)
        assert store.read_record("results", "key") in (None, RECORD)


def test_damaged_records_are_left_out_of_a_listing(store):
    for key in ("c", "a", "b"):
        store.write_record("results", key, {"name": key})
    damage(store.home / "results/b.json", "truncated")
    assert list(store.records("results")) == [("a", {"name": "a"}), ("c", {"name": "c"})]
    assert list(store.records("nothing")) == []


def make_folder(path):
    path.mkdir()
    (path / "inside").write_text("mine")


def make_link_to_itself(path):
    path.symlink_to(path.name)


IN_PLACE = {
    "folder": make_folder,
    "empty folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link to itself": make_link_to_itself,
    "link to a folder": lambda path: path.symlink_to(path.parent),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("what", IN_PLACE)
@pytest.mark.parametrize("name", ["results/key.json", "artifacts/kind/key.npy", "artifacts/kind/key.json"])
def test_what_is_no_file_is_set_aside_like_a_damaged_one(store, caplog, name, what):
    array = np.arange(3)
    store.write_record("results", "key", RECORD)
    store.write_array("kind", "key", array, {})
    path = store.home / name
    path.unlink()
    IN_PLACE[what](path)
    fresh = Store(store.home)
    read = fresh.read_record("results", "key") if "results" in name else fresh.read_array("kind", "key")
    assert read is None
    assert f"{path} is damaged" in caplog.text
    assert os.path.lexists(store.home / "damaged" / name)
    assert not os.path.lexists(path)
    store.write_record("results", "key", RECORD)
    store.write_array("kind", "key", array, {})
    assert Store(store.home).read_record("results", "key") == RECORD
    assert Store(store.home).read_array("kind", "key")[0].tolist() == [0, 1, 2]


def test_a_link_that_leads_nowhere_is_replaced_by_the_file(store, tmp_path):
    (store.home / "results").mkdir(parents=True)
    (store.home / "results/key.json").symlink_to("nowhere.json")
    assert store.read_record("results", "key") is None
    store.write_record("results", "key", RECORD)
    assert store.read_record("results", "key") == RECORD
    assert not (store.home / "results/nowhere.json").exists()


def test_a_link_to_a_sound_file_is_read_through(store, tmp_path):
    store.write_record("results", "key", RECORD)
    path = store.home / "results/key.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert store.read_record("results", "key") == RECORD


def test_every_damaged_file_is_kept_beside_the_earlier_ones(store):
    for text in ("first", "second", "third"):
        store.write_record("results", "key", RECORD)
        (store.home / "results/key.json").write_text(text)
        assert store.read_record("results", "key") is None
    folder = store.home / "damaged/results"
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {"key.json": "first", "key.json.1": "second", "key.json.2": "third"}


def test_a_damaged_record_that_cannot_be_moved_is_said_and_not_used(store, monkeypatch, caplog):
    store.write_record("results", "key", RECORD)
    damage(store.home / "results/key.json", "truncated")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", read_only)
        assert store.read_record("results", "key") is None
    assert "key.json is damaged, and cannot be moved away (Read-only file system)" in caplog.text
    store.write_record("results", "key", RECORD)
    assert store.read_record("results", "key") == RECORD


# Results.


def test_a_result_comes_back_as_it_was_written(store):
    result = Result(
        "key",
        "ok",
        score=Score("accuracy", 100 / 3, "%"),
        predictions=np.array([2, 0, 1]),
        seconds=Seconds(0.1, 0.2, 0.3, 0.4),
        report={"strength": 0.1, "converged": True},
        provenance="abc",
    )
    store.write_result(result, {"draw": 0})
    found = store.read_result("key")
    assert (found.status, found.score, found.seconds) == ("ok", result.score, result.seconds)
    assert (found.report, found.provenance) == (result.report, "abc")
    predictions, _ = store.read_array("predictions", "key")
    assert predictions.tolist() == [2, 0, 1]
    assert json.loads((store.home / "results/key.json").read_text())["cell"] == {"draw": 0}


def test_a_failed_result_keeps_its_message_and_its_traceback(store):
    store.write_result(Result("key", "failed", message="why", traceback="where"), {})
    found = store.read_result("key")
    assert (found.status, found.score, found.message, found.traceback) == ("failed", None, "why", "where")
    assert store.read_array("predictions", "key") is None


# Artifacts.


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_an_array_comes_back_by_memory_map_as_it_was_written(store, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    store.write_array("features", "key", array, {"seconds": 0.5})
    found, about = Store(store.home).read_array("features", "key")
    assert isinstance(found, np.memmap)
    assert found.dtype == dtype
    assert np.array_equal(found, array)
    assert about == {"seconds": 0.5}
    assert Store(store.home).read_array("features", "another") is None
    assert leftovers(store.home) == []


def test_tensors_come_back_as_they_were_written(store):
    tensors = {"1/weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "1/table": np.arange(4)}
    store.write_tensors("filters", "key", tensors, {"seconds": 0.5})
    found, about = Store(store.home).read_tensors("filters", "key")
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        name: (array.dtype, array.tolist()) for name, array in tensors.items()
    }
    assert about == {"seconds": 0.5}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("ending", [".npy", ".safetensors", ".json"])
def test_a_damaged_artifact_is_set_aside_and_said(store, caplog, ending, how):
    array = np.arange(30, dtype=np.float32)

    def write():
        if ending == ".safetensors":
            store.write_tensors("kind", "key", {"a": array}, {})
        else:
            store.write_array("kind", "key", array, {})

    def read():
        fresh = Store(store.home)
        return fresh.read_tensors("kind", "key") if ending == ".safetensors" else fresh.read_array("kind", "key")

    write()
    folder = store.home / "artifacts/kind"
    damage(folder / f"key{ending}", how)
    with caplog.at_level(logging.WARNING, logger="featbench"):
        assert read() is None
    assert f"key{ending} is damaged" in caplog.text
    assert not (folder / f"key{ending}").exists()
    assert [path.name for path in (store.home / "damaged").rglob("*.*")] == [f"key{ending}"]
    write()
    found = read()[0]
    assert np.array_equal(found["a"] if ending == ".safetensors" else found, array)


@pytest.mark.parametrize("ending", [".npy", ".json"])
def test_an_artifact_of_which_a_part_is_gone_counts_as_none(store, ending):
    store.write_array("kind", "key", np.arange(3), {})
    (store.home / f"artifacts/kind/key{ending}").unlink()
    assert Store(store.home).read_array("kind", "key") is None


def test_an_array_written_again_is_checked_again(store):
    store.write_array("kind", "key", np.zeros(3), {})
    assert store.read_array("kind", "key") is not None
    store.write_array("kind", "key", np.ones(3), {})
    damage(store.home / "artifacts/kind/key.npy", "last byte flipped")
    assert store.read_array("kind", "key") is None


# A comparison on a damaged store.

PARTS = {
    "results": "results/*.json",
    "surveys": "surveys/*.json",
    "comparisons": "comparisons/*.json",
    "features": "artifacts/features/*.npy",
    "what is known of features": "artifacts/features/*.json",
    "filters": "artifacts/filters/*.safetensors",
    "networks": "artifacts/networks/*.safetensors",
    "predictions": "artifacts/predictions/*.npy",
}


def scores(ran):
    return [(row["learner"], row["regime"], row["status"], row["scores"]) for row in ran.rows]


@pytest.mark.parametrize("part", PARTS)
def test_what_is_damaged_is_computed_again_with_the_same_result(compare_tiny, home, part):
    options = ("--regimes", "R,R+", "--draws", "1")
    before = compare_tiny(*options)
    damaged = sorted(home.glob(PARTS[part]))
    assert damaged
    for path in damaged:
        damage(path, "middle byte flipped")
    # Without results, everything that they are made of is read.
    for path in [] if part == "results" else home.glob("results/*.json"):
        path.unlink()
    after = compare_tiny(*options)
    assert after.code == 0
    assert scores(after) == scores(before)
    reported = [path for path in damaged if f"{path} is damaged: it was moved to" in after.err]
    if part in ("comparisons", "predictions"):  # written again, unread
        assert reported == []
    else:
        assert reported == damaged
        assert {path.name for path in damaged} <= {path.name for path in (home / "damaged").rglob("*.*")}
    assert "nothing to compute" in compare_tiny(*options).err
    assert leftovers(home) == []


def test_only_the_cell_of_a_damaged_result_is_computed_again(compare_tiny, write_learner, home, log):
    options = ("--features", "counted", "--regimes", "U")
    learner = write_learner("counted")
    before = compare_tiny(*options, plugins=[learner])
    damage(sorted(home.glob("results/*.json"))[0], "truncated")
    after = compare_tiny(*options, plugins=[learner])
    assert "1 cells computed, 5 read from the store" in after.err
    assert scores(after) == scores(before)
    assert log.count("counted") == 2


def test_a_result_in_which_a_score_was_edited_is_not_believed(compare_tiny, home):
    before = compare_tiny("--regimes", "R", "--draws", "1")
    for path in home.glob("results/*.json"):
        document = json.loads(path.read_text())
        document["score"]["value"] = 99.0
        path.write_text(json.dumps(document))
    after = compare_tiny("--regimes", "R", "--draws", "1")
    assert scores(after) == scores(before)
    assert after.err.count("is damaged") == 3


# Arrays that are written block by block.


def blocks_of(array, *steps):
    ends = np.cumsum([0, *steps])
    return (array[start:end] for start, end in itertools.pairwise(ends))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(7, 3), (7,), (7, 2, 3)])
@pytest.mark.parametrize("steps", [(7,), (3, 4), (1, 1, 5), (2, 0, 5)])
def test_blocks_come_back_as_one_array(store, dtype, shape, steps):
    array = np.random.default_rng(0).integers(-50, 50, shape).astype(dtype)
    store.write_blocks("features", "key", 7, blocks_of(array, *steps), lambda: {"seconds": 2.5})
    found, about = Store(store.home).read_array("features", "key")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)
    assert isinstance(found, np.memmap)
    assert about == {"seconds": 2.5}
    store.write_array("features", "whole", array, {})
    files = [(store.home / "artifacts/features" / f"{name}.npy").read_bytes() for name in ("key", "whole")]
    assert files[0] == files[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 3), (7, 2, 1, 3)])
@pytest.mark.parametrize("steps", [(7,), (3, 4), (1,) * 7, (2, 0, 5), (0, 7)])
def test_blocks_of_as_many_rows_as_come_are_one_array(store, dtype, shape, steps):
    array = np.random.default_rng(0).integers(-50, 50, shape).astype(dtype)
    about = []
    blocks = (about.append(len(block)) or block for block in blocks_of(array, *steps))
    store.write_blocks("features", "key", None, blocks, lambda: {"lengths": about})
    found, kept = Store(store.home).read_array("features", "key")
    assert (found.dtype, found.shape) == (array.dtype, shape)
    assert np.array_equal(found, array)
    assert isinstance(found, np.memmap)
    assert kept == {"lengths": list(steps)}
    store.write_array("features", "whole", array, {})
    files = [(store.home / "artifacts/features" / f"{name}.npy").read_bytes() for name in ("key", "whole")]
    assert files[0] == files[1]


@pytest.mark.parametrize("rows", [9, 10, 99, 100, 12345, 10**6])
def test_the_header_has_room_for_as_many_rows_as_come(store, rows):
    array = np.arange(rows, dtype=np.uint8)
    steps = [rows // 3, rows - rows // 3]
    store.write_blocks("features", "key", None, blocks_of(array, *steps), dict)
    path = store.home / "artifacts/features/key.npy"
    assert np.array_equal(np.load(path), array)
    # Data begin at a multiple of 64 bytes, whatever the header says.
    assert (path.stat().st_size - rows) % 64 == 0


def test_no_blocks_at_all_are_refused_and_leave_nothing(store):
    with pytest.raises(ValueError, match="there are no blocks to write"):
        store.write_blocks("features", "key", None, iter(()), dict)
    assert [path for path in store.home.rglob("*") if path.is_file()] == []


def test_as_many_rows_as_come_and_then_an_interruption_leave_what_was_there_before(store):
    def blocks():
        yield np.ones((3, 2))
        raise KeyboardInterrupt

    store.write_array("features", "key", np.arange(6), {"old": 1})
    with pytest.raises(KeyboardInterrupt):
        store.write_blocks("features", "key", None, blocks(), dict)
    found, about = Store(store.home).read_array("features", "key")
    assert (found.tolist(), about) == ([0, 1, 2, 3, 4, 5], {"old": 1})
    assert leftovers(store.home) == []


def test_blocks_that_do_not_lie_in_memory_one_after_the_other_are_written_in_order(store):
    array = np.arange(24, dtype=np.float32).reshape(4, 6).T
    store.write_blocks("features", "key", 6, blocks_of(array, 2, 4), dict)
    assert np.array_equal(store.read_array("features", "key")[0], array)


def test_what_is_said_of_blocks_is_asked_after_the_last_of_them(store):
    order = []

    def blocks():
        for number in range(3):
            order.append(number)
            yield np.zeros((2, 2))

    store.write_blocks("features", "key", 6, blocks(), lambda: order.append("about") or {})
    assert order == [0, 1, 2, "about"]


@pytest.mark.parametrize(("rows", "steps"), [(7, (3, 3)), (7, (3, 3, 3)), (7, ()), (0, (1,))])
def test_blocks_that_are_not_the_rows_are_refused_and_leave_nothing(store, rows, steps):
    array = np.zeros((20, 2))
    with pytest.raises(ValueError, match=f"the blocks hold {sum(steps)} rows, not {rows}"):
        store.write_blocks("features", "key", rows, blocks_of(array, *steps), dict)
    assert store.read_array("features", "key") is None
    assert [path for path in store.home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_blocks_that_are_interrupted_leave_what_was_there_before(store, error):
    def blocks():
        yield np.ones((3, 2))
        raise error

    with pytest.raises(error):
        store.write_blocks("features", "key", 6, blocks(), dict)
    assert [path for path in store.home.rglob("*") if path.is_file()] == []
    store.write_array("features", "key", np.arange(6), {"old": 1})
    with pytest.raises(error):
        store.write_blocks("features", "key", 6, blocks(), dict)
    found, about = Store(store.home).read_array("features", "key")
    assert (found.tolist(), about) == ([0, 1, 2, 3, 4, 5], {"old": 1})
    assert leftovers(store.home) == []


def test_blocks_that_fill_the_disk_are_said(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write_blocks("features", "key", 6, blocks_of(np.zeros((6, 2)), 6), dict)
    assert leftovers(store.home) == []
