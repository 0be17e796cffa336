"""The data folder: which one it is, and where a data set's files lie below it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from featbench.errors import DataError

VARIABLE = "FEATBENCH_DATA"
"""The environment variable that names the data folder where nothing else does."""


def resolve_data_folder(given: str | Path | None) -> Path | None:
    """Return the folder that holds the data sets: the one that is given, else that of `FEATBENCH_DATA`, else None.

    An empty string, given or in the environment, names no folder: `Path("")` would be the current one.
    """
    chosen = given or os.environ.get(VARIABLE) or None
    return None if chosen is None else Path(chosen)


def find_file(data_dir: Path | None, dataset: str, folder: str, *names: str) -> Path:
    """Return the first file of these names in `folder` below the data folder, or in the data folder itself.

    Raises `DataError` that says where the file was looked for, or that there is no data folder.
    """
    if data_dir is None:
        raise DataError(
            f"data set {dataset} needs {names[0]}: set FEATBENCH_DATA or --data-dir to the folder of your data sets "
            f"(`featbench data fetch {dataset}` downloads it)"
        )
    for parent in (data_dir / folder, data_dir):
        for name in names:
            if (parent / name).is_file():
                return parent / name
    raise DataError(
        f"data set {dataset}: {names[0]} is neither in {data_dir / folder} nor in {data_dir}: put it there, set "
        f"--data-dir, or `featbench data fetch {dataset}`"
    )


def find_folder(data_dir: Path, candidates: Iterable[str | Path]) -> Path | None:
    """Return the first of these folders below the data folder that exists, or None."""
    return next((data_dir / folder for folder in candidates if (data_dir / folder).is_dir()), None)
