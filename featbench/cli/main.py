"""`featbench`: finds the command, runs it, and turns errors into messages and exit codes."""

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
"""Exit codes: something failed; the request or the data is wrong; interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `featbench` with these arguments (default: the program's) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ± shows ? in its place
    try:
        return _flushed(given)
    except FeatbenchError as error:
        if debug:
            raise
        print(f"featbench: error: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(
            "featbench: interrupted; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; leave nothing for the interpreter to flush.
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


def _flushed(given: list[str]) -> int:
    try:
        return _run(given)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that has gone is still met by `main`


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0
    if given[0] in ("-V", "--version"):
        print(f"featbench {__version__}")
        return 0
    command = _find(given[0])
    parser = argparse.ArgumentParser(prog=f"featbench {command.name}", description=command.summary)
    command.configure(parser)
    if not any("--debug" in action.option_strings for action in parser._actions):
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command.run(parser.parse_args(given[1:]))


def _find(name: str) -> Command:
    if name in BUILT_IN_COMMANDS:
        module = import_module(f"featbench.cli.{name}")
        return Command(name, BUILT_IN_COMMANDS[name], module.configure, module.run)
    from featbench.registry import Registry

    registry = Registry()
    if name not in registry.names("commands"):
        raise UnknownNameError("command", name, [*BUILT_IN_COMMANDS, *registry.names("commands")], registry.hint)
    return registry.command(name)


def _help() -> str:
    width = max(map(len, BUILT_IN_COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in BUILT_IN_COMMANDS.items())
    return (
        "usage: featbench COMMAND [options]\n\n"
        "Compares feature learners under one fixed protocol.\n\n"
        f"commands:\n{listed}\n\n"
        "`featbench COMMAND --help` shows a command's options. Plugins may add commands: `featbench list plugins`.\n"
        "Start with: featbench compare"
    )
