"""Signals that end the program: raised as interruptions, so that what is open is closed before it ends."""

from __future__ import annotations

import signal
from types import FrameType

ENDING = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
"""The signals by which users and systems end a program, some of which a system may lack, and what became of it then."""


class Ended(KeyboardInterrupt):
    """A signal that asks the program to end: passes wherever Python's own interruption by Ctrl-C passes.

    Parameters
    ----------
    number : int
        The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def raise_signals() -> None:
    """Have the signals that end the program raise `Ended`, but for those that it was told to ignore, as by `nohup`."""
    for number in _list_numbers():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def end_at_once() -> None:
    """Have each further signal that `raise_signals` took over end the program on the spot: it is closing down."""
    for number in _list_numbers():
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)


def find_exit_code(interruption: KeyboardInterrupt) -> int:
    """Return the exit code of an interrupted program: 128 and the signal's number, as shells have it."""
    return 128 + _get_number(interruption)


def describe(interruption: KeyboardInterrupt) -> str:
    """Return in a word what became of the program."""
    return ENDING[_get_number(interruption).name]


def _list_numbers() -> list[signal.Signals]:
    return [signal.Signals[name] for name in ENDING if name in signal.Signals.__members__]


def _get_number(interruption: KeyboardInterrupt) -> signal.Signals:
    return signal.Signals(interruption.number if isinstance(interruption, Ended) else signal.SIGINT)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(number)
