"""Names that users gave, of files and classes, as a picture or a spreadsheet can show them."""

from __future__ import annotations

from featbench.system.printable import make_printable

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a formula begins with, in full width too, as some spreadsheets read it."""


def make_csv_safe(name: str) -> str:
    """Return a name as a field of a CSV file: printable, and no formula, which a spreadsheet would compute."""
    shown = make_printable(name)
    return f"'{shown}" if shown.startswith(FORMULA) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shorten(name: str, length: int) -> str:
    """Return a name of at most `length` characters, its middle left out: both ends tell names apart."""
    if len(name) <= length:
        return name
    head = length // 2
    return f"{name[:head]}…{name[len(name) - (length - head - 1) :]}"
