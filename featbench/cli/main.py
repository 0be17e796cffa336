"""The program `featbench`: finds the command, runs it, and turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module

from featbench import __version__
from featbench.built_in import BUILT_IN_COMMANDS, Command
from featbench.errors import FeatbenchError, UnknownNameError

FAILED, WRONG, INTERRUPTED = 1, 2, 130
"""Exit codes: something failed; the request or the data is wrong; interrupted (128 + SIGINT, as shells have it)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `featbench` with these arguments (default: the program's) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Tables hold ± and ×. A terminal whose encoding lacks them shows ? instead of ending the program.
            stream.reconfigure(errors="replace")
    try:
        return _run_and_flush(given)
    except FeatbenchError as error:
        if debug:
            raise
        print(f"featbench: error: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(
            "featbench: interrupted; finished results are kept, and the same command continues from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads our output has closed the pipe, as `head` does. The interpreter would flush stdout as it exits,
        # fail again, and print a message.
        sys.stdout = None
        return FAILED
    except Exception as error:
        if debug:
            raise
        print(
            f"featbench: internal error: {type(error).__name__}: {error} (--debug shows where)",
            file=sys.stderr,
        )
        return FAILED


def _run_and_flush(given: list[str]) -> int:
    try:
        return _run(given)
    finally:
        if sys.stdout is not None:
            # Here a closed pipe raises its error where `main` catches it, and not when the interpreter exits.
            sys.stdout.flush()


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_format_help())
        return 0
    if given[0] in ("-V", "--version"):
        print(f"featbench {__version__}")
        return 0
    command = _find_command(given[0])
    sentence = f"{command.summary[:1].upper()}{command.summary[1:]}."
    parser = argparse.ArgumentParser(prog=f"featbench {command.name}", description=sentence)
    command.configure(parser)
    # `main` looks for --debug itself. A parser that does not know the option would refuse it.
    if not any("--debug" in action.option_strings for action in parser._actions):
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command.run(parser.parse_args(given[1:]))


def _find_command(name: str) -> Command:
    if name in BUILT_IN_COMMANDS:
        module = import_module(f"featbench.cli.{name}")
        return Command(name, BUILT_IN_COMMANDS[name], module.configure, module.run)
    # Only now: a registry imports every plugin, which takes a second.
    from featbench.registry import Registry

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
