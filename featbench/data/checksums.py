"""Published checksums, and whether a file at hand is, or holds, what was published."""

from __future__ import annotations

import re
from pathlib import Path

from featbench.data.binary_files import LIMIT, open_content
from featbench.data.dataset import Download
from featbench.errors import DataError
from featbench.system.hashing import stream_hash

DIGITS = {"md5": 32, "sha256": 64}
"""The algorithms of checksums, and how many hexadecimal digits each gives."""


def parse_checksum(path: Path, checksum: str) -> tuple[str, str]:
    """Return algorithm and digits of the checksum "md5:…" or "sha256:…" of a file; a `DataError` if it is neither."""
    algorithm, _, digits = checksum.partition(":")
    if len(digits) != DIGITS.get(algorithm) or not re.fullmatch("[0-9a-fA-F]+", digits):
        raise DataError(f"the checksum of {path}, {checksum!r}, is neither md5:… nor sha256:…")
    return algorithm, digits.lower()


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has the checksum "md5:…" or "sha256:…"; a `DataError` if it cannot be read."""
    algorithm, digits = parse_checksum(path, checksum)
    try:
        with path.open("rb") as file:
            return stream_hash(file, algorithm) == digits
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def get_content_checksum(item: Download) -> str | None:
    """Return the checksum of what a published file holds: its own where it is not compressed; None if unknown."""
    return item.content if item.path.endswith(".gz") else item.checksum


def has_content(path: Path, item: Download) -> bool:
    """Whether a file holds the content that a published one unpacks to, compressed otherwise or not at all.

    False where that content is not known. Raises `DataError` if the file cannot be read or unpacked.
    """
    known = get_content_checksum(item)
    if known is None:
        return False
    algorithm, digits = parse_checksum(path, known)
    with open_content(path) as stream:
        # No further than a reader goes: a few bytes may unpack to any number.
        return stream_hash(stream, algorithm, LIMIT) == digits
