"""Names of files as text that can be printed and stored: on most systems a name is bytes, of any kind."""

from __future__ import annotations

from pathlib import Path


def make_printable(name: str | Path) -> str:
    r"""Return a name with its bytes that are not UTF-8, its line breaks and control characters written as escapes.

    Python holds such bytes as surrogates, which no file, terminal or database takes: `Mün` in Latin-1 becomes `M\xfcn`.
    """
    # Not os.fsencode: in an ASCII locale it takes no other letters.
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
