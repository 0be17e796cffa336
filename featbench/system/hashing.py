"""Hashes of documents, files and code: the names under which the store keeps what was made from them."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import IO, Any

BLOCK = 2**20
"""Bytes hashed at once."""


def content_hash(document: Any) -> str:
    """Return the SHA-256 of a document's canonical JSON: equal documents have equal hashes.

    Raises `ValueError` for NaN and infinities, which are not JSON, and `TypeError` for what JSON cannot hold.
    """
    # Canonical: the order of keys, spaces and the escaping of letters are fixed, whatever built the document.
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Names of files may hold bytes that are no UTF-8, for which Python writes surrogates.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return stream_hash(file, algorithm)


def stream_hash(stream: IO[bytes], algorithm: str = "sha256", most: int | None = None) -> str:
    """Return the hash of what a stream has left, or of the first `most` bytes of it, as hexadecimal digits."""
    digest, left = hashlib.new(algorithm), most
    while block := stream.read(BLOCK if left is None else min(BLOCK, left)):
        digest.update(block)
        left = None if left is None else left - len(block)
    return digest.hexdigest()


def code_hash(source: str | bytes) -> str:
    """Return a hash of Python code that comments, docstrings and layout do not change; `SyntaxError` if it is not code.

    Results are kept under the hash of the code that computed them: without this, a better comment would make all of
    them out of date.
    """
    # The syntax tree has no comments and no layout. Docstrings are in it, as expressions that are a lone string.
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A body must not be empty: a function of nothing but a docstring equals one of `pass`.
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_text(line: ast.stmt) -> bool:
    """Whether a statement is a lone string: a docstring, or the text below a constant."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
