import logging
import re
import sys
import warnings
from types import SimpleNamespace

import pytest

from featbench.cli import console as module
from featbench.cli.console import Console
from featbench.types import Result, Score

OK = Result("key", "ok", score=Score("accuracy", 87.654, "%"))

FAILED = Result("key", "failed", message="RuntimeError: on purpose")


@pytest.fixture
def said(capsys):
    """Return what was said on stderr, where nobody looks, since this was asked last."""
    return lambda: capsys.readouterr().err


@pytest.fixture
def terminal(said, monkeypatch):
    """The same, where somebody looks: stderr is a terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    return said


@pytest.fixture
def clock(monkeypatch):
    """Stop the console's clock; the tests set it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def every_step(monkeypatch):
    """Have bars show every step, however soon it comes after the one before."""
    monkeypatch.setattr(module, "tqdm", lambda **options: TQDM(mininterval=0, **options))


TQDM = module.tqdm


def frames(text):
    """Return what bars showed, one after the other."""
    return [frame.strip() for frame in re.split(r"[\r\n]", text) if frame.strip()]


# Where nobody looks.


def test_a_line_is_reported_for_each_cell_that_was_computed(said, clock):
    with Console() as console:
        for index, cell in enumerate(["cell a", "cell b", "cell c"]):
            console.started(index, 12, cell)
            clock.now += 2.5
            console.finished(index, 12, cell, OK, computed=cell != "cell b")
    assert said() == "[ 1/12] cell a: 87.65 % (2.5 s)\n[ 3/12] cell c: 87.65 % (2.5 s)\n"


def test_lines_name_cells_as_they_are_told_to(said, clock):
    with Console() as console:
        console.name_of = {"cell a": "R Rabs-PA draw 0"}.__getitem__
        console.started(0, 1, "cell a")
        clock.now += 31
        console.step("training", 3, 10)
        console.finished(0, 1, "cell a", FAILED, computed=True)
    assert said().splitlines() == [
        "    R Rabs-PA draw 0: training 3/10",
        "[1/1] R Rabs-PA draw 0: failed (31.0 s): RuntimeError: on purpose",
    ]


def test_steps_are_reported_now_and_then(said, clock):
    with Console() as console:
        console.started(0, 1, "cell a")
        for second in range(100):
            console.step("training", second, 100)
            clock.now += 1
    # More than thirty seconds lie between two lines.
    assert said().splitlines() == [
        "    cell a: training 31/100",
        "    cell a: training 62/100",
        "    cell a: training 93/100",
    ]


def test_steps_before_any_cell_are_reported_too(said, clock):
    with Console() as console:
        console.step("reading", 1, 10)
        clock.now += 30.5
        console.step("reading", 2, 10)
        console.step("reading", 3, 10)
        clock.now += 30.5
        console.step("checking", 1, 1)
    assert said().splitlines() == ["    reading 2/10", "    checking"]


def test_quiet_says_only_what_went_wrong(said, clock):
    with Console(quiet=True) as console:
        console.inform("device: cpu")
        console.step("reading", 1, 10)
        for index, result in enumerate([OK, FAILED]):
            console.started(index, 2, "cell a")
            clock.now += 100
            console.step("training", 1, 10)
            console.finished(index, 2, "cell a", result, computed=True)
        logging.getLogger("featbench").warning("take care")
    assert said().splitlines() == [
        "[2/2] cell a: failed (100.0 s): RuntimeError: on purpose",
        "featbench: take care",
    ]


def test_warnings_are_reported_as_long_as_the_console_is_there(said):
    with Console():
        logging.getLogger("featbench.store.store").warning("take %s", "care")
        logging.getLogger("featbench").info("no news")
    logging.getLogger("featbench").warning("nobody there")
    assert said() == "featbench: take care\n"


def test_the_console_goes_whatever_happens(terminal):
    before = list(logging.getLogger("featbench").handlers)
    with pytest.raises(KeyboardInterrupt), Console() as console:
        console.started(0, 1, "cell a")
        assert logging.getLogger("featbench").handlers != before
        raise KeyboardInterrupt
    assert logging.getLogger("featbench").handlers == before
    assert terminal().endswith("\r")  # the bar is cleared away


# On a terminal.


def test_a_bar_shows_the_cell_and_how_many_there_are(terminal, every_step):
    with Console() as console:
        console.name_of = {"cell a": "R PA draw 0", "cell b": "R PA draw 1"}.__getitem__
        for index, cell in enumerate(["cell a", "cell b"]):
            console.started(index, 2, cell)
            console.step("training", 1, 5)
            console.step("training", 2, 5)
            console.finished(index, 2, cell, OK, computed=True)
    shown = frames(terminal())
    for index, cell in enumerate(["R PA draw 0", "R PA draw 1"]):
        assert any(frame.startswith(f"{cell}:") and f" {index}/2 " in frame for frame in shown)
        assert any(frame.startswith(f"{cell}:") and f" {index + 1}/2 " in frame for frame in shown)
        assert any(frame.startswith(f"{cell}:") and "training 2/5" in frame for frame in shown)
    assert not any(frame.startswith("training") for frame in shown)
    assert "87.65" not in terminal()
    assert all(len(frame) <= 100 for frame in shown)


def test_a_failure_is_printed_above_the_bar(terminal):
    with Console() as console:
        console.started(0, 2, "cell a")
        console.finished(0, 2, "cell a", FAILED, computed=True)
    assert re.search(r"\[1/2\] cell a: failed \(.* s\): RuntimeError: on purpose\n", terminal())


def test_before_any_cell_a_step_has_a_bar_of_its_own(terminal, every_step):
    with Console() as console:
        for done in range(1, 5):
            console.step("reading images", done, 4)
        before = terminal()
        console.started(0, 3, "cell a")
        after = terminal()
    assert before.endswith("\r")  # it is cleared away before the bar of the cells
    shown = frames(before)
    assert all(frame.startswith("reading images:") for frame in shown)
    assert [re.search(r" (\d)/4 ", frame)[1] for frame in shown] == ["0", "1", "2", "3", "4"]
    assert any(frame.startswith("cell a:") for frame in frames(after))
    assert "reading" not in after


def test_two_steps_before_any_cell_have_a_bar_each(terminal, every_step):
    with Console() as console:
        for what, total in (("reading", 3), ("checking", 2)):
            for done in range(1, total + 1):
                console.step(what, done, total)
    shown = frames(terminal())
    assert {re.match(r"(\w+): .* (\d/\d) ", frame).groups() for frame in shown} == {
        *(("reading", f"{done}/3") for done in range(4)),
        *(("checking", f"{done}/2") for done in range(3)),
    }


def test_a_single_step_and_a_quiet_console_show_no_bar(terminal):
    with Console() as console:
        console.step("reading", 1, 1)
    with Console(quiet=True) as console:
        console.step("reading", 1, 10)
        console.started(0, 1, "cell a")
        console.finished(0, 1, "cell a", OK, computed=True)
    assert terminal() == ""


def test_a_step_that_is_cut_off_leaves_no_bar_behind(terminal):
    with warnings.catch_warnings(), pytest.raises(RuntimeError), Console() as console:
        warnings.simplefilter("error")
        console.step("reading", 1, 10)
        raise RuntimeError
    assert terminal().endswith("\r")
