"""The store: results and artifacts on disk, under content hashes, written atomically and checked when read.

A run may be killed at any moment, and several may work with one store. So a file is never changed: it is written beside
its place and moved there whole. What decides a thing decides its name, so that two runs that write one file write the
same. A checksum tells when a disk, or a hand, has changed it since.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from featbench.errors import StoreError
from featbench.store.records import Records
from featbench.store.results import describe_result, restore_result
from featbench.system.hashing import file_hash
from featbench.system.locks import hold_lock
from featbench.types import Result

log = logging.getLogger("featbench")

PATIENCE = 30.0
"""Seconds to wait for another process that is just giving an artifact its name, which takes milliseconds."""

Artifact = tuple[Path, dict[str, Any]]
"""The file of an artifact, and its record."""


class Store(Records):
    """Results (one JSON a cell), artifacts (arrays with a JSON beside them) and other small records, in one folder."""

    def __init__(self, home: Path | None = None) -> None:
        super().__init__(home)
        self._checked: set[Path] = set()

    # Results.

    def write_result(self, result: Result, cell: Mapping[str, Any]) -> None:
        """Keep a result with the description of its cell."""

        def write(predictions: str | None) -> None:
            self.write_record("results", result.key, describe_result(result, cell, predictions))

        if result.predictions is None:
            write(None)
            return
        # The predictions go first: a run that is killed in between leaves no result without them. The lock is held
        # until both are there: of two runs that compute one cell, both are those of one.
        array = result.predictions
        self._write_artifact("predictions", result.key, ".npy", lambda file: _save(file, array), dict, finish=write)

    def read_result(self, key: str) -> Result | None:
        """Read a result without its predictions (`read_array("predictions", key)`), or None.

        A result whose predictions are missing, or are not those that it was written with, is set aside with a warning.
        """
        result, predictions = self._read_result(key)
        if result is None or _has_predictions(result, predictions, self._find_artifact("predictions", key, ".npy")):
            return result
        with self._hold_lock():
            # Another process may have been between the two files.
            result, predictions = self._read_result(key)
            found = self._check_artifact("predictions", key, ".npy")
            if result is None or _has_predictions(result, predictions, found):
                return result
            log.warning("result %s is without its predictions", key)
            self._set_aside(self._record_path("results", key))
            return None

    def locate_result(self, key: str) -> Path:
        """Return the file that holds a result; that of a failed one has its traceback."""
        return self._record_path("results", key)

    def _read_result(self, key: str) -> tuple[Result | None, str | None]:
        """Return a result, and the checksum of its predictions, which those of earlier versions lack."""
        document = self.read_record("results", key)
        found = self.restore("results", key, document, restore_result)
        return found, None if document is None else document.get("predictions")

    # Artifacts: an array or named tensors in a file, and a record beside it that holds the file's checksum and what
    # else is known of them.

    def write_array(self, kind: str, key: str, array: NDArray[Any], about: Mapping[str, Any]) -> None:
        """Keep an array as .npy."""
        self._write_artifact(kind, key, ".npy", lambda file: _save(file, array), lambda: about)

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

        def load_array(found: Artifact) -> tuple[NDArray[Any], dict[str, Any]]:
            return np.load(found[0], mmap_mode="r", allow_pickle=False), dict(found[1]["about"])

        return self.restore(f"artifacts/{kind}", key, self._find_artifact(kind, key, ".npy"), load_array)

    def write_tensors(self, kind: str, key: str, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Keep named arrays as .safetensors."""
        data = save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()})
        self._write_artifact(kind, key, ".safetensors", lambda file: file.write(data), lambda: about)

    def read_tensors(self, kind: str, key: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return named arrays, and what was written about them; None if there are none, or they are damaged."""

        def load_tensors(found: Artifact) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
            return load(found[0].read_bytes()), dict(found[1]["about"])

        return self.restore(f"artifacts/{kind}", key, self._find_artifact(kind, key, ".safetensors"), load_tensors)

    def remove(self, kind: str, key: str) -> None:
        """Remove named tensors that are no longer needed, if there are any."""
        # The record goes first: without it the other file is not there for any reader.
        for path in (self._record_path(f"artifacts/{kind}", key), self._artifact_path(kind, key, ".safetensors")):
            with contextlib.suppress(OSError):
                path.unlink()

    def _write_artifact(
        self,
        kind: str,
        key: str,
        ending: str,
        write: Callable[[IO[bytes]], object],
        about: Callable[[], Mapping[str, Any]],
        finish: Callable[[str], None] | None = None,
    ) -> None:
        """Write a file and its record; `finish` then receives the file's SHA-256 before any other process writes it."""
        path = self._artifact_path(kind, key, ending)
        sha256 = ""
        with contextlib.ExitStack() as stack:

            def write_and_lock(file: IO[bytes]) -> None:
                nonlocal sha256
                write(file)
                file.flush()
                os.fsync(file.fileno())
                # Of this file, while nobody else knows it; and the lock only now, after what may take hours.
                sha256 = file_hash(Path(file.name))
                stack.enter_context(self._hold_lock())

            self._write(path, write_and_lock)
            # The record goes last: a run that is killed before leaves a file that no reader takes for whole.
            self.write_record(f"artifacts/{kind}", key, {"about": dict(about()), "sha256": sha256})
            if finish is not None:
                finish(sha256)

    def _find_artifact(self, kind: str, key: str, ending: str) -> Artifact | None:
        """Return the file of an artifact and its record; None if it is not there, or damaged and set aside."""
        found = self._check_artifact(kind, key, ending)
        if found is not None or not self._is_file(self._artifact_path(kind, key, ending)):
            return found
        with self._hold_lock():
            # Another process may have been between the file and its record.
            found = self._check_artifact(kind, key, ending)
            if found is None and self.read_record(f"artifacts/{kind}", key) is not None:
                self._set_aside(self._artifact_path(kind, key, ending))
        return found

    def _check_artifact(self, kind: str, key: str, ending: str) -> Artifact | None:
        """Return the file of an artifact and its record; None if they are not there, or do not belong together."""
        record = self.read_record(f"artifacts/{kind}", key)
        path = self._artifact_path(kind, key, ending)
        if record is None or not self._is_file(path):
            return None
        # Once in the life of this object: hashing features of gigabytes takes seconds, and every cell reads them.
        if path not in self._checked:
            try:
                if file_hash(path) != record.get("sha256"):
                    return None
            except OSError as error:
                raise StoreError(f"{path} cannot be read: {error.strerror}") from error
            self._checked.add(path)
        return path, record

    def _hold_lock(self) -> contextlib.AbstractContextManager[bool]:
        """Keep others from giving a file and its record their names."""
        return hold_lock(self.home / "artifacts" / "lock", PATIENCE)

    def _write(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        super()._write(path, write)
        # The checksum that was compared is that of the file before.
        self._checked.discard(path)

    def _artifact_path(self, kind: str, key: str, ending: str) -> Path:
        return self.home / "artifacts" / kind / f"{key}{ending}"


def _has_predictions(result: Result, sha256: str | None, found: Artifact | None) -> bool:
    """Whether a result has the predictions that it was written with, or needs none."""
    return result.status != "ok" or (found is not None and sha256 in (None, found[1]["sha256"]))


def _save(file: IO[bytes], array: NDArray[Any]) -> None:
    np.save(file, array, allow_pickle=False)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of an .npy file at its beginning."""
    # numpy pads headers for as many rows as any array may have, so that the number can be overwritten in place.
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
