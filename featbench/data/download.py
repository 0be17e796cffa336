"""Downloads over HTTP: resumed where they were cut off, and accepted by their checksum alone.

A server may lie about the length of a file, change the file between two attempts or send an error page in its place.
Whatever it says decides how the download goes on, and never whether it is finished: only the checksum decides that.
"""

from __future__ import annotations

import logging
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

from featbench.data.checksums import has_checksum, parse_checksum
from featbench.data.partial_file import PartialFile
from featbench.errors import DownloadError

log = logging.getLogger("featbench")

Progress = Callable[[int, int | None], None]
"""Receives how many bytes have arrived and, where the server says it, how many there will be."""

BLOCK = 2**16
"""Bytes received at once, at most."""

SCHEMES = ("http", "https")

TIMEOUT, ATTEMPTS, PAUSE = 30.0, 5, 1.0
"""Seconds of silence that end a connection; attempts; seconds before the second attempt, doubled before each other."""

LIMIT = 2**36
"""Bytes after which a download is given up whose length the server does not announce."""

TRANSIENT = (408, 416, 425, 429)
"""Status codes that another attempt may not meet: timeout, range, too early, too many requests; and so all from 500."""


class _TransientError(Exception):
    """An attempt that failed, where another one may succeed."""


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
    """Fetch a file to `path` unless it is there already, and return whether that was needed.

    What has arrived is kept in PATH.part until all of it is there and verified. A file at `path` is replaced at the
    end alone, and an interrupted download goes on where it stopped. Raises a `DownloadError` that names the address,
    the path and what to do.
    """
    fetch = _Fetch(url, path, checksum, progress or (lambda _done, _total: None), timeout, limit)
    fetch.check_request()
    try:
        if path.exists():
            if has_checksum(path, checksum):
                return False
            log.warning(f"{path} is not the file that was published ({checksum}): it is replaced once that one is here")
        with PartialFile(path) as part:
            fetch.fetch_all(part, attempts, pause)
    except OSError as error:
        raise fetch.make_error(f"{error.filename or path} cannot be written ({error.strerror or error})") from error
    return True


