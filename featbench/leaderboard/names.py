"""The names of entries' files: each row has its own, whatever users call their things."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from featbench.evaluation.protocol import Protocol
from featbench.experiment.cell import Cell
from featbench.experiment.variations import VARIATIONS
from featbench.system.hashing import content_hash

LONGEST = 200
"""Bytes of the longest file name: some file systems, and programs that copy to them, take no more than 255."""

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""File names that mean devices to Windows, whatever follows their first dot."""

_PLAIN = re.compile(r"[\w+.=,() -]*", re.ASCII)
"""Names that can be told from their file names; in a path, or another script, letters are replaced."""


Fingerprints = Mapping[str, str]
"""The hashes of what a row names by paths: of its `dataset`, of its `unlabelled` images, of both or of none."""


def name_entry(cell: Cell, protocol: Protocol, fingerprints: Fingerprints | None = None) -> str:
    """Return the file name of a row without .json: in words, what tells it from the others of its protocol.

    A hash follows where the words do not say all, as those of a path, or would be too many.
    """
    name = re.sub(r"[^\w+.=,():-]+", "-", unicodedata.normalize("NFC", describe_row(cell, protocol)))
    # Every file system allows these characters, but for the colon of folder:photos: Windows takes it for a drive's.
    name = name.replace(":", "of")
    named = "".join((str(cell.learner), cell.classifier, cell.dataset, cell.unlabelled or ""))
    if _PLAIN.fullmatch(named) and not RESERVED.match(name) and len(f"{name}.json".encode()) <= LONGEST:
        return name
    return add_hash(name, cell, protocol, fingerprints)


def add_hash(name: str, cell: Cell, protocol: Protocol, fingerprints: Fingerprints | None = None) -> str:
    """Return a file name that no other row has: cut where it is too long, with a hash of all that tells the row."""
    end = f"_{content_hash([describe_row(cell, protocol), dict(fingerprints or {})])[:12]}"
    start = RESERVED.sub(r"\1-", name).encode()[: LONGEST - len(f"{end}.json")]
    return start.decode(errors="ignore") + end


def describe_row(cell: Cell, protocol: Protocol) -> str:
    """Return in words what tells a row from the others of its protocol."""
    parts = [variation.describe_in_name(cell, protocol) for variation in VARIATIONS]
    return "_".join(part for part in parts if part)


class Shelf:
    """The files of a leaderboard's entries: a row that is there keeps its file, and every other has one of its own."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._rows: dict[str, tuple[str, Fingerprints]] = {}

    def add(self, stem: str, cell: Cell, fingerprints: Fingerprints) -> None:
        """Receive a file that is there, by its name without .json, and the row in it."""
        self._rows[stem] = describe_row(cell, self._protocol), fingerprints

    def name(self, cell: Cell, fingerprints: Fingerprints) -> str:
        """Return the name of a row's file without .json."""
        described = describe_row(cell, self._protocol)
        for stem, (text, known) in self._rows.items():
            # Earlier versions did not keep fingerprints.
            if text == described and known in ({}, fingerprints):
                return stem
        stem = name_entry(cell, self._protocol, fingerprints)
        # Some file systems take capital letters for small ones.
        if stem.casefold() in {taken.casefold() for taken in self._rows}:
            stem = add_hash(stem, cell, self._protocol, fingerprints)
        self.add(stem, cell, fingerprints)
        return stem
