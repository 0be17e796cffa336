"""Leaderboards: the store's complete results as entries, and entries as pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from featbench.comparison import Workbench
from featbench.errors import FeatbenchError, LeaderboardError, UnknownNameError
from featbench.evaluation.protocol import Protocol
from featbench.execution.rows import format_regime
from featbench.experiment.cell import Cell
from featbench.experiment.variations import VARIATIONS, describe_refinement
from featbench.leaderboard.names import Fingerprints, Shelf, name_entry
from featbench.leaderboard.pages import rank, render_csv, render_page
from featbench.leaderboard.places import PlacesOfRows, get_place
from featbench.report.table import PERCENT
from featbench.store.records import MALFORMED
from featbench.system.files import write_atomically
from featbench.system.hashing import content_hash
from featbench.system.json_text import format_json

Entry = dict[str, Any]
"""A published row, as its JSON file has it: `Cell.describe`, scores, times, what was chosen, provenance."""

Record = dict[str, Any]
"""A result, as the store has it."""

EARLIER = {
    **{variation.csv or variation.name: variation.usual[0] for variation in VARIATIONS if variation.usual},
    "unit": PERCENT,
    "larger_is_better": True,
}
"""What entries of earlier versions lack: they knew of no other value, and of no metric but accuracies."""


@dataclass
class Publication:
    """What was published: the paths of the entries, and a line for each row that was left out, with the reason."""

    written: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def publish(workbench: Workbench, protocol: str, folder: Path, *, allow_dirty: bool = False) -> Publication:
    """Write the store's complete results of a protocol to `folder`/<protocol>/entries, one file a row.

    A row is complete if the store has every draw that the protocol declares, none failed, and the present code and data
    would give the same keys. Results of code that was not committed are left out unless `allow_dirty`. Raises
    `LeaderboardError` if no row can be published.
    """
    declared = workbench.registry.protocol(protocol)
    entries = folder / protocol / "entries"
    publication, rows = Publication(), _group_results(workbench, protocol)
    shelf, published = _read_shelf(entries, declared)
    places = PlacesOfRows(workbench, [first for first, records in rows if records], published)
    for first, records in rows:
        shown, fingerprints = places.show(first)
        wanted = 1 if first.train_per_class is None else declared.draws
        try:
            entry = _make_entry(workbench, first, shown, fingerprints, records, wanted, allow_dirty)
        except FeatbenchError as error:
            publication.left_out.append(f"{name_entry(shown, declared, fingerprints)}: {error}")
            continue
        path = entries / f"{shelf.name(shown, fingerprints)}.json"
        _write(path, format_json(entry, indent=1, sort_keys=True))
        publication.written.append(path)
    if not publication.written:
        reasons = "".join(f"\n  {line}" for line in publication.left_out)
        raise LeaderboardError(f"the store {workbench.store.home} holds no complete results of {protocol}{reasons}")
    return publication


def render(folder: Path, protocol: str) -> list[Path]:
    """Write README.md and results.csv of a leaderboard from its entries; the same entries give the same bytes."""
    entries = read_entries(folder, protocol)
    paths = [folder / protocol / "README.md", folder / protocol / "results.csv"]
    for path, text in zip(paths, (render_page(protocol, entries), render_csv(entries)), strict=True):
        _write(path, text)
    return paths


def find_leaderboards(folder: Path) -> list[str]:
    """Return the protocols that have a leaderboard."""
    return sorted(path.parent.name for path in folder.glob("*/entries") if path.is_dir())


def read_entries(folder: Path, protocol: str) -> list[Entry]:
    """Return the entries of a leaderboard, best first; raises a `LeaderboardError` that names a damaged one."""
    if protocol not in find_leaderboards(folder):
        raise UnknownNameError("leaderboard", protocol, find_leaderboards(folder) or ["none"], f" (in {folder})")
    entries: list[tuple[str, Entry]] = []
    for path in sorted((folder / protocol / "entries").glob("*.json")):
        try:
            entry = json.loads(path.read_text("utf-8"))
            checksum = entry.pop("checksum")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise LeaderboardError(f"{path} is not a leaderboard entry ({error}): publish it again") from error
        if checksum != content_hash(entry):
            raise LeaderboardError(f"{path} was changed after it was published: publish it again")
        entries.append((checksum, {**EARLIER, **entry}))
    if not entries:
        raise LeaderboardError(f"{folder / protocol} has no entries: publish some first")
    # The checksum decides between equal means: the same entries give the same bytes, whatever their files are called.
    return [entry for _, entry in sorted(entries, key=lambda pair: (rank(pair[1]), pair[0]))]


def _read_shelf(folder: Path, protocol: Protocol) -> tuple[Shelf, dict[str, str]]:
    """Return the files of the entries in a folder, and the fingerprints of the places that they name."""
    shelf = Shelf(protocol)
    published: dict[str, str] = {}
    names = {one.name for one in fields(Cell)} | {"parameters"}
    for path in sorted(folder.glob("*.json")):
        try:
            entry = {**EARLIER, **json.loads(path.read_text("utf-8"))}
            cell = Cell.restore({"draw": 0, **{name: value for name, value in entry.items() if name in names}})
        except (OSError, *MALFORMED):
            # What is damaged is published again over it.
            continue
        fingerprints = entry.get("fingerprints", {})
        shelf.add(path.stem, cell, fingerprints)
        published |= {get_place(cell, what): fingerprint for what, fingerprint in fingerprints.items()}
    return shelf, published


def _group_results(workbench: Workbench, protocol: str) -> list[tuple[Cell, dict[int, Record]]]:
    """Return the first cell of each row of a protocol, and the records of its draws that are up to date."""
    rows: dict[Cell, tuple[Cell, dict[int, Record]]] = {}
    for key, record in workbench.store.records("results"):
        try:
            cell = Cell.restore(record["cell"])
        except MALFORMED:
            # Another version's, which cannot be up to date.
            continue
        if cell.protocol != protocol:
            continue
        first = replace(cell, draw=0)
        # Two ways to name one folder are one row.
        _, records = rows.setdefault(replace(first, dataset=_identify(workbench, cell.dataset)), (first, {}))
        if _is_current(workbench, cell, record) and workbench.store.read_result(key) is not None:
            records[cell.draw] = record
    return sorted(rows.values(), key=lambda row: (str(row[0]), row[0].dataset))


def _identify(workbench: Workbench, dataset: str) -> str:
    """Return the fingerprint of a data set, or its name where it is not at hand."""
    try:
        return workbench.keys.dataset(dataset)
    except FeatbenchError:
        return dataset


def _is_current(workbench: Workbench, cell: Cell, record: Record) -> bool:
    """Whether the present code, plugins and data would read this result."""
    # What cannot be looked up, as a plugin that is not loaded, has no present result either.
    try:
        return bool(workbench.keys.for_cell(cell).result.hash == record["key"])
    except FeatbenchError:
        return False


def _make_entry(
    workbench: Workbench,
    first: Cell,
    shown: Cell,
    fingerprints: Fingerprints,
    records: Mapping[int, Record],
    wanted: int,
    allow_dirty: bool,
) -> Entry:
    """Return the entry of a row; raises `LeaderboardError` with the reason if it cannot be published.

    shown: the first cell as the leaderboard names it.
    """
    chosen = _require_complete(records, wanted)
    provenance = _read_provenance(workbench, chosen)
    if not allow_dirty and any(document["dirty"] for document in provenance):
        raise LeaderboardError("computed by code that was not committed; commit and run again, or --allow-dirty")
    scores = [record["score"]["value"] for record in chosen]
    described = {name: value for name, value in shown.describe().items() if name != "draw"}
    metric = workbench.registry.metric(first.metric)
    entry = {
        **described,
        **({"fingerprints": dict(fingerprints)} if fingerprints else {}),
        "label": format_regime(first, workbench.registry),
        "refined_with": describe_refinement(first, workbench.registry.protocol(first.protocol)),
        "features": str(first.learner),
        "channels": first.preprocessing.colour,
        "mean": fmean(scores),
        "std": stdev(scores) if len(scores) > 1 else None,
        "n": len(scores),
        "scores": scores,
        # Pages are rendered without plugins, one of which may have given the metric.
        "unit": metric.unit,
        "larger_is_better": metric.larger_is_better,
        "seconds": {name: fmean(r["seconds"][name] for r in chosen) for name in chosen[0]["seconds"]},
        "chosen": [record["report"] for record in chosen],
        "results": [record["key"] for record in chosen],
        "provenance": provenance,
    }
    return {"checksum": content_hash(entry), **entry}


def _require_complete(records: Mapping[int, Record], wanted: int) -> list[Record]:
    """Return the records of all wanted draws; raises `LeaderboardError` with the state of those that are missing."""
    states = {draw: records[draw]["status"] if draw in records else "not run" for draw in range(wanted)}
    missing = ", ".join(f"draw {draw} {state}" for draw, state in states.items() if state != "ok")
    if missing:
        raise LeaderboardError(f"incomplete under the present code and data: {missing}")
    return [records[draw] for draw in range(wanted)]


def _read_provenance(workbench: Workbench, records: Sequence[Record]) -> list[dict[str, Any]]:
    found = []
    for key in dict.fromkeys(record["provenance"] for record in records):
        document = workbench.store.read_record("provenance", key)
        if document is None:
            raise LeaderboardError("its provenance is missing from the store; run it again with --retry")
        found.append(document)
    return found


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise LeaderboardError(f"cannot write {path}: {error.strerror or error}") from error
