"""Downloads over HTTP: resumed where they were cut off, and believed by nothing but their checksum."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from featbench.errors import DataError, DownloadError
from featbench.system.hashing import file_hash

log = logging.getLogger("featbench")

Progress = Callable[[int, int | None], None]
"""Told how many bytes are here and, where the server says it, how many there will be."""

BLOCK = 2**16

SCHEMES = ("http", "https")

DIGITS = {"md5": 32, "sha256": 64}

TIMEOUT, ATTEMPTS, PAUSE = 30.0, 5, 1.0
"""Seconds of silence that end a connection; how often it is tried; seconds before the second time, then doubled."""

LIMIT = 2**36
"""Bytes after which a file ends that has no announced end."""

PASSING = (408, 416, 425, 429)
"""Refusals that another attempt may not meet; so may those of 500 and above be."""


class _PassingError(Exception):
    """An attempt that failed, where another one may not."""


def has_checksum(path: Path, checksum: str) -> bool:
    """Tell whether a file has the checksum "md5:…" or "sha256:…"; a `DataError` if it cannot be read."""
    algorithm, digits = _algorithm(path, checksum)
    try:
        return file_hash(path, algorithm) == digits.lower()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _algorithm(path: Path, checksum: str) -> tuple[str, str]:
    algorithm, _, digits = checksum.partition(":")
    if len(digits) != DIGITS.get(algorithm) or not re.fullmatch("[0-9a-fA-F]+", digits):
        raise DataError(f"the checksum of {path}, {checksum!r}, is neither md5:… nor sha256:…")
    return algorithm, digits


def download(
    url: str,
    path: Path,
    checksum: str,
    progress: Progress | None = None,
    *,
    timeout: float = TIMEOUT,
    attempts: int = ATTEMPTS,
    pause: float = PAUSE,
    limit: int = LIMIT,
) -> bool:
    """Fetch a file to `path` unless it is there already, and tell whether that was needed.

    What has arrived is kept in PATH.part until all is there and verified, so that a file that was there before is
    replaced at the end, and an interrupted download goes on where it was. Raises a `DownloadError` that names the
    address, the path and what to do.
    """
    fetch = _Fetch(url, path, checksum, progress or (lambda _done, _total: None), timeout, limit)
    fetch.check()
    try:
        if path.exists():
            if has_checksum(path, checksum):
                return False
            log.warning(f"{path} is not the file that was published ({checksum}): it is replaced once that one is here")
        with _Part(path) as part:
            fetch.whole(part, attempts, pause)
    except OSError as error:
        raise fetch.failure(f"{error.filename or path} cannot be written ({error.strerror or error})") from error
    return True


@dataclass(frozen=True)
class _Fetch:
    """What is asked of one download. `part` is what is here of the file."""

    url: str
    path: Path
    checksum: str
    progress: Progress
    timeout: float
    limit: int

    def failure(self, what: str) -> DownloadError:
        """Return the error that says what went wrong and what can be done."""
        return DownloadError(f"{self.url} cannot be downloaded: {what}; or download it by hand to {self.path}")

    def check(self) -> None:
        """Raise a `DataError` if this can be no address, or no checksum."""
        _algorithm(self.path, self.checksum)
        try:
            parts = urlsplit(self.url)
            sound = parts.scheme in SCHEMES and parts.hostname and (parts.port or True)
        except ValueError:
            sound = False
        if not (sound and re.fullmatch("[!-~]+", self.url)):
            raise DownloadError(f"{self.url!r}, which {self.path} is to come from, is no http or https address")

    def whole(self, part: _Part, attempts: int, pause: float) -> None:
        """Fetch what is missing, in so many attempts, until the file is there and verified."""
        if self._settled(part):
            return
        reason = ""
        for attempt in range(attempts):
            if attempt:
                time.sleep(pause * 2 ** (attempt - 1))
            resumed, complete = part.size > 0, False
            try:
                self._once(part)
                complete = True
            except _PassingError as error:
                reason = str(error)
            if self._settled(part):  # even if it was to be longer: the checksum knows better than the server
                return
            if complete:
                reason = f"its {part.size} bytes do not have the checksum {self.checksum}"
                part.restart()
                if not resumed:
                    raise self.failure(f"{reason} and were deleted: it is another file now. Find the published one")
        kept = f" (the {part.size} bytes that arrived are kept in {part.path})" if part.size else ""
        raise self.failure(f"{reason}, at attempt {attempts} of {attempts}{kept}. Try again later")

    def _settled(self, part: _Part) -> bool:
        if not part.size or not has_checksum(part.path, self.checksum):
            return False
        part.settle()
        return True

    def _once(self, part: _Part) -> None:
        """Ask for what is missing and take it in; a `_PassingError` if less came than was announced."""
        with self._answer(part) as response:
            first, total = _extent(response)
            if first != part.size:
                part.restart()
                if first != 0:
                    raise _PassingError("the server sends another part than it was asked for")
            if not part.size:
                part.mark(_version(response))
            if total is not None and total - part.size > shutil.disk_usage(part.path.parent).free:
                raise self.failure(f"it has {total} bytes, for which the disk has no room. Make room")
            self._receive(response, part, total)

    def _answer(self, part: _Part) -> HTTPResponse:
        request = Request(self.url, headers={"User-Agent": "featbench"})
        if part.size:
            request.add_header("Range", f"bytes={part.size}-")
            if part.version:
                request.add_header("If-Range", part.version)
        try:
            return cast(HTTPResponse, build_opener(_Redirects).open(request, timeout=self.timeout))
        except HTTPError as error:
            error.close()
            refusal = f"the server answers {error.code} {error.reason}"
            if error.code == 416:
                part.restart()
            if error.code in PASSING or error.code >= 500:
                raise _PassingError(refusal) from error
            raise self.failure(f"{refusal}. See whether the address has changed") from error
        except (OSError, HTTPException, ValueError) as error:
            raise _PassingError(_reason(error)) from error

    def _receive(self, response: HTTPResponse, part: _Part, total: int | None) -> None:
        end = self.limit + 1 if total is None else total
        self.progress(part.size, total)
        while part.size < end:
            try:
                block = response.read1(min(BLOCK, end - part.size))
            except (OSError, HTTPException) as error:
                raise _PassingError(_reason(error)) from error
            if not block:
                break
            part.append(block)
            self.progress(part.size, total)
        if total is None and part.size > self.limit:
            part.restart()
            raise self.failure(f"it does not end after {self.limit} bytes. See whether the address has changed")
        if total is not None and part.size < total:
            raise _PassingError(f"the connection was cut off after {part.size} of {total} bytes")


class _Part:
    """What is here of a file: PATH.part, which one process writes at a time, and PATH.part.version, what it is part of.

    As a context it is closed in the end, and removed if it is empty.
    """

    def __init__(self, goal: Path) -> None:
        self._goal = goal
        self.path, self._mark = goal.with_name(f"{goal.name}.part"), goal.with_name(f"{goal.name}.part.version")
        goal.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        self._lock()
        self.size = os.fstat(self._file.fileno()).st_size
        self.version = self._mark.read_text("latin-1") if self._mark.is_file() else ""

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if not self.size:
                self.path.unlink(missing_ok=True)
                self._mark.unlink(missing_ok=True)
        self._file.close()

    def mark(self, version: str) -> None:
        """Keep the server's name for the version of the file that this is part of; empty if it gave none."""
        self._mark.write_text(version, "latin-1")
        self.version = version

    def append(self, block: bytes) -> None:
        """Write some more bytes."""
        rest = memoryview(block)
        while rest:
            written = self._file.write(rest)
            self.size += written
            rest = rest[written:]

    def restart(self) -> None:
        """Forget what is here."""
        self._file.truncate(0)
        self.size = 0

    def settle(self) -> None:
        """Give the file its own name."""
        os.fsync(self._file.fileno())
        self.path.replace(self._goal)
        self._mark.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Where another process has just finished, what was opened is its verified file, and not ours to write to.
            ours = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        except OSError:
            ours = True  # a file system without locks
        if not ours:
            self._file.close()
            raise DownloadError(f"{self.path} is being downloaded by another process: let it finish")


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to other http and https addresses, and to nothing else."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Return the request for the new address."""
        if urlsplit(newurl).scheme not in SCHEMES:
            raise HTTPError(newurl, code, f"{msg}: a redirect to {newurl} is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Return where in the file an answer begins (-1: it does not say), and how long the file is, where it says so."""
    if response.status != 206:
        return 0, response.length
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _version(response: HTTPResponse) -> str:
    """Return what tells this version of a file from others byte by byte, as If-Range wants it; empty: nothing does."""
    tag = response.headers.get("ETag", "").strip()
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "").strip()


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, URLError) else error
    return "the server fell silent" if isinstance(inner, TimeoutError) else str(inner) or type(inner).__name__
