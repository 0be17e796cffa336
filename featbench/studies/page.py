"""A study's findings as text, Markdown, CSV or JSON, and what says how they were got."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from shlex import join
from typing import Any

from tabulate import tabulate

from featbench.store.provenance import describe_run
from featbench.studies.study import Findings, Settings, Table, flag

FORMATS = ("table", "markdown", "csv", "json")

PACKAGES = ("scipy", "matplotlib")
"""What decides a study's numbers or its picture besides what every provenance names."""

Document = dict[str, Any]


def render(findings: Findings, form: str) -> str:
    """Return the tables in one of `FORMATS`, ending with a newline."""
    if form == "json":
        return to_json(_content(findings))
    if form == "csv":
        return _csv(findings.tables)
    style = "simple" if form == "table" else "github"
    parts = [findings.title, *_tables(findings.tables, style), "\n".join(findings.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_page(findings: Findings, about: Document, picture: str) -> str:
    """Return the Markdown page of a study; `picture` is the name of its picture file beside the page."""
    parts = [
        f"# {findings.title}",
        findings.source,
        f"![{findings.title}]({picture})",
        *_tables(findings.tables, "github"),
        "\n".join(f"- {note}" for note in findings.notes),
        "## How it was measured",
        f"```sh\n{about['command']}\n```",
        "\n".join(f"- {line}" for line in _provenance_lines(about)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def document(findings: Findings, about: Document) -> Document:
    """Return everything that was found, at full precision, with how it was got."""
    return {**_content(findings), **about}


def to_json(content: Document) -> str:
    """Return a document as JSON; numbers that are not finite are refused."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def describe(name: str, settings: Settings, data: Mapping[str, str], plugins: Sequence[str] = ()) -> Document:
    """Return the command that measures this again, all settings, and on what code, machine and data it ran."""
    found = describe_run()
    found["versions"] = {**found["versions"], **{package: version(package) for package in PACKAGES}}
    return {
        "study": name,
        "command": command(name, settings, plugins),
        "settings": asdict(settings),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": dict(data),
        "provenance": found,
    }


def command(name: str, settings: Settings, plugins: Sequence[str] = ()) -> str:
    """Return the command line that gives these settings."""
    words = ["featbench", "study", name]
    for setting, value in settings.changed().items():
        words += [flag(setting), ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    for plugin in plugins:
        words += ["--plugin", plugin]
    return join(words)


def _content(findings: Findings) -> Document:
    return {
        "title": findings.title,
        "source": findings.source,
        "tables": [{"title": table.title, "rows": [dict(row) for row in table.rows]} for table in findings.tables],
        "notes": list(findings.notes),
    }


def _tables(tables: Sequence[Table], style: str) -> list[str]:
    parts = []
    for table in tables:
        lines = [[table.text(column, value) for column, value in row.items()] for row in table.rows]
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


def _csv(tables: Sequence[Table]) -> str:
    """Return all tables as one, told apart by their first column, with the columns of every one of them."""
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["table", *columns])
    for table in tables:
        for row in table.rows:
            values = (row.get(column) for column in columns)
            writer.writerow([table.title, *("" if value is None else value for value in values)])
    return buffer.getvalue()


def _provenance_lines(about: Document) -> list[str]:
    found = about["provenance"]
    commit = found["commit"] or f"v{found['versions']['featbench']}"
    versions = ", ".join(f"{name} {known}" for name, known in found["versions"].items() if name != "featbench")
    return [
        f"{about['date'][:10]}, featbench {commit[:10]}{' with edits' if found['dirty'] else ''}",
        f"{found['cpu']}, {found['threads']} threads of {found['cores']} cores"
        + (", " + found["gpu"] if found["gpu"] else ""),
        f"Python {found['python']}, {versions}",
        *(f"{name}: {fingerprint[:16]}" for name, fingerprint in about["data"].items()),
        "Settings: " + ", ".join(f"{flag(name)[2:]} {_plain(value)}" for name, value in about["settings"].items()),
    ]


def _plain(value: Any) -> str:
    if value is None:
        return "chosen"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
