"""Records: small JSON documents in the folder of a store, each with its own checksum."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from safetensors import SafetensorError

from featbench.errors import FeatbenchError, StoreError
from featbench.system.files import remove_leftovers, write_atomically
from featbench.system.hashing import content_hash
from featbench.system.json_text import format_json
from featbench.system.user_files import expand_user

log = logging.getLogger("featbench")

DEFAULT_HOME = Path(".featbench")

MALFORMED = (
    *(ValueError, TypeError, LookupError, AttributeError, EOFError, RecursionError),
    *(SafetensorError, FeatbenchError),
)
"""What readers raise whose file has the right checksum, but not the content: another version wrote it, or a hand."""

Found = TypeVar("Found")
Made = TypeVar("Made")


class Records:
    """The folder of a store, and the records in it: one JSON file each, in a folder for each kind."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = expand_user(home or os.environ.get("FEATBENCH_HOME") or DEFAULT_HOME)

    @cached_property
    def write_problem(self) -> str | None:
        """Why nothing can be kept here: known now, and not after the first cell was computed. None if it can."""
        try:
            write_atomically(self.home / ".writable", lambda file: file.write(b""))
        except OSError as error:
            return error.strerror or str(error)
        with contextlib.suppress(OSError):
            (self.home / ".writable").unlink()
        # One of its folders may belong to somebody else.
        denied = next((folder for folder in self._list_folders() if not os.access(folder, os.W_OK)), None)
        return None if denied is None else f"{denied.relative_to(self.home)}: {os.strerror(errno.EACCES)}"

    def require_writable(self) -> None:
        """Raise a `StoreError` if nothing can be kept here."""
        if self.write_problem is not None:
            raise self.explain_read_only()

    def explain_read_only(self, consequence: str = "") -> StoreError:
        """Return the error of a store that cannot be written; `consequence` says what is missing in it."""
        reason = f"{self.write_problem}; {consequence}" if consequence else self.write_problem
        return StoreError(f"cannot write {self.home}: {reason}; choose another store with --home or FEATBENCH_HOME")

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed have left of the files that they wrote."""
        for folder in (self.home, *self._list_folders()):
            remove_leftovers(folder)

    def _list_folders(self) -> list[Path]:
        """Return the folders of the store that exist."""
        return [path for pattern in ("*", "artifacts/*") for path in self.home.glob(pattern) if path.is_dir()]

    # Records: small JSON documents that carry their own checksum.

    def write_record(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Write a JSON record."""
        # JSON has no NaN: Python would write one, and no other program could read the record.
        body = {"checksum": content_hash(document), **document}
        text = format_json(body, indent=1, sort_keys=True)
        self._write(self._record_path(kind, key), lambda file: file.write(text.encode()))

    def read_record(self, kind: str, key: str) -> dict[str, Any] | None:
        """Read a JSON record; None if there is none. One that is damaged is set aside with a warning: None too."""
        path = self._record_path(kind, key)
        if not self._is_file(path):
            return None
        try:
            document = json.loads(path.read_bytes())
            checksum = document.pop("checksum")
            if checksum == content_hash(document):
                return dict(document)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        except MALFORMED:
            pass
        self._set_aside(path)
        return None

    def restore(self, kind: str, key: str, found: Found | None, make: Callable[[Found], Made]) -> Made | None:
        """Return what `make` makes of what was read under a key, None of nothing.

        What `make` cannot make sense of, as another version wrote it, is set aside like a damaged record: None too.
        """
        if found is None:
            return None
        try:
            return make(found)
        except MALFORMED:
            self._set_aside(self._record_path(kind, key))
            return None

    def records(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the key and the document of every sound record of a kind, in the order of their keys."""
        for path in sorted((self.home / kind).glob("*.json")):
            document = self.read_record(kind, path.stem)
            if document is not None:
                yield path.stem, document

    def _write(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        try:
            write_atomically(path, write)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror or error}; choose another store with --home or FEATBENCH_HOME"
            ) from error

    def _is_file(self, path: Path) -> bool:
        """Whether there is a file. A folder in its place, or a pipe that nobody writes to, is set aside."""
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise StoreError(f"{path} cannot be read: {error.strerror}") from error
            mode = 0
        if not stat.S_ISREG(mode):
            self._set_aside(path)
        return stat.S_ISREG(mode)

    def _set_aside(self, path: Path) -> None:
        # Moved, not deleted: somebody may want to see what damaged it, or to rescue a day's computing.
        aside = self.home / "damaged" / path.relative_to(self.home)
        number = 1
        while os.path.lexists(aside):
            aside, number = aside.with_name(f"{path.name}.{number}"), number + 1
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
        except OSError as error:
            # In a store that cannot be written; elsewhere, what is made again replaces it.
            log.warning("%s is damaged, and cannot be moved away (%s): it is not used", path, error.strerror)
            return
        log.warning("%s is damaged: it was moved to %s and is made again", path, aside)

    def _record_path(self, kind: str, key: str) -> Path:
        return self.home / kind / f"{key}.json"
