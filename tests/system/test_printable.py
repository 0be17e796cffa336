import os
from pathlib import Path

import pytest

from featbench.system.printable import make_printable


@pytest.mark.parametrize(
    "name, shown",
    [
        (b"plain.png", "plain.png"),
        ("Mün 日本.png".encode(), "Mün 日本.png"),
        (b"M\xfcn", "M\\xfcn"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"a\nb\tc\rd", "a\\nb\\tc\\rd"),
        (b"\x1b[31m", "\\x1b[31m"),
        ("‮gnp".encode(), "\\u202egnp"),
        (b"C:\\temp", "C:\\temp"),
    ],
)
def test_every_sign_of_a_name_shows(name, shown):
    text = name.decode("utf-8", "surrogateescape")
    assert make_printable(text) == make_printable(Path(text)) == shown
    assert shown.isprintable()


def test_the_locale_does_not_matter(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda name: pytest.fail("asked for the locale's encoding"))
    assert make_printable("ü–\udcfc") == "ü–\\xfc"
