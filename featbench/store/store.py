"""The store: results and artifacts on disk, under content hashes, written atomically and checked when read.

A run may be killed at any moment, and several may work with one store. So a file is never changed: it is written beside
its place and moved there whole. What decides a thing decides its name, so that two runs that write one file write the
same. A checksum tells when a disk, or a hand, has changed it since.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from featbench.errors import StoreError
from featbench.system.files import write_atomically
from featbench.system.hashing import content_hash, file_hash
from featbench.types import Result, Score, Seconds

log = logging.getLogger("featbench")

DEFAULT_HOME = Path(".featbench")


class Store:
    """Results (one JSON a cell), artifacts (arrays with a JSON beside them) and other small records, in one folder."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or Path(os.environ.get("FEATBENCH_HOME") or DEFAULT_HOME)
        self._checked: set[Path] = set()

    def require_writable(self) -> None:
        """Raise a `StoreError` if nothing can be kept here: now, and not after the first cell was computed."""
        self._write(self.home / ".writable", lambda file: file.write(b""))
        with contextlib.suppress(OSError):
            (self.home / ".writable").unlink()

    # Records: small JSON documents that carry their own checksum.

    def write_record(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Write a JSON record."""
        # JSON has no NaN: Python would write one, and no other program could read the record.
        body = {"checksum": content_hash(document), **document}
        text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        self._write(self._record_path(kind, key), lambda file: file.write(text.encode()))

    def read_record(self, kind: str, key: str) -> dict[str, Any] | None:
        """Read a JSON record; None if there is none. One that is damaged is set aside with a warning: None too."""
        path = self._record_path(kind, key)
        try:
            document = json.loads(path.read_bytes())
            checksum = document.pop("checksum")
            if checksum == content_hash(document):
                return dict(document)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, AttributeError, TypeError):
            pass
        self._set_aside(path)
        return None

    def records(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the key and the document of every sound record of a kind, in the order of their keys."""
        for path in sorted((self.home / kind).glob("*.json")):
            document = self.read_record(kind, path.stem)
            if document is not None:
                yield path.stem, document

    # Results.

    def write_result(self, result: Result, cell: Mapping[str, Any]) -> None:
        """Keep a result with the description of its cell."""
        # The predictions go first: a run that is killed in between leaves no result without them.
        if result.predictions is not None:
            self.write_array("predictions", result.key, result.predictions, {})
        document = {
            "cell": dict(cell),
            "key": result.key,
            "status": result.status,
            "score": None if result.score is None else asdict(result.score),
            "seconds": asdict(result.seconds),
            "report": dict(result.report),
            "message": result.message,
            "traceback": result.traceback,
            "provenance": result.provenance,
        }
        self.write_record("results", result.key, document)

    def read_result(self, key: str) -> Result | None:
        """Read a result without its predictions (`read_array("predictions", key)`), or None."""
        document = self.read_record("results", key)
        return None if document is None else restore_result(document)

    # Artifacts: an array or named tensors in a file, and a record beside it that holds the file's checksum and what
    # else is known of them.

    def write_array(self, kind: str, key: str, array: NDArray[Any], about: Mapping[str, Any]) -> None:
        """Keep an array as .npy."""
        self._write_artifact(kind, key, ".npy", lambda file: np.save(file, array, allow_pickle=False), lambda: about)

    def write_blocks(
        self,
        kind: str,
        key: str,
        rows: int | None,
        blocks: Iterator[NDArray[Any]],
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Keep an array of so many rows as .npy, each block of rows written as it comes: it need not fit into memory.

        `about` is called when the last block is written. Without `rows` there are as many as come. Raises `ValueError`
        if the blocks do not make up the rows.
        """

        def write(file: IO[bytes]) -> None:
            written, row = 0, None
            for block in blocks:
                if row is None:
                    row = block.shape[1:]
                    _write_header(file, (rows or 0, *row), block.dtype)
                if block.shape[1:] != row:
                    raise ValueError(f"the blocks hold rows of {row} and of {block.shape[1:]} values")
                file.write(np.ascontiguousarray(block).data)
                written += len(block)
            if rows is None:
                if row is None:
                    raise ValueError("there are no blocks to write")
                # The header says how many rows there are, and stands before them: it is written again, over the first.
                _write_header(file, (written, *row), block.dtype)
            elif written != rows:
                raise ValueError(f"the blocks hold {written} rows, not {rows}")

        self._write_artifact(kind, key, ".npy", write, about)

    def read_array(self, kind: str, key: str) -> tuple[NDArray[Any], dict[str, Any]] | None:
        """Return an array by memory map, and what was written about it; None if there is none, or it is damaged."""
        found = self._find_artifact(kind, key, ".npy")
        return None if found is None else (np.load(found[0], mmap_mode="r", allow_pickle=False), found[1])

    def write_tensors(self, kind: str, key: str, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Keep named arrays as .safetensors."""
        data = save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()})
        self._write_artifact(kind, key, ".safetensors", lambda file: file.write(data), lambda: about)

    def read_tensors(self, kind: str, key: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return named arrays, and what was written about them; None if there are none, or they are damaged."""
        found = self._find_artifact(kind, key, ".safetensors")
        return None if found is None else (load(found[0].read_bytes()), found[1])

    def remove(self, kind: str, key: str) -> None:
        """Remove named tensors that are no longer needed, if there are any."""
        # The record goes first: without it the other file is not there for any reader.
        for path in (self._record_path(f"artifacts/{kind}", key), self._artifact_path(kind, key, ".safetensors")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _write_artifact(
        self,
        kind: str,
        key: str,
        ending: str,
        write: Callable[[IO[bytes]], object],
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        path = self._artifact_path(kind, key, ending)
        self._write(path, write)
        # The record goes last: a run that is killed before leaves a file that no reader takes for whole.
        self.write_record(f"artifacts/{kind}", key, {"about": dict(about()), "sha256": file_hash(path)})

    def _find_artifact(self, kind: str, key: str, ending: str) -> tuple[Path, dict[str, Any]] | None:
        """Return the file of an artifact and what was written about it; None if it is not there, or damaged."""
        record = self.read_record(f"artifacts/{kind}", key)
        path = self._artifact_path(kind, key, ending)
        if record is None or not path.is_file():
            return None
        # Once in the life of this object: hashing features of gigabytes takes seconds, and every cell reads them.
        if path not in self._checked:
            if file_hash(path) != record["sha256"]:
                self._set_aside(path)
                return None
            self._checked.add(path)
        return path, dict(record["about"])

    def _artifact_path(self, kind: str, key: str, ending: str) -> Path:
        return self.home / "artifacts" / kind / f"{key}{ending}"

    def _record_path(self, kind: str, key: str) -> Path:
        return self.home / kind / f"{key}.json"

    def _set_aside(self, path: Path) -> None:
        # Moved, not deleted: somebody may want to see what damaged it, or to rescue a day's computing.
        aside = self.home / "damaged" / path.relative_to(self.home)
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
        except OSError as error:
            raise StoreError(f"{path} is damaged and cannot be moved away ({error.strerror}): delete it") from error
        log.warning("%s is damaged: it was moved to %s and is made again", path, aside)

    def _write(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        try:
            write_atomically(path, write)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror or error}; choose another store with --home or FEATBENCH_HOME"
            ) from error
        # The checksum that was compared is that of the file before.
        self._checked.discard(path)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of an .npy file at its beginning."""
    # numpy pads headers for as many rows as any array may have, so that the number can be overwritten in place.
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def restore_result(document: Mapping[str, Any]) -> Result:
    """Rebuild a result from its record."""
    return Result(
        key=document["key"],
        status=document["status"],
        score=None if document["score"] is None else Score(**document["score"]),
        seconds=Seconds(**document["seconds"]),
        report=document["report"],
        message=document["message"],
        traceback=document["traceback"],
        provenance=document["provenance"],
    )
