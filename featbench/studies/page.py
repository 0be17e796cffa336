"""A study's findings as text, Markdown, CSV or JSON, and the provenance that says how they were measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from shlex import join
from typing import Any

from tabulate import tabulate

from featbench.report.markdown import escape_markdown
from featbench.report.names import make_csv_safe
from featbench.report.table import choose_escape
from featbench.store.provenance import describe_run
from featbench.studies.study import Findings, StudySettings, Table, format_flag
from featbench.system import json_text
from featbench.system.printable import make_printable

FORMATS = ("table", "markdown", "csv", "json")

PACKAGES = ("scipy", "matplotlib")
"""Packages that decide a study's numbers or its picture, besides those that every provenance names."""

Document = dict[str, Any]


def render(findings: Findings, form: str) -> str:
    """Return the tables in one of `FORMATS`, ending with a newline."""
    if form == "json":
        return format_json(_collect_content(findings))
    if form == "csv":
        return _format_csv(findings.tables)
    style = "simple" if form == "table" else "github"
    parts = [findings.title, *_format_tables(findings.tables, style), "\n".join(findings.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_page(findings: Findings, about: Document, picture: str) -> str:
    """Return the Markdown page of a study; `picture` is the name of its picture file beside the page."""
    parts = [
        f"# {findings.title}",
        findings.source,
        f"![{findings.title}]({picture})",
        *_format_tables(findings.tables, "github"),
        "\n".join(f"- {note}" for note in findings.notes),
        "## How it was measured",
        f"```sh\n{make_printable(about['command'])}\n```",
        "\n".join(f"- {line}" for line in _format_provenance(about)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def make_document(findings: Findings, about: Document) -> Document:
    """Return all findings at full precision, with their provenance `about`."""
    return {**_collect_content(findings), **about}


def format_json(content: Document) -> str:
    """Return a document as JSON. A NaN or an infinity raises a `ValueError`: JSON has no number for it."""
    return json_text.format_json(content)


def describe(name: str, settings: StudySettings, data: Mapping[str, str], plugins: Sequence[str] = ()) -> Document:
    """Return the provenance of a study: its command, all settings, and the code, machine and data it ran on."""
    found = describe_run()
    found["versions"] = {**found["versions"], **{package: version(package) for package in PACKAGES}}
    return {
        "study": name,
        "command": format_command(name, settings, plugins),
        "settings": asdict(settings),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": dict(data),
        "provenance": found,
    }


def format_command(name: str, settings: StudySettings, plugins: Sequence[str] = ()) -> str:
    """Return the shell command that runs a study with these settings; defaults are left out."""
    # Settings at their defaults are left out, so that the command stays readable. The page lists all of them anyway.
    words = ["featbench", "study", name]
    for setting, value in settings.list_changes().items():
        words += [format_flag(setting), ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    for plugin in plugins:
        words += ["--plugin", plugin]
    return join(words)


def _collect_content(findings: Findings) -> Document:
    return {
        "title": findings.title,
        "source": findings.source,
        "tables": [{"title": table.title, "rows": [dict(row) for row in table.rows]} for table in findings.tables],
        "notes": list(findings.notes),
    }


def _format_tables(tables: Sequence[Table], style: str) -> list[str]:
    parts = []
    for table in tables:
        escape = choose_escape(style)
        lines = [[escape(table.format_value(column, value)) for column, value in row.items()] for row in table.rows]
        # Numbers are already rounded text: tabulate must not parse and round them again, so it is told how to align.
        words = [any(isinstance(row[column], str) for row in table.rows) for column in table.columns]
        shown = tabulate(
            lines,
            headers=table.columns,
            tablefmt=style,
            disable_numparse=True,
            colalign=["left" if word else "right" for word in words],
        )
        parts += [table.title, shown] if table.title else [shown]
    return parts


def _format_csv(tables: Sequence[Table]) -> str:
    """Return all tables as one: its first column names the table, and it has the columns of all of them."""
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["table", *columns])
    for table in tables:
        for row in table.rows:
            values = (row.get(column) for column in columns)
            writer.writerow([table.title, *map(_format_field, values)])
    return buffer.getvalue()


def _format_field(value: object) -> object:
    """Return a value as a field of a CSV file: names are no formulas, and what is not there is empty."""
    return make_csv_safe(value) if isinstance(value, str) else "" if value is None else value


def _format_provenance(about: Document) -> list[str]:
    found = about["provenance"]
    commit = found["commit"] or f"v{found['versions']['featbench']}"
    versions = ", ".join(f"{name} {known}" for name, known in found["versions"].items() if name != "featbench")
    return [
        f"{about['date'][:10]}, featbench {commit[:10]}{' with edits' if found['dirty'] else ''}",
        f"{found['cpu']}, {found['threads']} threads of {found['cores']} cores"
        + (", " + found["gpu"] if found["gpu"] else ""),
        f"Python {found['python']}, {versions}",
        *(f"{escape_markdown(name)}: {fingerprint[:16]}" for name, fingerprint in about["data"].items()),
        "Settings: "
        + ", ".join(f"{format_flag(name)[2:]} {_format_setting(value)}" for name, value in about["settings"].items()),
    ]


def _format_setting(value: Any) -> str:
    if value is None:
        return "chosen"
    return escape_markdown(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
