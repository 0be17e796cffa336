"""What is known of data sets, and what is at hand of them: described, verified, fetched."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.data.archive import extract
from featbench.data.dataset import Dataset, Download, FileDataset, check_images, prefix_errors, wrap_errors
from featbench.data.download import download, has_checksum
from featbench.data.parallel import map_images
from featbench.data.prepare import convert_to_grey
from featbench.errors import DataError, FeatbenchError, UsageError
from featbench.types import Images, Pixels

LISTED = 10
"""Classes that are named in a description."""

MEGABYTE = 10**6

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much (0: unknown)."""

Say = Callable[[str], None]

Kind = tuple[tuple[int, ...], str]
"""Shape and type of an image."""


@dataclass
class Verification:
    """What was found of a data set at hand. `summary` says the outcome in one line."""

    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    summary: str = ""


def require_here(name: str, dataset: Dataset, data_dir: Path | None) -> None:
    """Raise a `DataError` that says what is missing, if a data set is not at hand; files are looked for, not read."""
    with wrap_errors(name):
        if isinstance(dataset, FileDataset):
            dataset.files(data_dir)
        else:
            dataset.fingerprint(data_dir)


def missing(name: str, dataset: Dataset, data_dir: Path | None) -> str:
    """Return why a data set is not at hand; empty if it is."""
    try:
        require_here(name, dataset, data_dir)
    except FeatbenchError as error:
        return str(error)
    return ""


def about(dataset: Dataset) -> str:
    """Return what a data set says of itself: the first paragraph of its docstring, in one line."""
    return " ".join((inspect.getdoc(dataset) or "").split("\n\n")[0].split()) or "(no description)"


def summary(dataset: Dataset) -> str:
    """Return the first sentence of what a data set says of itself."""
    return re.split(r"(?<=[.!?])\s", about(dataset))[0]


def describe(name: str, dataset: Dataset, data_dir: Path | None) -> Iterator[tuple[str, str]]:
    """Yield what is known of a data set, and of the copy at hand, as labels and texts.

    Raises a `DataError` in the end if there is a copy that cannot be loaded.
    """
    yield "name", name
    yield "about", about(dataset)
    for label in ("source", "licence", "homepage"):
        if getattr(dataset, label):
            yield label, getattr(dataset, label)
    for item in dataset.downloads:
        unpacked = "" if item.unpack is None else f", unpacked into {item.unpack}"
        yield "download", f"{item.url} to {item.path}{unpacked} ({item.checksum})"
    absent = missing(name, dataset, data_dir)
    if absent:
        yield "not here", absent
        return
    if isinstance(dataset, FileDataset):
        with wrap_errors(name):
            yield "here", _whereabouts(dataset.files(data_dir))
    if dataset.labelled:
        yield from _describe_images(load(name, dataset, data_dir))
    with wrap_errors(name):
        for remark in dataset.remarks(data_dir):
            yield "remark", remark


def load(name: str, dataset: Dataset, data_dir: Path | None) -> Images:
    """Load a data set and hold it to its contract."""
    with wrap_errors(name):
        return check_images(name, dataset.load(data_dir))


def verify(name: str, dataset: Dataset, data_dir: Path | None, progress: Progress) -> Verification:
    """Check the files, the fingerprint and every image of the copy at hand; all problems are collected.

    Raises a `DataError` if the data set is not at hand.
    """
    require_here(name, dataset, data_dir)
    found = Verification()
    _verify_files(name, dataset, data_dir, found)
    fingerprint = _verify_content(name, dataset, data_dir, found, progress)
    what = _verify_images(name, dataset, data_dir, found, progress) if dataset.labelled else ""
    _verify_pool(name, dataset, data_dir, found, progress)
    found.summary = f"{name}: {what}fingerprint {fingerprint}: sound"
    if found.problems:
        found.summary = f"{name}: {_plural(len(found.problems), 'problem')}"
    return found


