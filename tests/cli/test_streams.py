"""The program's streams: closed, full, without a reader, of other encodings, and what plugins print into them."""

import ast
import csv
import io
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent, indent

import pytest

from featbench import cli

PROGRAM = dedent(
    """
    import sys
    from featbench.built_in import Command
    from featbench.cli import main

    def run(options):
        import atexit, ctypes, logging, os, subprocess, threading
        from featbench.cli.streams import emit
        {body}
        return {code}

    main._find_command = lambda name: Command("list", "act", lambda parser: None, run)
    sys.exit(main.main())
    """
)
"""The program with a command of its own in place of a built-in one: it starts in a fraction of a second."""

RESULT = "emit('result ±\\n'); print('progress', file=sys.stderr)"


@pytest.fixture
def shell(tmp_path):
    """Run the program with a command of this body, with the shell's redirections; returns its exit code and output."""

    def shell(body, redirections="", code=0, **environment):
        (tmp_path / "act.py").write_text(PROGRAM.format(body=indent(dedent(body), "    ").strip(), code=code))
        line = f'"{sys.executable}" act.py act {redirections}'
        known = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            capture_output=True,
            cwd=tmp_path,
            env={**known, "PYTHONPATH": os.getcwd(), **environment},  # noqa: PTH109
            timeout=120,
        )
        for stream in (done.stdout, done.stderr):
            for word in (b"internal error", b"Traceback", b"Exception ignored"):
                assert word not in stream
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return shell


CLOSED = "featbench: error: standard output cannot be written: it is closed\n"
FULL = "featbench: error: standard output cannot be written: No space left on device\n"

REDIRECTIONS = {
    "": (0, "result ±\n", "progress\n"),
    "2>&-": (0, "result ±\n", ""),
    "<&-": (0, "result ±\n", "progress\n"),
    "<&- 2>&-": (0, "result ±\n", ""),
    ">&-": (2, "", CLOSED),
    ">&- 2>&-": (2, "", ""),
    "<&- >&- 2>&-": (2, "", ""),
    ">/dev/full": (2, "", FULL),
    "2>/dev/full": (0, "result ±\n", ""),
    ">/dev/full 2>/dev/full": (2, "", ""),
    ">/dev/full 2>&-": (2, "", ""),
    "</dev/full": (0, "result ±\n", "progress\n"),
    "2>/dev/null | cat": (0, "result ±\n", ""),
    "2>&1 >/dev/null": (0, "progress\n", ""),
    ">&2": (0, "", "result ±\nprogress\n"),
}
"""What the shell does with the streams, and what comes of it: exit code, output, errors."""


@pytest.mark.parametrize("redirections", REDIRECTIONS)
def test_a_stream_that_is_closed_or_full_is_no_internal_error(shell, redirections):
    code, out, err = shell(RESULT, redirections)
    expected, output, errors = REDIRECTIONS[redirections]
    assert (code, out) == (expected, output)
    assert err.replace("progress\n", "", 1) == errors.replace("progress\n", "", 1)


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "2>&- <&-"])
@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_exit_code_is_right_without_stderr(shell, redirections, code):
    assert shell(RESULT, redirections, code) == (code, "result ±\n", "")


def test_warnings_logs_and_bars_need_no_stderr(shell):
    body = """
        import warnings
        from tqdm import tqdm
        for index in tqdm(range(40), file=sys.stderr):
            tqdm.write("line", file=sys.stderr)
        warnings.warn("one")
        logging.getLogger("featbench").warning("two")
        emit("result\\n")
    """
    for redirections in ("2>&-", "2>/dev/full"):
        assert shell(body, redirections) == (0, "result\n", "")


def test_what_is_opened_does_not_take_the_place_of_a_closed_stream(shell, tmp_path):
    # The file would otherwise be descriptor 1 or 2, and receive what is printed.
    body = "file = open('kept', 'w'); os.write(1, b'stray'); os.write(2, b'stray'); file.write('mine'); file.close()"
    assert shell(body, "<&- >&- 2>&-")[0] == 0
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize("reader", ["true", "head -c 1", "exec 0<&-"])
def test_a_reader_that_goes_away_is_no_error(shell, reader):
    code, _, err = shell("emit('result\\n' * 100000)", f"| {{ {reader}; }}")
    assert (code, err) == (1, "")


