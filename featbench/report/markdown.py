"""Names that users gave, of classes, parameters and folders, as Markdown shows them."""

from __future__ import annotations

import re

from featbench.system.printable import make_printable

_MARKS = re.compile(r"[\\`*\[\]<>&|$~#]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown reads as more than a letter; an underscore inside a word is one."""


def escape_markdown(text: str) -> str:
    """Return a text that Markdown, also inside a table, shows letter for letter and in one line."""
    return _MARKS.sub(r"\\\g<0>", make_printable(text))
