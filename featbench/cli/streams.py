"""The program's streams: results on standard output, all else on stderr, whatever state the two are in."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from featbench.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_results: TextIO | None = None
"""Standard output while `reserve_stdout` keeps it for results."""


def emit(content: str | bytes) -> None:
    """Write a command's result, or a part of it, to standard output: the only way to it inside `reserve_stdout`."""
    stream = _results or sys.stdout
    if isinstance(content, bytes):
        stream.buffer.write(content)
    else:
        stream.write(content)
    stream.flush()


@contextlib.contextmanager
def reserve_stdout() -> Iterator[None]:
    """Keep standard output for `emit`: what plugins and libraries print meanwhile goes to stderr.

    In the program, so does what is printed without Python's help, by C libraries and by other processes, then and
    later.
    """
    global _results
    outer, _results = _results, sys.stdout
    try:
        if _is_the_programs(sys.stdout):
            os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results = outer


def take_over_streams() -> None:
    """Open standard output and stderr anew, so that one that is closed or full is no internal error.

    Only the program does this, once, before anything is printed. Results go to a copy of descriptor 1. What cannot be
    written to standard output raises a `UsageError`, or a `BrokenPipeError` where its reader has gone; what cannot be
    written to stderr is dropped.
    """
    _open_missing_descriptors()
    sys.stdout = _wrap(_Output(os.dup(1), "w"), sys.stdout, line_buffering=os.isatty(1))
    sys.stderr = _wrap(_Errors(2, "w", closefd=False), sys.stderr, line_buffering=True)


def finish_streams() -> None:
    """Write what is left of the results; in the program, what is printed after them goes to stderr."""
    output = sys.stdout
    if _is_the_programs(output):
        sys.stdout = sys.stderr
        output.close()
    elif output is not None:
        output.flush()


def tolerate_unprintable(stream: TextIO | None) -> None:
    """Have a stream show in another way what its encoding lacks, in place of an error.

    Tables hold ± and ×, and names of files may hold bytes that are not UTF-8.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_choose_replacement(stream.encoding))


def _choose_replacement(encoding: str) -> str:
    # UTF-8 lacks nothing but what stands for such bytes. Their escapes are also what JSON has for them.
    return "backslashreplace" if codecs.lookup(encoding).name == "utf-8" else "replace"


def _open_missing_descriptors() -> None:
    """Open descriptors 0, 1 and 2 where the program was started without them.

    The next files that are opened, such as those of the store, would take their numbers, and whatever a library prints
    would end up in these.
    """
    # Descriptor 1 for reading alone: writing to it stays an error.
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)


def _wrap(raw: io.FileIO, like: TextIO | None, *, line_buffering: bool) -> TextIO:
    """Return a stream of text on a descriptor, in the encoding of another, which Python may have left out."""
    encoding = like.encoding if like is not None else "utf-8"
    replacement = _choose_replacement(encoding)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, replacement, line_buffering=line_buffering)


def _is_the_programs(stream: TextIO | None) -> bool:
    return isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _Output)


class _Patient(io.FileIO):
    """A descriptor that is waited for: other programs may have set a terminal or pipe to refuse what it cannot hold."""

    def write(self, data: ReadableBuffer) -> int:
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written


class _Output(_Patient):
    """Standard output. The first write that fails raises an error; whatever comes after it is dropped."""

    _failed = False

    def write(self, data: ReadableBuffer) -> int:
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if isinstance(error, BrokenPipeError):
                raise
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise UsageError(f"standard output cannot be written: {reason}") from error


class _Errors(_Patient):
    """The stderr of a program whose work goes on, and whose results are printed, without it."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes
