"""Arguments as Python callers write them, made plain: numpy's numbers, one name where a list is meant, paths, mappings.

Every reader takes the name of an argument and its value, and returns the value in the one form that the code behind it
knows. What it cannot take is refused in a sentence that begins with the name.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from featbench.errors import FeatbenchError, UsageError

P = ParamSpec("P")
T = TypeVar("T")

OPTION = re.compile(r"(?<![\w/-])--([a-z][a-z-]*[a-z])")
"""An option of the command line inside a sentence, as in `ask for fewer with --train-per-class`."""

SHOWN = 60
"""Characters of a refused value that an error shows, at most."""


def unwrap_scalar(value: object) -> Any:
    """Return the bool, number or text that a scalar of numpy's or torch's holds; anything else as it is."""
    # Asked for what it can do, not for its type: this module is loaded where neither numpy nor torch is.
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return value.item()  # type: ignore[attr-defined]
    return value


def read_integer(name: str, value: object) -> int:
    """Return an integer; a bool or a float is none, however whole."""
    plain = unwrap_scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, int):
        raise UsageError(f"{name} takes an integer, not {show(value)}")
    return int(plain)


def read_number(name: str, value: object) -> float:
    """Return a finite number as a float."""
    plain = unwrap_scalar(value)
    if not is_finite_number(plain):
        raise UsageError(f"{name} takes a finite number, not {show(value)}")
    return float(plain)


def is_finite_number(value: object) -> bool:
    """Whether a value is a number, and no bool, that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond 1.8e308
        return False


def read_flag(name: str, value: object) -> bool:
    """Return True or False; nothing else will do, since the text "no" is true to Python."""
    plain = unwrap_scalar(value)
    if not isinstance(plain, bool):
        raise UsageError(f"{name} takes True or False, not {show(value)}")
    return plain


def read_text(name: str, value: object) -> str:
    """Return a text that is not empty."""
    plain = unwrap_scalar(value)
    if not isinstance(plain, str) or not plain.strip():
        raise UsageError(f"{name} takes a text, not {show(value)}")
    return str(plain)


def read_count(name: str, value: object) -> int | str:
    """Return a number of images, as an integer or as text: "all", or digits as on the command line."""
    plain = unwrap_scalar(value)
    return plain if isinstance(plain, str) else read_integer(name, plain)


def read_path(name: str, value: object) -> Path:
    """Return a path, a leading ~ expanded."""
    plain = os.fspath(value) if isinstance(value, os.PathLike) else unwrap_scalar(value)
    if not isinstance(plain, str) or not plain or "\0" in plain:
        raise UsageError(f"{name} takes a path, not {show(value)}")
    # pathlib's own method raises a RuntimeError for a user that there is not.
    return Path(os.path.expanduser(plain))  # noqa: PTH111


def read_list(name: str, value: object) -> list[Any]:
    """Return the elements of a list, tuple, set or array; those of a set, which has no order, are sorted as text."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise UsageError(f"{name} takes a list, not {show(value)}")
    found = [unwrap_scalar(one) for one in value]
    if isinstance(value, set | frozenset):
        found.sort(key=str)
    if not found:
        raise UsageError(f"{name} is empty: name at least one, or leave the argument out")
    return found


def read_mapping(name: str, value: object) -> dict[str, Any]:
    """Return a mapping of names to values as a dict, numpy's scalars unwrapped."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} takes a mapping of names to values, such as a dict, not {show(value)}")
    for key in value:
        if not isinstance(key, str):
            raise UsageError(f"{name} takes a mapping of names to values, and {show(key)} is no name")
    return {str(key): unwrap_scalar(one) for key, one in value.items()}


def show(value: object) -> str:
    """Return a value as an error shows it: what Python would print, or what kind it is where that is long."""
    text = repr(unwrap_scalar(value))
    if len(text) <= SHOWN and "\n" not in text:
        return text
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {list(shape)}" if isinstance(shape, tuple) else "")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'X'?` for a name that is nearly a known one, else ""."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ""


def suggest_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function's `TypeError` for an unknown keyword say which one was probably meant."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                who = function.__qualname__.removesuffix(".__init__")
                raise TypeError(f"{who}() got an unexpected keyword argument {name!r}{suggest(name, known)}")
        return function(*args, **kwargs)

    return call


@contextmanager
def naming_arguments(**names: str) -> Iterator[None]:
    """Let errors name arguments where they name options of the command line: `train_per_class`, `--train-per-class`.

    names: arguments that are called otherwise than the option is.
    """

    def rename(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return names.get(name, name)

    try:
        yield
    except FeatbenchError as error:
        error.args = (OPTION.sub(rename, str(error)),)
        raise
