"""Data sets and the copies at hand: whether they are there, what they hold, and how to get them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featbench.data.archive import extract
from featbench.data.dataset import Dataset, Download, FileDataset, load_images, wrap_errors
from featbench.data.download import download
from featbench.errors import FeatbenchError, UsageError
from featbench.system.printable import make_printable
from featbench.types import Images

LISTED = 10
"""Classes that a description names; of the others it gives the number."""

MEGABYTE = 10**6

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how much of it is finished, and out of how much (0: unknown)."""

Say = Callable[[str], None]
"""Receives a line for the user."""

Kind = tuple[tuple[int, ...], str]
"""Shape and type of an image."""


def require_here(name: str, dataset: Dataset, data_dir: Path | None) -> None:
    """Raise a `DataError` that says what is missing, if a data set is not at hand; files are looked for, not read."""
    with wrap_errors(name):
        if isinstance(dataset, FileDataset):
            dataset.files(data_dir)
        else:
            dataset.fingerprint(data_dir)


def explain_absence(name: str, dataset: Dataset, data_dir: Path | None) -> str:
    """Return why a data set is not at hand; empty if it is."""
    try:
        require_here(name, dataset, data_dir)
    except FeatbenchError as error:
        return str(error)
    return ""


def get_description(dataset: Dataset) -> str:
    """Return the first paragraph of a data set's docstring, in one line."""
    return " ".join((inspect.getdoc(dataset) or "").split("\n\n")[0].split()) or "(no description)"


def get_summary(dataset: Dataset) -> str:
    """Return the first sentence of a data set's docstring."""
    return re.split(r"(?<=[.!?])\s", get_description(dataset))[0]


def describe(name: str, dataset: Dataset, data_dir: Path | None) -> Iterator[tuple[str, str]]:
    """Yield what is known of a data set, and of the copy at hand, as labels and texts.

    Raises a `DataError` in the end if there is a copy that cannot be loaded.
    """
    # Yielded one by one: what is known of a data set is printed before its damaged copy raises.
    yield "name", name
    yield "about", get_description(dataset)
    for label in ("source", "licence", "homepage"):
        if getattr(dataset, label):
            yield label, getattr(dataset, label)
    for item in dataset.downloads:
        unpacked = "" if item.unpack is None else f", unpacked into {item.unpack}"
        yield "download", f"{item.url} to {item.path}{unpacked} ({item.checksum})"
    absent = explain_absence(name, dataset, data_dir)
    if absent:
        yield "not here", absent
        return
    if isinstance(dataset, FileDataset):
        with wrap_errors(name):
            yield "here", _describe_location(dataset.files(data_dir))
    if dataset.labelled:
        yield from _describe_images(load_images(name, dataset, data_dir))
    with wrap_errors(name):
        for remark in dataset.remarks(data_dir):
            yield "remark", remark


def fetch(name: str, dataset: Dataset, data_dir: Path | None, say: Say, progress: Progress) -> None:
    """Download the files of a data set that are not at hand, and extract its archives.

    Raises a `UsageError` if there is nothing to download or nowhere to put it, else a `DataError`.
    """
    if not dataset.downloads:
        where = f": see {dataset.homepage}" if dataset.homepage else f" (its source: {dataset.source or 'unknown'})"
        raise UsageError(f"data set {name} has no files that featbench knows how to download{where}")
    if data_dir is None:
        raise UsageError(f"{name} needs a folder: set FEATBENCH_DATA or --data-dir to that of your data sets")
    say(f"{name}: licence: {dataset.licence or 'not known, see its homepage'}")
    say(f"{name}: if you publish, cite: {dataset.source or dataset.homepage}")
    for item in dataset.downloads:
        _fetch_one(item, data_dir, say, progress)
    require_here(name, dataset, data_dir)
    say(f"now check it: featbench data verify {name}")


def _fetch_one(item: Download, data_dir: Path, say: Say, progress: Progress) -> None:
    path = data_dir / item.path
    fetched = download(item.url, path, item.checksum, _in_megabytes(path.name, progress))
    say(f"fetched {path} from {item.url}" if fetched else f"{path} is here already")
    if item.unpack is not None:
        folder = data_dir / item.unpack
        count = extract(path, folder, lambda done: progress(f"extracting {path.name}: {done} files", 0, 0))
        say(f"extracted {count} files into {folder}")


def _in_megabytes(name: str, progress: Progress) -> Callable[[int, int | None], None]:
    """Return a function that passes a download's progress on whenever another megabyte has arrived.

    A download reports each block of 64 kB; a terminal need not be written to that often.
    """
    shown = -1

    def step(done: int, total: int | None) -> None:
        nonlocal shown
        if done // MEGABYTE != shown:
            shown = done // MEGABYTE
            progress(f"{name}, MB", shown, (total or 0) // MEGABYTE)

    return step


def _describe_location(files: Sequence[Path]) -> str:
    folder = os.path.commonpath([path.parent for path in files])
    size = sum(map(_find_size, files)) / MEGABYTE
    return f"{pluralise(len(files), 'file')} in {make_printable(folder)}, {size:.1f} MB"


def _find_size(path: Path) -> int:
    """Return the bytes of a file, 0 where nobody can know, as of a link that leads nowhere: reading it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _describe_images(images: Images) -> Iterator[tuple[str, str]]:
    counts = count_images(images)
    # Images that are read when they are asked for would all have to be decoded for their sizes.
    sizes = "of sizes that `featbench data verify` finds"
    if isinstance(images.pixels, np.ndarray):
        sizes = describe_kinds({(images.pixels.shape[1:], str(images.pixels.dtype))})
    yield "images", f"{len(images.pixels)}, {sizes}"
    more = ", …" if len(images.classes) > LISTED else ""
    yield "classes", f"{len(images.classes)}: {', '.join(images.classes[:LISTED])}{more}"
    yield "smallest", describe_class(images, int(counts.argmin()))
    yield "largest", describe_class(images, int(counts.argmax()))
    if images.test is not None:
        yield "test", f"{int(images.test.sum())} of the images"


def count_images(images: Images) -> NDArray[np.int64]:
    """Return how many images each class has, [classes]."""
    return np.bincount(images.labels, minlength=len(images.classes))


def describe_class(images: Images, label: int) -> str:
    """Return the name of a class and how many images it has."""
    return f"{images.classes[label]} ({count_images(images)[label]})"


def pluralise(count: int, thing: str) -> str:
    """Return a number of things, as "1 file" and "2 files"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def describe_kinds(kinds: set[Kind]) -> str:
    """Return the range of sizes, the colours and the types of images, as "90–120×80, grey, uint8"."""
    heights, widths = ({shape[side] for shape, _ in kinds} for side in (0, 1))
    colours = {len(shape) > 2 for shape, _ in kinds}
    colour = "grey or in colour" if len(colours) > 1 else "in colour" if colours.pop() else "grey"
    size = f"{_format_range(heights)}×{_format_range(widths)}"
    return f"{size}, {colour}, {', '.join(sorted({kind for _, kind in kinds}))}"


def _format_range(values: set[int]) -> str:
    return f"{min(values)}" if len(values) == 1 else f"{min(values)}–{max(values)}"
