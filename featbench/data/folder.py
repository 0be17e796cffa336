"""The data folder: which one it is, and where a data set's files lie below it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from featbench.errors import DataError
from featbench.system.user_files import expand_user

VARIABLE = "FEATBENCH_DATA"
"""The environment variable that names the data folder where nothing else does."""


def resolve_data_folder(given: str | Path | None) -> Path | None:
    """Return the folder that holds the data sets: the one that is given, else that of `FEATBENCH_DATA`, else None.

    An empty string, given or in the environment, names no folder: `Path("")` would be the current one. `~` stands for
    the user's own folder: shells leave it in `--data-dir=~/data` and in quotes.
    """
    chosen = given or os.environ.get(VARIABLE) or None
    return None if chosen is None else expand_user(chosen)


def find_file(data_dir: Path | None, dataset: str, folders: Sequence[str], *names: str) -> Path:
    """Return the first file of these names in one of `folders` below the data folder, or in the data folder itself.

    Names also count in other spellings, as unpackers and mirrors make them: in another case, with other signs between
    words (`train-images.idx3-ubyte`), and as a folder with the file in it (`a/a`). Exact names go before these.

    Raises `DataError` that says which names were looked for and where, or that there is no data folder.
    """
    if data_dir is None:
        raise DataError(
            f"data set {dataset} needs {names[0]}: set FEATBENCH_DATA or --data-dir to the folder of your data sets "
            f"(`featbench data fetch {dataset}` downloads it)"
        )
    if not data_dir.is_dir():
        raise DataError(f"data set {dataset}: there is no folder {data_dir}: set FEATBENCH_DATA or --data-dir to yours")
    parents = [*(data_dir / folder for folder in folders), data_dir]
    for parent in parents:
        found = _find_exact(parent, names) or _find_spelled(parent, names)
        if found is not None:
            return found
    *own, last = map(str, parents)
    raise DataError(
        f"data set {dataset}: there is no {' or '.join(names)} in {', '.join(own)} or {last}, in no other spelling "
        f"either (with dots, dashes or underscores between words, or as a folder with the file in it): put it there, "
        f"set --data-dir, or `featbench data fetch {dataset}`"
    )


def _find_exact(parent: Path, names: Sequence[str]) -> Path | None:
    return next((parent / name for name in names if (parent / name).is_file()), None)


def _find_spelled(parent: Path, names: Sequence[str]) -> Path | None:
    """Return the first file in a folder whose name is one of these spelled otherwise, or that a folder so named has."""
    spellings = [normalise_name(name) for name in names]
    entries = [path for path in _list_folder(parent) if normalise_name(path.name) in spellings]
    for spelling in spellings:
        alike = [path for path in entries if normalise_name(path.name) == spelling]
        inside = [path for folder in alike for path in _list_folder(folder) if normalise_name(path.name) in spellings]
        # Before folders, files: some archives hold each file twice, once in a folder of its name.
        if found := [path for path in (*alike, *inside) if path.is_file()]:
            return found[0]
    return None


def normalise_name(name: str) -> str:
    """Return what all spellings of a file's name have in common: lower case, and one sign between words."""
    return re.sub(r"[\W_]+", "-", name.lower())


def _list_folder(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing where there is no such folder."""
    if not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror or error}") from error


def find_folder(data_dir: Path, candidates: Iterable[str | Path]) -> Path | None:
    """Return the first of these folders below the data folder that exists, or None."""
    return next((data_dir / folder for folder in candidates if (data_dir / folder).is_dir()), None)
