import importlib.metadata
import operator
import os
import re
import subprocess
import sys

import pytest

import featbench
from featbench.built_in import BUILT_IN_COMMANDS, Command
from featbench.cli import main as cli
from featbench.errors import DataError


@pytest.fixture
def command(monkeypatch):
    """Put a command into the program that does what the test says; its name is `act`."""

    def command(act):
        made = Command("act", "act", lambda parser: None, lambda options: act())
        monkeypatch.setattr(cli, "_find_command", lambda name: {"act": made}[name])

    return command


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(run, arguments):
    ran = run(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("usage: featbench COMMAND")
    listed = re.findall(r"^  (\w+)  +(.+)$", ran.out, re.MULTILINE)
    assert dict(listed) == BUILT_IN_COMMANDS
    assert "Start with: featbench compare" in ran.out


@pytest.mark.parametrize("name", BUILT_IN_COMMANDS)
def test_every_command_has_help_of_its_own(run, name):
    ran = run(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: featbench {name} ")
    assert len(ran.out.splitlines()) > 5
    assert "--debug" in ran.out


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_that_of_the_package(run, option):
    assert run(option).out == f"featbench {importlib.metadata.version('featbench')}\n"
    assert featbench.__version__ == importlib.metadata.version("featbench")


@pytest.mark.parametrize("wrong, right", [("compar", "compare"), ("LIST", "list"), ("leaderboards", "leaderboard")])
def test_a_command_that_is_nearly_right_gets_a_suggestion(run, wrong, right):
    ran = run(wrong)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(
        f"featbench: error: unknown command '{wrong}': did you mean '{right}'? known: bench, compare"
    )
    assert ran.err.count("\n") == 1


def test_an_unknown_command_is_told_which_plugins_are_missing(run, monkeypatch):
    gone = importlib.metadata.EntryPoint("gone", "a_module_that_is_nowhere", "featbench")
    monkeypatch.setattr("featbench.registry.entry_points", lambda group: [gone])
    assert "plugins that could not be loaded: gone (entry point a_module_that_is_nowhere)" in run("mine").err


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_command_gives_its_exit_code(run, command, code):
    command(lambda: code)
    assert run("act").code == code


def fail(error):
    def act():
        raise error

    return act


def test_a_mistake_of_the_user_ends_with_one_line(run, command):
    command(fail(DataError("images.gz is truncated: fetch it again")))
    ran = run("act")
    assert (ran.code, ran.out, ran.err) == (2, "", "featbench: error: images.gz is truncated: fetch it again\n")


def test_debug_shows_the_traceback_of_a_mistake(run, command):
    command(fail(DataError("truncated")))
    ran = run("act", "--debug")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Traceback (most recent call last):\n")
    assert ran.err.endswith("DataError: truncated\nfeatbench: error: truncated\n")


def test_an_error_of_featbench_is_reported_as_one(run, monkeypatch):
    # No line of it lies outside featbench.
    faulty = Command("act", "act", lambda parser: None, operator.itemgetter("x"))
    monkeypatch.setattr(cli, "_find_command", lambda name: faulty)
    ran = run("act")
    assert (ran.code, ran.out) == (1, "")
    message = "featbench: internal error: TypeError: 'Namespace' object is not subscriptable"
    assert ran.err == f"{message} (--debug shows where)\n"
    ran = run("act", "--debug")
    assert ran.code == 1
    assert ran.err.startswith("Traceback (most recent call last):\n")
    assert ran.err.endswith(f"\n{message}\n")


def test_an_error_of_a_command_from_a_plugin_names_its_line(run, command):
    command(fail(ZeroDivisionError("division by zero")))
    ran = run("act")
    assert (ran.code, ran.out) == (1, "")
    place = f"test_main.py, line {fail.__code__.co_firstlineno + 2}"
    assert ran.err == (
        f"featbench: error in a plugin: ZeroDivisionError: division by zero ({place}) (--debug shows where)\n"
    )


def test_an_interruption_ends_with_its_own_code(run, command):
    command(fail(KeyboardInterrupt()))
    ran = run("act")
    assert ran.code == 130
    assert ran.err == "featbench: interrupted; finished results are kept, and the same command continues from there\n"


def test_an_unknown_option_is_refused(run):
    ran = run("compare", "--feature-learners", "random")
    assert ran.code == 2
    assert "unrecognized arguments: --feature-learners" in ran.err
    assert "Traceback" not in ran.err


def test_a_reader_that_goes_away_is_not_an_error():
    reading, writing = os.pipe()
    os.close(reading)
    # Buffered, as a program's output into a pipe is: the text is written when the program ends.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "featbench", "--help"], stdout=pipe, stderr=subprocess.PIPE, env=environment
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_module_is_the_program():
    done = subprocess.run([sys.executable, "-m", "featbench", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"featbench {featbench.__version__}\n", "")


def test_the_package_installs_the_program():
    (script,) = [p for p in importlib.metadata.entry_points(group="console_scripts") if p.name == "featbench"]
    assert script.load() is cli.main
