"""Write what is known of rows, as files and as pages."""

from __future__ import annotations

import os
import re
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from featbench.arguments import naming_arguments, read_count, read_flag, read_path, read_text, suggest_arguments
from featbench.comparison import Workbench
from featbench.details.collect import RowDetails, collect_details
from featbench.details.page import render_index, render_page
from featbench.details.sheet import draw_sheet_png
from featbench.details.tables import format_classes, format_confusions, format_predictions
from featbench.errors import UsageError
from featbench.execution.stored_comparison import StoredComparison, StoredRow
from featbench.experiment.keywords import read_plugins
from featbench.report.confusion_picture import draw_confusions_png
from featbench.system.files import write_atomically
from featbench.system.user_files import expand_user

FILES = {
    "classes.csv": "accuracy of each class",
    "confusion.csv": "how often each class was taken for each",
    "confusion.png": "the same as a picture",
    "predictions.csv": "every test image of every draw, and what it was taken for",
    "wrong.png": "contact sheet of the wrong images",
}
"""The files beside a row's page, and what they hold."""

PAGE = "index.html"


@suggest_arguments
def explain(
    row: str | int = "best",
    *,
    output: str | Path = "details",
    comparison: str | None = None,
    plugins: str | Path | object | Iterable[str | Path | object] = (),
    data_dir: str | Path | None = None,
    home: str | Path | None = None,
    skip_bad_images: bool = False,
) -> Path:
    """Look closer at a row of a comparison, as `featbench explain` does.

    Everything comes from the store; only the images that were predicted wrong are read again, for their pictures.

    Parameters
    ----------
    row : str or int, default "best"
        The row: "best", its number in the printed table, or its learner, regime and classifier as the table prints
        them, of which the last ones may be left out.
    output : str or Path, default "details"
        The folder that is written: `index.html`, a page that needs no network, and beside it `classes.csv`,
        `confusion.csv`, `confusion.png`, `predictions.csv` and `wrong.png`. Files of these names are replaced.
    comparison : str or None, default None
        The beginning of the key of a comparison. None: the last one that ran in the store.
    plugins : str, Path, object or iterable of these, default ()
        Plugins that the comparison needed, as those of `compare`.
    data_dir : str, Path or None, default None
        Folder of the data sets. None: FEATBENCH_DATA.
    home : str, Path or None, default None
        Folder of the store. None: FEATBENCH_HOME, else `.featbench`.
    skip_bad_images : bool, default False
        Whether the comparison left out images that cannot be read.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FeatbenchError
        If there is no such comparison or row, the row is not complete, its data set has changed since, or the folder
        cannot be written. What is wrong with the arguments or the data is a `ValueError` too.

    Examples
    --------
    >>> import featbench
    >>> featbench.explain("best", output="details")  # doctest: +SKIP
    """
    with naming_arguments(plugin="plugins"):
        folder = require_writable_folder(read_path("output", output))
        text, key = str(read_count("row", row)), None if comparison is None else read_text("comparison", comparison)
        named = read_plugins(plugins)
        data = None if data_dir is None else read_path("data_dir", data_dir)
        store = None if home is None else read_path("home", home)
        skip = read_flag("skip_bad_images", skip_bad_images)
        workbench = Workbench(plugins=named, data_dir=data, home=store, skip_bad_images=skip)
        for record in workbench.registry.broken:
            warnings.warn(f"plugin {record.name} ({record.origin}) could not be loaded: {record.error}", stacklevel=3)
        stored = StoredComparison.read(workbench.store, workbench.registry, key)
        details = collect_details(workbench, stored, stored.find_row(text))
        return write_details(details, folder, list_options(named, data, store, skip))


def explain_all(workbench: Workbench, comparison: StoredComparison, folder: Path, options: Sequence[str]) -> Path:
    """Write the details of every complete row, each into a folder of its own, and return the page that lists them.

    options: those that name places and plugins, as `list_options` returns them. Raises as `explain` does.
    """
    links: list[str | None] = []
    for row in comparison.stored_rows:
        if row.columns["status"] != "ok":
            links.append(None)
            continue
        name = name_folder(row)
        write_details(collect_details(workbench, comparison, row), folder / name, options)
        links.append(f"{name}/{PAGE}")
    return write_files(folder, {PAGE: render_index(comparison, links).encode()})


def write_details(details: RowDetails, folder: Path, options: Sequence[str]) -> Path:
    """Write the files of a row and then its page, each whole or not at all, and return the page's path.

    options: as `explain_all` takes them. Raises `UsageError` if a file cannot be written.
    """
    words = ["featbench", "export", _name_row(details), "--comparison", details.comparison.key[:12], *options]
    command = shlex.join([*words, "--output", "model"])
    picture = draw_confusions_png(details.counts, details.predictions.classes)
    contents = {
        "classes.csv": format_classes(details).encode(),
        "confusion.csv": format_confusions(details).encode(),
        "confusion.png": picture,
        "predictions.csv": format_predictions(details).encode(),
        "wrong.png": draw_sheet_png(details),
        # Last: whoever finds the page finds the files that it names.
        PAGE: render_page(details, picture, list(FILES.items()), command).encode(),
    }
    return write_files(folder, contents)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """Write files into a folder, one after the other, and return the path of the last; `UsageError` where one fails."""
    for name, content in contents.items():
        try:
            write_atomically(folder / name, partial(_write_bytes, content))
        except OSError as error:
            raise UsageError(f"{folder / name} cannot be written: {error.strerror or error}") from error
    return folder / name


def require_writable_folder(output: str | Path) -> Path:
    """Return a folder that can be written, whether or not it exists. Raises `UsageError` otherwise."""
    if str(output) in ("", "-"):
        raise UsageError(f"{str(output)!r} is no folder to write to: there are several files, so name one")
    folder = expand_user(output)
    # What counts is the nearest of its parents that exists.
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise UsageError(f"{folder} cannot be written: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written: no permission to make files in {nearest}")
    return folder


def name_folder(row: StoredRow) -> str:
    """Return the name of a row's folder, which any file system takes: its number, and what it is."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", row.name).strip("-.")
    return f"{row.number:02d}-{words[:60]}".rstrip("-.")


def list_options(
    plugins: Sequence[str | Path | object],
    data_dir: str | Path | None,
    home: str | Path | None,
    skip_bad_images: bool,
) -> list[str]:
    """Return the options of a command that names the same places and plugins, and leaves out the same images."""
    named = [str(plugin) for plugin in plugins if isinstance(plugin, str | Path)]
    places = {"--data-dir": data_dir, "--home": home}
    found = [word for option, place in places.items() if place is not None for word in (option, str(place))]
    skipping = ["--skip-bad-images"] if skip_bad_images else []
    return [*found, *(word for plugin in named for word in ("--plugin", plugin)), *skipping]


def _name_row(details: RowDetails) -> str:
    """Return what means the row alone: rows of several architectures may be called the same."""
    same = [row for row in details.comparison.stored_rows if row.name == details.row.name]
    return details.row.name if len(same) == 1 else str(details.row.number)


def _write_bytes(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