def test_a_reader_of_stderr_that_goes_away_is_not_missed(shell):
    body = "[print('progress' * 100, file=sys.stderr) for _ in range(1000)]; emit('result\\n')"
    assert shell(body, "2> >(true)") == (0, "result\n", "")


def test_a_pipe_that_refuses_to_wait_is_waited_for(shell):
    body = "os.set_blocking(sys.stderr.fileno(), False); emit('result\\n' * 100000)"
    code, out, _ = shell(body, "2>&1 | (sleep 0.5; cat)")
    assert (code, out) == (0, "result\n" * 100000)


ENCODINGS = {
    "C": ({"LC_ALL": "C"}, "result ±\n"),
    "C without UTF-8": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "result ?\n"),
    "POSIX": ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "result ?\n"),
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "result ?\n"),
    "strict ascii": ({"PYTHONIOENCODING": "ascii:strict"}, "result ?\n"),
    "utf-8": ({"PYTHONIOENCODING": "utf-8:strict"}, "result ±\n"),
    "UTF-8 mode": ({"PYTHONUTF8": "1"}, "result ±\n"),
    "unbuffered": ({"PYTHONUNBUFFERED": "1"}, "result ±\n"),
    "no colour": ({"NO_COLOR": "1"}, "result ±\n"),
    "dumb": ({"TERM": "dumb"}, "result ±\n"),
    "no terminal": ({"TERM": ""}, "result ±\n"),
    "narrow": ({"COLUMNS": "10"}, "result ±\n"),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_what_an_encoding_lacks_is_shown_in_another_way(shell, case):
    environment, expected = ENCODINGS[case]
    assert shell(RESULT, **environment)[:2] == (0, expected)


