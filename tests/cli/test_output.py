"""Where results go: --output, and standard output."""

import io
import json
import os
import stat
import threading

import pytest
from PIL import Image


@pytest.fixture
def compare(compare_tiny):
    """Compare once, with what is computed only the first time."""
    return lambda *options: compare_tiny("--regimes", "R", "--draws", "1", "--quiet", *options)


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_can_be_named(compare, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = compare("--output", output)
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.rows) == 3
    assert not (tmp_path / "-").exists()


def test_a_file_may_be_called_like_it(compare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = compare("--output", "./-")
    assert (ran.code, ran.out) == (0, "")
    assert len(json.loads((tmp_path / "-").read_text())) == 3


def test_a_link_a_mode_and_a_pipe_stay(compare, tmp_path):
    real, link, pipe = tmp_path / "real.csv", tmp_path / "link.csv", tmp_path / "pipe"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("real.csv")
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    assert compare("--output", link).code == 0
    assert compare("--output", pipe).code == 0
    reader.join(10)
    assert link.is_symlink()
    assert pipe.is_fifo()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert got == [real.read_text()]
    assert len(json.loads(got[0])) == 3


def test_a_device_that_is_full_is_an_ordinary_error(compare):
    ran = compare("--output", "/dev/full")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "featbench: error: --output /dev/full cannot be written: No space left on device\n"


def test_a_tilde_is_expanded(compare, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compare("--output=~/rows.json").code == 0
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 3
    assert compare("--home=~/store").code == 0
    assert (tmp_path / "store/results").is_dir()
    monkeypatch.setenv("FEATBENCH_HOME", "~/other")
    assert compare().code == 0
    assert (tmp_path / "other/results").is_dir()


def test_the_tilde_of_a_plugin_and_of_images_is_expanded(run, tmp_path, tiny, unlabelled, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    plugin, images = tiny.relative_to(tmp_path), unlabelled.relative_to(tmp_path)
    options = (
        "--protocol",
        "tiny",
        "--plugin",
        f"~/{plugin}",
        "--features",
        "psd(updates=1,patches=50)",
        "--draws",
        "1",
    )
    for pool in (f"~/{images}", f"training+~/{images}"):
        ran = run("compare", *options, "--regimes", "U", "--unlabelled", pool, "--no-track", "--quiet", "--plan")
        assert (ran.code, ran.err) == (0, "")
    assert run("compare", "--dataset", "folder:~/nowhere").err.endswith(f"there is no folder {tmp_path / 'nowhere'}\n")


def test_a_broken_plugin_counts_however_its_path_is_written(compare, write_plugin, tmp_path, monkeypatch):
    write_plugin("broken", "raise RuntimeError('on purpose')")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/plugins/broken.py", "./plugins/broken.py", "plugins/../plugins/broken.py"):
        assert compare("--plugin", path).code == 1


def test_a_name_that_is_no_text_is_taken(compare, tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.json")
    ran = compare("--output", path)
    assert (ran.code, ran.out) == (0, "")
    assert len(json.loads(path.read_text())) == 3
    assert "\\udcff.json" in ran.err


def test_a_result_that_is_no_text_everywhere_is_written(compare_tiny, write_plugin, tmp_path):
    # A message with a file's name in it, which is not UTF-8.
    plugin = write_plugin(
        "named",
        """
        from dataclasses import dataclass
        import featbench

        @dataclass(frozen=True)
        class Named(featbench.FilterLearner):
            name = "named"
            family = "fixed"
            def filters(self, bank, patches, seed):
                raise RuntimeError("no \\udcff ± 漢")

        @featbench.hookimpl
        def featbench_learners():
            return [Named]
        """,
    )
    for form in ("json", "csv", "table", "markdown"):
        path = tmp_path / f"rows.{form}"
        ran = compare_tiny(
            *("--features", "named", "--regimes", "fixed", "--draws", "1", "--format", form, "--output", path),
            plugins=[plugin],
        )
        assert ran.code == 1
        assert "± 漢" in path.read_text("utf-8")


EMPTY = ["--output", "--home", "--protocol", "--dataset", "--plugin", "--track", "--refine", "--unlabelled"]


@pytest.mark.parametrize("option", EMPTY)
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_option_is_refused_by_name(run, option, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run("compare", option, text)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1] == (
        f"featbench compare: error: argument {option}: it is empty: give a value, or leave the option out"
    )
    assert list(tmp_path.glob("[!l]*")) == []


MISTAKES = {
    "a folder": (".", "--output . is a folder: name a file"),
    "the name of a folder": ("new/", "--output new is a folder: name a file"),
    "no folder": ("nowhere/rows.csv", "--output nowhere/rows.csv: there is no folder nowhere"),
    "a descriptor that is not open": ("/dev/fd/987", "--output /dev/fd/987 is not open"),
    "a name that is too long": ("x" * 300, f"--output {'x' * 300} cannot be written: File name too long"),
}


@pytest.mark.parametrize("case", MISTAKES)
@pytest.mark.parametrize("command", ["compare", "bench", "filters", "reproduce jarrett2009-table1"])
def test_what_cannot_be_written_is_said_before_anything_is_computed(run, command, case, tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    output, message = MISTAKES[case]
    ran = run(*command.split(), "--output", output)
    assert (ran.code, ran.out, ran.err) == (2, "", f"featbench: error: {message}\n")
    assert not home.exists()


def test_a_picture_can_be_printed(tiny, capfdbinary, tmp_path, monkeypatch):
    from featbench.cli.main import main

    monkeypatch.chdir(tmp_path)
    options = ("--features", "random", "--regimes", "R", "--protocol", "tiny", "--plugin", str(tiny))
    assert main(["filters", *options, "--output", "-", "--quiet"]) == 0
    with Image.open(io.BytesIO(capfdbinary.readouterr().out)) as picture:
        assert picture.format == "PNG"
    assert list(tmp_path.glob("*.png")) == []


def test_a_study_needs_a_folder(run):
    ran = run("study", "energy", "--output", "-")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("featbench: error: --output - is no folder")


def test_help_of_a_study_is_a_result(run):
    ran = run("study", "energy", "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("usage: featbench study energy")
