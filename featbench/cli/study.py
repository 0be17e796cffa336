"""`featbench study`: a measurement that a paper shows beside its scores, as table, picture and page."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featbench.cli import options as shared
from featbench.cli.main import FAILED
from featbench.cli.streams import emit
from featbench.errors import UsageError
from featbench.studies import STUDIES
from featbench.system.user_files import expand_user, write_through

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from featbench.studies.study import Findings, Study, StudySettings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the name of a study. All that follows it is parsed by the study's own parser, once it is known which."""
    width = max(map(len, STUDIES))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Measures what the papers show beside their tables of scores, with a picture.\n\n" + "\n".join(
        f"  {name:<{width}}  {summary}" for name, summary in STUDIES.items()
    )
    parser.epilog = "`featbench study NAME --help` shows a study's options."
    parser.add_argument("study", metavar="NAME", help="name of the study")
    parser.add_argument("rest", metavar="options", nargs=argparse.REMAINDER, help="options of the study")


def run(options: argparse.Namespace) -> int:
    """Run the study, print its tables, and write its picture, page and numbers."""
    from featbench.studies.study import find_study

    study = find_study(options.study)
    given = _make_parser(study).parse_args(options.rest)
    # --debug may stand before or after the name of the study.
    given.debug = given.debug or options.debug
    folder = _require_writable_folder(given.output)
    settings = study.settings(**{f.name: getattr(given, f.name) for f in dataclasses.fields(study.settings)})
    from featbench.cli.console import Console
    from featbench.studies.page import render

    with Console(quiet=given.quiet, debug=given.debug) as console:
        workbench = shared.make_workbench(given, console)
        findings = study.run(settings, workbench)
        written = _write_files(folder, study.name, findings, settings, given.plugin)
    emit(render(findings, given.format))
    print("wrote " + ", ".join(str(path) for path in written), file=sys.stderr)
    return FAILED if findings.failed or shared.has_broken_named_plugin(workbench, given) else 0


def _make_parser(study: Study) -> argparse.ArgumentParser:
    """Return the parser of a study: an option for each of its settings, and the options that all studies share."""
    parser = _Parser(prog=f"featbench study {study.name}", description=_make_sentence(STUDIES[study.name]))
    group = parser.add_argument_group("what is measured")
    for setting in dataclasses.fields(study.settings):
        shown = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
        text = setting.metadata["help"] + ("" if shown in (None, "") else f" (default: {shown})")
        name = setting.name
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=_make_reader(setting.default),
            default=setting.default,
            metavar=_choose_metavar(setting.default),
            help=text.replace("%", "%%"),
        )
    shared.add_workbench(parser)
    group = parser.add_argument_group("how it is shown")
    group.add_argument(
        "--format",
        choices=("table", "markdown", "csv", "json"),
        default="table",
        help="format of the tables (default: table)",
    )
    group.add_argument(
        "--output",
        type=shared.read_text,
        default="studies",
        metavar="FOLDER",
        help=f"folder for {study.name}.png, .md and .json (default: ./studies)",
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose help is a result of the command."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the options of a study on standard output, unless a file is given."""
        if file is None:
            emit(self.format_help())
        else:
            super().print_help(file)


def _make_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _make_reader(default: Any) -> Callable[[str], Any]:
    """Return the function that reads a setting from the command line, by the type of its default.

    A default of None stands for a number.
    """
    if default is None:
        return float
    if not isinstance(default, tuple):
        kind: Callable[[str], Any] = type(default)
        return kind
    item = type(default[0])

    def numbers(text: str) -> tuple[Any, ...]:
        return tuple(item(part) for part in text.split(",") if part.strip())

    numbers.__name__ = f"list of {item.__name__}"  # argparse names it in its message: invalid list of int value
    return numbers


def _choose_metavar(default: Any) -> str:
    if isinstance(default, tuple):
        return "LIST"
    return "NAME" if isinstance(default, str) else "N" if isinstance(default, int) else "X"


def _require_writable_folder(text: str) -> Path:
    """Return a folder that can be written. Raises `UsageError` otherwise, before anything is measured."""
    if text == "-":
        raise UsageError(
            "--output - is no folder: name one for the picture and the page; the tables are printed anyway"
        )
    folder = expand_user(text)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file: name a folder")
    # The folder may not exist yet: what counts is the nearest parent that does.
    parent = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    if not os.access(parent, os.W_OK):
        raise UsageError(f"--output {folder} cannot be written")
    return folder


def _write_files(
    folder: Path, name: str, findings: Findings, settings: StudySettings, plugins: list[str]
) -> list[Path]:
    """Write the picture, the page and the numbers of a study, and return their paths."""
    from featbench.report.figure import draw_png
    from featbench.studies.page import describe, format_json, make_document, render_page

    about = describe(name, settings, findings.data, plugins)
    texts = {
        f"{name}.png": draw_png(findings.draw, findings.size),
        f"{name}.md": render_page(findings, about, f"{name}.png").encode(),
        f"{name}.json": format_json(make_document(findings, about)).encode(),
    }
    for file_name, content in texts.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_through(folder / file_name, content)
        except OSError as error:
            raise UsageError(f"{folder / file_name} cannot be written: {error.strerror or error}") from error
    return [folder / file_name for file_name in texts]