@pytest.mark.parametrize("stream", ["emit(NAME)", "print(NAME, file=sys.stderr)", "print(NAME)"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_that_are_no_text_are_printed(shell, stream, encoding):
    name = repr("a\udcff漢")
    code, out, err = shell(stream.replace("NAME", name), PYTHONIOENCODING=encoding)
    assert code == 0
    assert (out + err).strip() == ("a\\udcff漢" if encoding == "utf-8" else "a??")


PRINTS = {
    "print": "print('noise')",
    "sys.stdout": "sys.stdout.write('noise\\n')",
    "a stream from before": "sys.__stdout__.write('noise\\n'); sys.__stdout__.flush()",
    "a descriptor": "os.write(1, b'noise\\n')",
    "a C library": "ctypes.CDLL(None).puts(b'noise')",
    "a C library at once": "ctypes.CDLL(None).puts(b'noise'); ctypes.CDLL(None).fflush(None)",
    "another program": "subprocess.run(['echo', 'noise'])",
    "a shell": "os.system('echo noise')",
    "a thread": "thread = threading.Thread(target=print, args=('noise',)); thread.start(); thread.join()",
    "a child": "child = os.fork(); child or (os.write(1, b'noise\\n'), os._exit(0)); os.waitpid(child, 0)",
    "the end": "atexit.register(print, 'noise')",
    "the end, without Python": "atexit.register(os.write, 1, b'noise\\n')",
    "a log": "logging.basicConfig(stream=sys.stdout, format='%(message)s'); logging.warning('noise')",
}


@pytest.mark.parametrize("case", PRINTS)
def test_what_plugins_print_goes_to_stderr(shell, case):
    code, out, err = shell(f"emit('first\\n'); {PRINTS[case]}; emit('last\\n')")
    assert (code, out, err) == (0, "first\nlast\n", "noise\n")


@pytest.mark.parametrize("case", PRINTS)
def test_it_is_dropped_without_stderr(shell, case):
    assert shell(f"{PRINTS[case]}; emit('last\\n')", "2>&-") == (0, "last\n", "")


PLUGIN = """
import atexit, ctypes, os, subprocess, sys
from dataclasses import dataclass
import numpy as np
import featbench

def say(where):
    print(where)
    sys.stdout.write(where + "\\n")
    os.write(1, where.encode() + b"\\n")
    ctypes.CDLL(None).puts(where.encode())
    subprocess.run(["echo", where])

say("import")
atexit.register(say, "end")

@dataclass(frozen=True)
class Prints(featbench.FilterLearner):
    name = "prints"
    family = "fixed"
    def filters(self, bank, patches, seed):
        say("learner")
        return np.random.default_rng(seed).normal(size=bank.shape).astype(np.float32)

class Predictor(featbench.Predictor):
    report = {}
    def predict(self, features):
        say("predictor")
        return np.zeros(len(features), dtype=int)

class Classifier(featbench.Classifier):
    name = "loud"
    def fit(self, features, labels, validation, classes, seed):
        say("classifier")
        return Predictor()

@featbench.hookimpl
def featbench_learners():
    say("hook")
    return [Prints]

@featbench.hookimpl
def featbench_classifiers():
    return [Classifier()]
"""


@pytest.mark.parametrize("form", ["json", "csv"])
def test_no_print_of_a_plugin_comes_between_rows(write_plugin, tiny, tmp_path, form):
    plugin = write_plugin("prints", PLUGIN)
    options = ["--features", "prints", "--regimes", "fixed", "--classifiers", "loud", "--draws", "1", "--no-track"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "featbench", "compare", "--protocol", "tiny", "--plugin", tiny, "--plugin", plugin),
            *(*options, "--quiet", "--format", form, "--device", "cpu"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0
    rows = json.loads(done.stdout) if form == "json" else list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["learner"] for row in rows] == ["prints", "raw-pixels", "chance"]
    for place in ("import", "hook", "learner", "classifier", "predictor", "end"):
        assert done.stderr.count(f"{place}\n") >= 5


def test_a_call_from_python_leaves_the_descriptors_of_its_caller(capfd, write_plugin, compare_tiny_here):
    before = os.fstat(1)
    assert compare_tiny_here("--plugin", str(write_plugin("prints", PLUGIN)), "--regimes", "R") == 0
    assert os.path.samestat(before, os.fstat(1))
    print("mine")
    assert capfd.readouterr().out.endswith("mine\n")


@pytest.fixture
def compare_tiny_here(tiny):
    """Call `featbench compare` in this process, without a look at what it prints."""
    from featbench.cli.main import main

    common = ["compare", "--protocol", "tiny", "--plugin", str(tiny), "--no-track", "--quiet", "--draws", "1"]
    return lambda *options: main([*common, *options])


# Terminals.


class Terminal:
    """A terminal, and what was shown on it."""

    END = b"that was all"

    def __init__(self, encoding):
        self._own, end = pty.openpty()
        self.stream = open(end, "w", encoding=encoding, errors="replace")  # noqa: PTH123, SIM115
        self._shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        # Some systems forget what was not read when a terminal is closed.
        while self.END not in self._shown:
            self._shown += os.read(self._own, 1 << 16)

    def close(self):
        self.stream.write(self.END.decode())
        self.stream.flush()
        self._reader.join(20)
        self.stream.close()
        os.close(self._own)
        return self._shown.decode()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    "environment",
    [
        *({"COLUMNS": width} for width in ("1", "2", "10", "39", "40", "0", "-4", "wide")),
        *({"TERM": name} for name in ("dumb", "xterm", "nothing-of-this-name")),
        {"NO_COLOR": "1"},
    ],
    ids=str,
)
def test_a_narrow_or_simple_terminal_shows_progress(environment, encoding, monkeypatch):
    from featbench.cli.console import Console
    from featbench.types import Result

    for name, value in {"COLUMNS": "40", "TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with Console() as console:
        for index in range(40):
            console.step("reading images", index + 1, 40)
        for index in range(3):
            console.started(index, 3, "a cell with a long name " + "漢" * 30)
            console.step("extracting", 1, 2)
            console.inform("said \udcff")
            console.finished(index, 3, "cell", Result("k", "failed", message="no ±"), computed=True)
    shown = terminal.close()
    assert shown.count("failed") == 3
    assert shown.count("said ?") == 3
    # Bars go back to the beginning of their line; a dumb terminal cannot.
    assert ("\r" in shown.replace("\r\n", "\n")) == (environment.get("TERM") != "dumb")


@pytest.mark.parametrize("path", sorted(Path(cli.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_commands_print_results_by_emit_alone(path):
    # print() inside a command goes to stderr, as that of a plugin does.
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    prints = [call for call in calls if getattr(call.func, "id", "") == "print"]
    bare = [call.lineno for call in prints if "file" not in {keyword.arg for keyword in call.keywords}]
    assert len(bare) == (2 if path.stem == "main" else 0), bare
