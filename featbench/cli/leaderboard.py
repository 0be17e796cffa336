"""`featbench leaderboard`: results published as entries, entries rendered as pages."""

from __future__ import annotations

import argparse
import sys

from featbench.cli import options as shared
from featbench.cli.streams import emit
from featbench.errors import UsageError
from featbench.system.user_files import expand_user


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench leaderboard publish` and `render`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="publish|render")
    publish = actions.add_parser(
        "publish", help="write the store's complete results to leaderboards/<protocol>/entries"
    )
    publish.add_argument("--protocol", required=True, metavar="NAME", help="the protocol whose results are published")
    publish.add_argument("--allow-dirty", action="store_true", help="publish results of uncommitted code too")
    shared.add_workbench(publish)
    render = actions.add_parser("render", help="write README.md and results.csv from the entries")
    render.add_argument("--protocol", metavar="NAME", help="the leaderboard to render (default: all)")
    for action in (publish, render):
        action.add_argument(
            "--leaderboards",
            default="leaderboards",
            metavar="PATH",
            help="folder of the leaderboards (default: ./leaderboards)",
        )
        action.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(options: argparse.Namespace) -> int:
    """Publish entries, or render pages from them."""
    return _publish(options) if options.action == "publish" else _render(options)


def _publish(options: argparse.Namespace) -> int:
    from featbench.leaderboard.entries import publish

    workbench = shared.make_workbench(options)
    folder = expand_user(options.leaderboards)
    publication = publish(workbench, options.protocol, folder, allow_dirty=options.allow_dirty)
    for path in publication.written:
        emit(f"published {path}\n")
    for line in publication.left_out:
        print(f"left out {line}", file=sys.stderr)
    return 0


def _render(options: argparse.Namespace) -> int:
    from featbench.leaderboard.entries import find_leaderboards, render

    folder = expand_user(options.leaderboards)
    wanted = [options.protocol] if options.protocol else find_leaderboards(folder)
    if not wanted:
        raise UsageError(f"there are no leaderboards in {folder}: `featbench leaderboard publish` makes one")
    for protocol in wanted:
        for path in render(folder, protocol):
            emit(f"wrote {path}\n")
    return 0
