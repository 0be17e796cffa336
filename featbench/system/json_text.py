"""JSON as files and other programs take it."""

from __future__ import annotations

import json
import re
from typing import Any


def format_json(document: Any, *, indent: int = 2, sort_keys: bool = False) -> str:
    """Return a document as JSON that ends with a newline and can be written as UTF-8, whatever names it holds.

    Raises `ValueError` for NaN and infinities: JSON has no number for them.
    """
    text = json.dumps(document, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    # Names of files may hold bytes that are no UTF-8, for which Python writes surrogates: \\udcfc is an escape of JSON.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
