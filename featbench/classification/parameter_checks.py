"""Checks of the parameters that users write: a `ValueError` says what a parameter may be."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def require_positive(name: str, value: float) -> None:
    """Raise `ValueError` unless the parameter is finite and greater than 0."""
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and greater than 0, not {value}")


def require_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raise `ValueError` unless the parameter is one of the known words."""
    if value not in (words := tuple(known)):
        raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}")