def fetch(name: str, dataset: Dataset, data_dir: Path | None, say: Say, progress: Progress) -> None:
    """Download the files of a data set that are not at hand, and extract its archives.

    Raises a `UsageError` if there is nothing to download or nowhere to put it, else a `DataError`.
    """
    if not dataset.downloads:
        where = f": see {dataset.homepage}" if dataset.homepage else f" (its source: {dataset.source or 'unknown'})"
        raise UsageError(f"data set {name} has no files that featbench knows how to download{where}")
    if data_dir is None:
        raise UsageError(f"{name} needs a place: set FEATBENCH_DATA or --data-dir to the folder of your data sets")
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
    """Return what passes a download's progress on whenever another megabyte is here."""
    shown = -1

    def step(done: int, total: int | None) -> None:
        nonlocal shown
        if done // MEGABYTE != shown:
            shown = done // MEGABYTE
            progress(f"{name}, MB", shown, (total or 0) // MEGABYTE)

    return step


def _whereabouts(files: Sequence[Path]) -> str:
    folder = os.path.commonpath([path.parent for path in files])
    size = sum(path.stat().st_size for path in files) / MEGABYTE
    return f"{_plural(len(files), 'file')} in {folder}, {size:.1f} MB"


def _describe_images(images: Images) -> Iterator[tuple[str, str]]:
    counts = _counts(images)
    sizes = "of sizes that `featbench data verify` finds"
    if isinstance(images.pixels, np.ndarray):
        sizes = _describe_kinds({(images.pixels.shape[1:], str(images.pixels.dtype))})
    yield "images", f"{len(images.pixels)}, {sizes}"
    more = ", …" if len(images.classes) > LISTED else ""
    yield "classes", f"{len(images.classes)}: {', '.join(images.classes[:LISTED])}{more}"
    yield "smallest", _class(images, int(counts.argmin()))
    yield "largest", _class(images, int(counts.argmax()))
    if images.test is not None:
        yield "test", f"{int(images.test.sum())} of the images"


def _counts(images: Images) -> NDArray[np.int64]:
    return np.bincount(images.labels, minlength=len(images.classes))


def _class(images: Images, label: int) -> str:
    return f"{images.classes[label]} ({_counts(images)[label]})"


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _verify_files(name: str, dataset: Dataset, data_dir: Path | None, found: Verification) -> None:
    for item in dataset.downloads:
        path = None if data_dir is None else data_dir / item.path
        if item.unpack is not None or path is None or not path.is_file():
            continue
        text = f"{path}: {path.stat().st_size} bytes"
        try:
            if has_checksum(path, item.checksum):
                found.notes.append(f"{text}, {item.checksum} as published")
            else:
                found.problems.append(
                    f"{text}, not the published file ({item.checksum}): `featbench data fetch {name}` replaces it"
                )
        except DataError as error:
            found.problems.append(str(error))


def _verify_content(name: str, dataset: Dataset, data_dir: Path | None, found: Verification, progress: Progress) -> str:
    progress("reading the files", 0, 1)
    try:
        with wrap_errors(name):
            fingerprint = dataset.fingerprint(data_dir)
            found.notes += dataset.remarks(data_dir)
    except DataError as error:
        found.problems.append(str(error))
        return ""
    if dataset.content and fingerprint != dataset.content:
        found.problems.append(
            f"the content differs from that of the reference copy: {fingerprint}, not {dataset.content}"
        )
    elif dataset.content:
        found.notes.append("the content is that of the reference copy")
    return fingerprint


def _verify_images(name: str, dataset: Dataset, data_dir: Path | None, found: Verification, progress: Progress) -> str:
    """Read every image, and return how many there are."""
    try:
        images = load(name, dataset, data_dir)
    except DataError as error:
        found.problems.append(str(error))
        return ""
    _read_all(name, "image", images.pixels, found, progress)
    counts = _counts(images)
    found.problems += [f"class {images.classes[label]!r} has no images" for label in np.flatnonzero(counts == 0)]
    smallest = _class(images, int(counts.argmin()))
    return f"{len(images.pixels)} images, {len(counts)} classes, smallest {smallest}, "


def _verify_pool(name: str, dataset: Dataset, data_dir: Path | None, found: Verification, progress: Progress) -> None:
    if type(dataset).pool is Dataset.pool:
        return
    try:
        with wrap_errors(name):
            pool = dataset.pool(data_dir)
    except DataError as error:
        found.notes.append(str(error))  # only what learns filters from it misses it
    else:
        _read_all(name, "unlabelled image", pool, found, progress)


def _read_all(name: str, what: str, pixels: Sequence[Pixels] | Pixels, found: Verification, progress: Progress) -> None:
    """Read every image, and note which sizes and kinds there are, and what is wrong with which image."""
    count = len(pixels)
    read = map_images(partial(_read_image, name, what, pixels), count, partial(progress, f"reading {what}s"))
    found.problems += [image for image in read if isinstance(image, str)]
    kinds = {image for image in read if not isinstance(image, str)}
    if kinds:
        found.notes.append(f"{what}s: {count}, {_describe_kinds(kinds)}")


def _read_image(name: str, what: str, pixels: Sequence[Pixels] | Pixels, index: int) -> str | Kind:
    """Return the shape and the type of an image, or what is wrong with it."""
    try:
        with prefix_errors(f"{what} {index}"), wrap_errors(name):
            image: NDArray[Any] = np.asarray(pixels[index])
            convert_to_grey(image, index)  # refuses what no protocol can prepare
            return image.shape, str(image.dtype)
    except DataError as error:
        return str(error)


def _describe_kinds(kinds: set[Kind]) -> str:
    heights, widths = ({shape[side] for shape, _ in kinds} for side in (0, 1))
    colours = {len(shape) > 2 for shape, _ in kinds}
    colour = "grey or in colour" if len(colours) > 1 else "in colour" if colours.pop() else "grey"
    size = f"{_span(heights)}×{_span(widths)}"
    return f"{size}, {colour}, {', '.join(sorted({kind for _, kind in kinds}))}"


def _span(values: set[int]) -> str:
    return f"{min(values)}" if len(values) == 1 else f"{min(values)}–{max(values)}"
