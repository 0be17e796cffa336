"""Python files imported by path: fresh or once for each content, with nothing left behind by one that raises."""

import dataclasses
import os
import pickle
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from featbench.errors import PluginError
from featbench.system.source_files import import_file, read_source

REUSE = pytest.mark.parametrize("reuse", [False, True])


@pytest.fixture
def write(tmp_path):
    def write(source, name="thing.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(source))
        return path

    return write


@pytest.fixture(autouse=True)
def no_modules_left():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def added(before):
    return sorted(name for name in set(sys.modules) - before if name.startswith("featbench_file_"))


@REUSE
def test_a_file_is_a_module_of_its_own(write, reuse):
    path = write("value = 3\n")
    module = import_file(path, reuse=reuse)
    assert module.value == 3
    assert sys.modules[module.__name__] is module
    assert module.__name__.startswith("featbench_file_thing_")
    assert Path(module.__file__) == path
    assert "thing" not in sys.modules
    assert not (path.parent / "__pycache__").exists()


def test_a_file_runs_at_each_import_or_once_for_each_content(write, tmp_path):
    source = f"open({str(tmp_path / 'runs')!r}, 'a').write('.')\nvalue = 3\n"
    path, runs = write(source), tmp_path / "runs"
    first = import_file(path)
    assert import_file(path) is not first
    assert runs.read_text() == ".."
    kept = import_file(path, reuse=True)  # the last of them
    assert kept is import_file(path, reuse=True) is not first
    assert runs.read_text() == ".."
    write(source.replace("value = 3", "value = 4"))
    assert import_file(path, reuse=True).value == 4
    write(source)
    assert import_file(path, reuse=True) is kept
    assert runs.read_text() == "..."


@REUSE
def test_an_edit_of_the_same_length_within_a_second_is_seen(write, monkeypatch, reuse):
    # Bytecode is told apart by seconds and length alone, and neither changes here.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for value in (1, 2):
        path = write(f"value = {value}\n")
        os.utime(path, ns=(10**18, 10**18))
        assert import_file(path, reuse=reuse).value == value


@REUSE
def test_files_of_one_name_do_not_mix(write, reuse):
    one, other = (import_file(write("value = 3\n", f"{folder}/thing.py"), reuse=reuse) for folder in "ab")
    assert one is not other
    assert one.__name__ != other.__name__


@REUSE
@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def f(:", SyntaxError),
        ("raise ValueError('no')", ValueError),
        ("import sys\nsys.exit(3)", SystemExit),
        ("raise KeyboardInterrupt", KeyboardInterrupt),
        ("import sys\ndel sys.modules[__name__]\nraise ValueError('no')", ValueError),
    ],
)
def test_a_file_that_raises_leaves_no_module_and_may_be_mended(write, source, error, reuse):
    before = set(sys.modules)
    path = write(source)
    for _ in range(2):
        with pytest.raises(error):
            import_file(path, reuse=reuse)
    assert added(before) == []
    write("value = 3\n")
    assert import_file(path, reuse=reuse).value == 3
    assert len(added(before)) == 1


def test_a_second_run_that_raises_leaves_the_module_of_the_first(write, tmp_path):
    path = write(f"from pathlib import Path\nassert not Path({str(tmp_path / 'flag')!r}).exists()\n")
    first = import_file(path)
    (tmp_path / "flag").touch()
    with pytest.raises(AssertionError):
        import_file(path)
    assert sys.modules[first.__name__] is first
    assert import_file(path, reuse=True) is first


@REUSE
def test_dataclasses_pickle_and_sources_find_the_module(write, reuse):
    source = """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import ClassVar

        @dataclass(frozen=True)
        class Point:
            kind: ClassVar[str] = "point"
            x: int = 3
    """
    path = write(source)
    point = import_file(path, reuse=reuse).Point(4)
    assert dataclasses.asdict(point) == {"x": 4}
    assert pickle.loads(pickle.dumps(point)) == point
    assert read_source(type(point)) == path.read_text()


def test_a_relative_path_still_names_the_source_elsewhere(write, monkeypatch, tmp_path):
    path = write("class Thing:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    module = import_file(Path("thing.py"))
    monkeypatch.chdir("/")
    assert read_source(module.Thing) == path.read_text()


@REUSE
def test_files_that_are_not_python_or_cannot_be_read_are_errors(write, tmp_path, reuse):
    before = set(sys.modules)
    with pytest.raises(PluginError, match=r"thing\.txt is not a Python file \(\.py\)"):
        import_file(write("value = 3\n", "thing.txt"), reuse=reuse)
    with pytest.raises(FileNotFoundError):
        import_file(tmp_path / "nowhere.py", reuse=reuse)
    assert added(before) == []
