"""`featbench list`."""

from __future__ import annotations

import argparse
import inspect

from featbench.cli import options as shared
from featbench.registry import Registry


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench list`."""
    parser.add_argument("kind", choices=("learners", "datasets", "protocols", "tables", "classifiers", "plugins"))
    shared.add_workbench(parser)


def run(options: argparse.Namespace) -> int:
    """Print one line for each thing of a kind."""
    registry = Registry(options.plugin, strict=options.strict)
    if options.kind != "plugins":
        shared.say_broken(registry, options)
    lines = _plugins(registry) if options.kind == "plugins" else _things(registry, options.kind)
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        print(f"{name:<{width}}  {text}")
    return 0


def _things(registry: Registry, kind: str) -> list[tuple[str, str]]:
    lines = []
    for name in registry.names(kind):
        if kind == "learners":
            learner = registry.learner(name)
            lines.append((name, f"{learner.family:<12}  {_first_sentence(learner)}"))
        elif kind == "protocols":
            lines.append((name, registry.protocol(name).summary))
        elif kind == "tables":
            lines.append((name, registry.table(name).summary))
        else:
            thing = registry.classifier(name) if kind == "classifiers" else registry.dataset(name)
            lines.append((name, _first_sentence(type(thing))))
    return lines


def _plugins(registry: Registry) -> list[tuple[str, str]]:
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


def _first_sentence(thing: type) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return text or "(no description)"
