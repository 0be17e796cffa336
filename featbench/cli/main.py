"""The program `featbench`: finds the command, runs it, and turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from featbench import __version__
from featbench.built_in import BUILT_IN_COMMANDS, Command
from featbench.cli import signals, streams
from featbench.errors import FeatbenchError, PluginError, UnknownNameError, UsageError

FAILED, WRONG = 1, 2
"""Exit codes: something failed; the request or the data is wrong, or the output cannot be written.

An interruption has 128 and the number of the signal, as shells have it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `featbench` with these arguments and return its exit code; without any, be the program, with its own."""
    if arguments is not None:
        return _run_safely(list(arguments))
    # What belongs to the whole process is not for a function to change that is called from Python.
    streams.take_over_streams()
    signals.raise_signals()
    try:
        return _run_safely(sys.argv[1:])
    finally:
        signals.end_at_once()


def _run_safely(given: list[str]) -> int:
    """Run a command, turn what it raises into a message, and return the exit code."""
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        streams.tolerate_unprintable(stream)
    try:
        try:
            return _run(given)
        finally:
            # Here a closed pipe raises its error where it is caught, and not when the interpreter exits.
            streams.finish_streams()
    except BrokenPipeError:
        # Whoever reads our output has gone, as `head` does.
        return FAILED
    except KeyboardInterrupt as interruption:
        signals.end_at_once()
        word = signals.describe(interruption)
        print(
            f"featbench: {word}; finished results are kept, and the same command continues from there",
            file=sys.stderr,
        )
        return signals.find_exit_code(interruption)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"featbench: {_describe(error, debug)}", file=sys.stderr)
        return WRONG if isinstance(error, FeatbenchError) else FAILED


def _describe(error: Exception, debug: bool) -> str:
    """Return the message for an error: a user's mistake, a failure of a plugin, or an error of featbench itself."""
    from featbench.system.tracebacks import describe_error, find_plugin_line

    hint = "" if debug else " (--debug shows where)"
    if isinstance(error, FeatbenchError):
        # Raised on purpose, also by plugins. What counts is the line of an error of another kind behind it, which a
        # mistake in the request does not have.
        cause = None if isinstance(error, UsageError) else error.__cause__
        place = "" if cause is None else find_plugin_line(cause)
        return f"error: {error} ({place})" if place else f"error: {error}"
    place = find_plugin_line(error)
    if place:
        return f"error in a plugin: {describe_error(error)} ({place}){hint}"
    return f"internal error: {describe_error(error)}{hint}"


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_format_help())
        return 0
    if given[0] in ("-V", "--version"):
        print(f"featbench {__version__}")
        return 0
    _require_current_folder()
    command = _find_command(given[0])
    sentence = f"{command.summary[:1].upper()}{command.summary[1:]}."
    parser = argparse.ArgumentParser(prog=f"featbench {command.name}", description=sentence)
    command.configure(parser)
    # `main` looks for --debug itself. A parser that does not know the option would refuse it.
    if not any("--debug" in action.option_strings for action in parser._actions):
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(given[1:])
    if command.name not in BUILT_IN_COMMANDS:
        return command.run(options)
    with streams.reserve_stdout():
        return _run_built_in(command, options)


def _require_current_folder() -> None:
    """Raise a `UsageError` if the current folder is gone: MKL, within torch, would end the program without a reason."""
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError("the current folder was deleted or cannot be read: change to another one") from error


def _run_built_in(command: Command, options: argparse.Namespace) -> int:
    try:
        return command.run(options)
    except SystemExit as error:
        from featbench.system.tracebacks import find_plugin_line

        if find_plugin_line(error):
            raise PluginError(f"a plugin ended the program with the exit code {error.code}") from error
        raise


def _find_command(name: str) -> Command:
    if name in BUILT_IN_COMMANDS:
        module = import_module(f"featbench.cli.{name}")
        return Command(name, BUILT_IN_COMMANDS[name], module.configure, module.run)
    # Only now: a registry imports every plugin, which takes a second.
    from featbench.registry import Registry

    # What a command of a plugin prints is its result; what plugins print as they are loaded is not.
    with contextlib.redirect_stdout(sys.stderr):
        registry = Registry()
    if name not in registry.names("commands"):
        raise UnknownNameError("command", name, [*BUILT_IN_COMMANDS, *registry.names("commands")], registry.hint)
    return registry.command(name)


def _format_help() -> str:
    width = max(map(len, BUILT_IN_COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in BUILT_IN_COMMANDS.items())
    return (
        "usage: featbench COMMAND [options]\n\n"
        "Compares feature learners under one fixed protocol: only the features differ.\n\n"
        f"commands:\n{listed}\n\n"
        "`featbench COMMAND --help` shows a command's options. Plugins may add commands: `featbench list plugins`.\n"
        "Start with: featbench compare"
    )