@dataclass(frozen=True)
class _Fetch:
    """One download: what is asked for. The methods' `part` is what has arrived of the file."""

    url: str
    path: Path
    checksum: str
    progress: Progress
    timeout: float
    limit: int

    def make_error(self, what: str) -> DownloadError:
        """Return the error that says what went wrong and what a user can do."""
        return DownloadError(f"{self.url} cannot be downloaded: {what}; or download it by hand to {self.path}")

    def check_request(self) -> None:
        """Raise a `DataError` if the address or the checksum is malformed."""
        parse_checksum(self.path, self.checksum)
        try:
            parts = urlsplit(self.url)
            # Reading `port` raises unless it is a number from 0 to 65535.
            sound = parts.scheme in SCHEMES and parts.hostname and (parts.port or True)
        except ValueError:
            sound = False
        # Printable ASCII alone: spaces and control characters would end the request's first line early.
        if not (sound and re.fullmatch("[!-~]+", self.url)):
            raise DownloadError(f"{self.url!r}, which {self.path} is to come from, is not an http or https address")

    def fetch_all(self, part: PartialFile, attempts: int, pause: float) -> None:
        """Fetch what is missing, in at most `attempts` attempts, until the file is there and verified."""
        # An earlier run may have been ended after the last byte and before the file got its name.
        if self._finish_if_verified(part):
            return
        reason = ""
        for attempt in range(attempts):
            if attempt:
                time.sleep(pause * 2 ** (attempt - 1))
            resumed, complete = part.size > 0, False
            try:
                self._attempt(part)
                complete = True
            except _TransientError as error:
                reason = str(error)
            # Asked after a failed attempt too: a server may announce more bytes than the file has.
            if self._finish_if_verified(part):
                return
            if complete:
                reason = f"its {part.size} bytes do not have the checksum {self.checksum}"
                part.restart()
                # What was resumed may be two versions of the file joined: that deserves another attempt, from the
                # start. What came in one piece would come the same way again.
                if not resumed:
                    raise self.make_error(f"{reason} and were deleted: it is another file now. Find the published one")
        kept = f" (the {part.size} bytes that arrived are kept in {part.path})" if part.size else ""
        raise self.make_error(f"{reason}, at attempt {attempts} of {attempts}{kept}. Try again later")

    def _finish_if_verified(self, part: PartialFile) -> bool:
        """Give the file its own name if it has the checksum, and return whether it has."""
        if not part.size or not has_checksum(part.path, self.checksum):
            return False
        part.finish()
        return True

    def _attempt(self, part: PartialFile) -> None:
        """Ask for what is missing and receive it; a `_TransientError` if less came than was announced."""
        with self._open_response(part) as response:
            first, total = _read_extent(response)
            if first != part.size:
                # The server ignores ranges, or the file has changed since: it sends all of it, which is welcome.
                part.restart()
                if first != 0:
                    raise _TransientError("the server sends another part than it was asked for")
            if not part.size:
                part.keep_version(_read_version(response))
            if total is not None and total - part.size > shutil.disk_usage(part.path.parent).free:
                raise self.make_error(f"it has {total} bytes, for which the disk has no room. Make room")
            self._receive(response, part, total)

    def _open_response(self, part: PartialFile) -> HTTPResponse:
        """Send the request; a `_TransientError` where another attempt may be answered."""
        request = Request(self.url, headers={"User-Agent": "featbench"})
        if part.size:
            request.add_header("Range", f"bytes={part.size}-")
            # With If-Range a server sends the range if the file is still this version, else the whole file (RFC 9110,
            # section 13.1.5): the halves of two versions are never joined.
            if part.version:
                request.add_header("If-Range", part.version)
        try:
            return cast(HTTPResponse, build_opener(_Redirects).open(request, timeout=self.timeout))
        except HTTPError as error:
            error.close()
            refusal = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # the file ends before what was asked for: what is here belongs to another version
                part.restart()
            if error.code in TRANSIENT or error.code >= 500:
                raise _TransientError(refusal) from error
            raise self.make_error(f"{refusal}. See whether the address has changed") from error
        except (OSError, HTTPException, ValueError) as error:
            raise _TransientError(_describe_error(error)) from error

    def _receive(self, response: HTTPResponse, part: PartialFile, total: int | None) -> None:
        """Append what the server sends, up to the announced end, or one byte beyond the limit."""
        end = self.limit + 1 if total is None else total
        self.progress(part.size, total)
        while part.size < end:
            try:
                # `read1` returns what has arrived; `read` would wait until a block is full, and lose what has arrived
                # of it where the connection is cut off.
                block = response.read1(min(BLOCK, end - part.size))
            except (OSError, HTTPException) as error:
                raise _TransientError(_describe_error(error)) from error
            if not block:
                break
            part.append(block)
            self.progress(part.size, total)
        if total is None and part.size > self.limit:
            part.restart()
            raise self.make_error(f"it does not end after {self.limit} bytes. See whether the address has changed")
        if total is not None and part.size < total:
            raise _TransientError(f"the connection was cut off after {part.size} of {total} bytes")


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to http and https addresses alone; urllib would follow those to ftp as well."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Return the request for the new address."""
        if urlsplit(newurl).scheme not in SCHEMES:
            raise HTTPError(newurl, code, f"{msg}: a redirect to {newurl} is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read_extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Return the position in the file at which a response begins, -1 where it does not say, and the file's length.

    206 is the status of a part of the file, whose Content-Range says "bytes FIRST-LAST/LENGTH" (RFC 9110, section
    14.4).
    """
    if response.status != 206:
        return 0, response.length
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _read_version(response: HTTPResponse) -> str:
    """Return the server's name for this version of the file, as If-Range takes it; empty if it gives none."""
    tag = response.headers.get("ETag", "").strip()
    # A weak tag, W/"…", may stand for several files that differ in some bytes: If-Range does not admit it.
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "").strip()


def _describe_error(error: Exception) -> str:
    inner = error.reason if isinstance(error, URLError) else error
    return "the server fell silent" if isinstance(inner, TimeoutError) else str(inner) or type(inner).__name__
