"""Signals that end the program: a word, an exit code, nothing half done, and no traceback."""

import os
import signal
import subprocess
import sys
import time
from textwrap import dedent

import pytest

from featbench.cli import signals

PROGRAM = dedent(
    """
    import signal, sys, threading, time
    from pathlib import Path
    from featbench.built_in import Command
    from featbench.cli import main
    from featbench.system.files import write_atomically

    def wait(*arguments):
        Path("ready").touch()
        time.sleep(60)

    def clean_up():
        try:
            wait()
        finally:
            Path("cleaning").touch()
            time.sleep(1)
            Path("cleaned").touch()

    def write(options=None):
        write_atomically(Path("file"), lambda file: (file.write(b"part"), file.flush(), wait()))

    def run(options):
        ACTION
        return 0

    main._find_command = lambda name: Command("list", "act", lambda parser: None, run)
    sys.exit(main.main())
    """
)

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


def message(name):
    return f"featbench: {WORDS[name]}; finished results are kept, and the same command continues from there\n"


@pytest.fixture
def start(tmp_path):
    """Start the program with a command that does this, and wait until it is ready."""

    def start(action, before="", **streams):
        (tmp_path / "act.py").write_text(before + PROGRAM.replace("ACTION", action))
        process = subprocess.Popen(
            [sys.executable, "act.py", "act"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )
        wait_for(tmp_path / "ready", process)
        return process

    return start


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("action", ["wait()", "clean_up()", "write()"])
def test_a_signal_ends_the_program_with_a_word(start, name, action, tmp_path):
    process = start(action)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert (out, err.decode()) == (b"", message(name))
    assert process.returncode == 128 + getattr(signal, name)
    assert (tmp_path / "cleaned").exists() == (action == "clean_up()")
    # What was being written has left nothing.
    left = {path.name for path in tmp_path.iterdir() if path.is_file()} - {"ready", "cleaning", "cleaned", "log"}
    assert left == {"act.py"}


@pytest.mark.parametrize("name", WORDS)
def test_a_second_signal_needs_no_traceback(start, name, tmp_path):
    process = start("clean_up()")
    process.send_signal(getattr(signal, name))
    wait_for(tmp_path / "cleaning", process)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert err.decode() == message(name)
    assert not (tmp_path / "cleaned").exists()


def test_a_signal_while_the_program_closes_down_ends_it_on_the_spot(start, tmp_path):
    action = "import atexit; atexit.register(wait); return 0"
    process = start(action)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("name", WORDS)
def test_a_signal_that_the_caller_ignores_stays_ignored(start, name):
    before = f"import signal; signal.signal(signal.{name}, signal.SIG_IGN)\n"
    process = start("Path('ready').touch(); time.sleep(1)", before)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_terminal_that_is_gone_is_no_error(start, stream):
    process = start("wait()", **{stream: subprocess.DEVNULL})
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP


def test_a_comparison_that_is_ended_goes_on_where_it_was(
    compare_tiny, write_learner, tiny, home, log, tmp_path, monkeypatch
):
    body = """
        import time
        path = os.environ["FEATBENCH_TEST_LOG"]
        while open(path).read().split().count("slow") == 2 and not os.path.exists(path + ".go"):
            time.sleep(0.01)
        return weight
    """
    plugin = write_learner("slow", body)
    options = ("--features", "slow", "--regimes", "U", "--draws", "3", "--device", "cpu", "--no-track")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "featbench", "compare", "--protocol", "tiny", "--plugin", tiny, "--plugin", plugin),
            *(*options, "--home", home),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 120
    while log.count("slow") < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, b"")
    assert err.decode().endswith(message("SIGTERM"))
    assert "Traceback" not in err.decode()
    assert [path for path in home.rglob("*") if path.suffix == ".tmp"] == []
    (tmp_path / "log.go").touch()
    resumed = compare_tiny(*options, plugins=[plugin])
    assert resumed.code == 0
    assert "2 cells computed, 7 read from the store" in resumed.err


def test_a_call_from_python_leaves_signals_alone(run):
    before = [signal.getsignal(getattr(signal, name)) for name in WORDS]
    assert run("list", "metrics").code == 0
    assert [signal.getsignal(getattr(signal, name)) for name in WORDS] == before


def test_pythons_own_interruption_is_one_by_ctrl_c():
    assert signals.find_exit_code(KeyboardInterrupt()) == 130
    assert signals.describe(KeyboardInterrupt()) == "interrupted"
