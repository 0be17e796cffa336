"""`featbench list`: what is registered, one line each."""

from __future__ import annotations

import argparse
import inspect

from featbench.cli import options as shared
from featbench.cli.streams import emit
from featbench.registry import Registry


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench list`."""
    parser.add_argument(
        "kind",
        choices=("learners", "datasets", "metrics", "protocols", "tables", "classifiers", "plugins"),
        help="what to list",
    )
    shared.add_workbench(parser)


def run(options: argparse.Namespace) -> int:
    """Print one line for each thing of the kind that was named: its name, and what it is."""
    registry = Registry(options.plugin, strict=options.strict)
    if options.kind != "plugins":
        shared.report_broken_plugins(registry, options)
    lines = _describe_plugins(registry) if options.kind == "plugins" else _describe_things(registry, options.kind)
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        emit(f"{name:<{width}}  {text}\n")
    return 0


def _describe_things(registry: Registry, kind: str) -> list[tuple[str, str]]:
    lines = []
    for name in registry.names(kind):
        if kind == "learners":
            learner = registry.learner(name)
            lines.append((name, f"{learner.family:<12}  {_read_first_paragraph(learner)}"))
        elif kind == "metrics":
            metric = registry.metric(name)
            better = "larger" if metric.larger_is_better else "smaller"
            lines.append((name, f"{better} is better{f', in {metric.unit}' if metric.unit else ''}: {metric.summary}"))
        elif kind == "protocols":
            lines.append((name, registry.protocol(name).summary))
        elif kind == "tables":
            lines.append((name, registry.table(name).summary))
        else:
            thing = registry.classifier(name) if kind == "classifiers" else registry.dataset(name)
            lines.append((name, _read_first_paragraph(type(thing))))
    return lines


def _describe_plugins(registry: Registry) -> list[tuple[str, str]]:
    lines = []
    for record in registry.records:
        gave = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in record.gave.items())
        lines.append(
            (
                record.name,
                f"BROKEN ({record.origin}): {record.error}" if record.error else f"{gave} ({record.origin})",
            )
        )
    return lines


def _read_first_paragraph(thing: type) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return text or "(no description)"
