"""Verification of the copy of a data set at hand: its files, its content, every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from featbench.data.binary_files import is_packed
from featbench.data.checksums import get_content_checksum, has_checksum, has_content
from featbench.data.dataset import Dataset, Download, FileDataset, load_images, prefix_errors, wrap_errors
from featbench.data.folder import normalise_name
from featbench.data.image_files import ImageFiles
from featbench.data.image_reader import ReadImage
from featbench.data.inspection import Traits, find_traits
from featbench.data.inventory import (
    Kind,
    Progress,
    count_images,
    describe_class,
    describe_kinds,
    pluralise,
    require_here,
)
from featbench.data.parallel import map_images
from featbench.data.prepare import convert_to_grey, find_warnings
from featbench.errors import DataError
from featbench.types import Images, Pixels


@dataclass
class Verification:
    """What was found: lines to print, problems, and the outcome in one line (`summary`)."""

    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    summary: str = ""


def verify(name: str, dataset: Dataset, data_dir: Path | None, progress: Progress) -> Verification:
    """Check the files, the fingerprint and every image of the copy at hand; all problems are collected.

    Raises a `DataError` if the data set is not at hand.
    """
    require_here(name, dataset, data_dir)
    return _Verifier(name, dataset, data_dir, progress).verify()


class _Verifier:
    """Goes through one data set, and collects what it finds."""

    def __init__(self, name: str, dataset: Dataset, data_dir: Path | None, progress: Progress) -> None:
        self._name, self._dataset, self._data_dir, self._progress = name, dataset, data_dir, progress
        self._found = Verification()

    def verify(self) -> Verification:
        """Check everything."""
        found = self._found
        files = self._verify_files()
        fingerprint = self._verify_content()
        counts = self._verify_images() if self._dataset.labelled else ""
        self._verify_pool()
        # The content of the whole proves its files; where it differs, that is a problem.
        state = "sound" if self._dataset.content else files
        found.summary = f"{self._name}: {counts}fingerprint {fingerprint}: {state}"
        if found.problems:
            found.summary = f"{self._name}: {pluralise(len(found.problems), 'problem')}"
        return found

    def _verify_files(self) -> str:
        """Compare files with the published checksums, and return what is known of those in use, in words."""
        # An archive may have been deleted after it was extracted: what counts are the files from it.
        items = {_get_stem(item.path): item for item in self._dataset.downloads if item.unpack is None}
        published = [] if self._data_dir is None else [self._data_dir / item.path for item in self._dataset.downloads]
        used = self._dataset.files(self._data_dir) if isinstance(self._dataset, FileDataset) else published
        proven = {
            path: _get_stem(path) in items and path.is_file() and self._verify_file(path, items[_get_stem(path)])
            for path in dict.fromkeys([*used, *published])
        }
        unknown = [path.name for path in used if not proven[path]]
        if used and not unknown:
            return "sound"
        names = f" of {', '.join(unknown)}" if len(unknown) < len(used) else ""
        return f"readable; no checksum is known{names}"

    def _verify_file(self, path: Path, item: Download) -> bool:
        """Whether a file is the published one, or holds what that holds; says so, or what is wrong."""
        text = f"{path}: {path.stat().st_size} bytes"
        try:
            if has_checksum(path, item.checksum):
                self._found.notes.append(f"{text}, {item.checksum} as published")
            elif has_content(path, item):
                self._found.notes.append(f"{text}, not compressed as published, but with the same content")
            elif get_content_checksum(item) is None and not is_packed(path):
                self._found.notes.append(f"{text}, unpacked: only of the compressed file a checksum is known")
                return False
            else:
                self._found.problems.append(
                    f"{text}, not the published file ({item.checksum}): `featbench data fetch {self._name}` downloads "
                    f"that to {item.path} in the data folder, where it is looked for first"
                )
        except DataError as error:
            self._found.problems.append(str(error))
        return True

    def _verify_content(self) -> str:
        """Compare the fingerprint with that of a sound copy, and return it; "" if it cannot be computed."""
        self._progress("reading the files", 0, 1)
        try:
            with wrap_errors(self._name):
                fingerprint = self._dataset.fingerprint(self._data_dir)
                self._found.notes += self._dataset.remarks(self._data_dir)
        except DataError as error:
            self._found.problems.append(str(error))
            return ""
        content = self._dataset.content
        if content and fingerprint != content:
            self._found.problems.append(
                f"the content differs from that of the reference copy: {fingerprint}, not {content}"
            )
        elif content:
            self._found.notes.append("the content is that of the reference copy")
        return fingerprint

    def _verify_images(self) -> str:
        """Read every labelled image, and return how many there are."""
        try:
            images = load_images(self._name, self._dataset, self._data_dir)
        except DataError as error:
            self._found.problems.append(str(error))
            return ""
        self._read_all("image", images)
        count, whole = len(images.pixels), self._dataset.image_count
        if whole not in (None, count):
            self._found.problems.append(f"{count} images, where a whole copy has {whole}")
        counts = count_images(images)
        empty = np.flatnonzero(counts == 0)
        self._found.problems += [f"class {images.classes[label]!r} has no images" for label in empty]
        smallest = describe_class(images, int(counts.argmin()))
        return f"{count} images, {len(counts)} classes, smallest {smallest}, "

    def _verify_pool(self) -> None:
        """Read every unlabelled image, where the data set has its own `pool`."""
        if type(self._dataset).pool is Dataset.pool:
            return
        try:
            with wrap_errors(self._name):
                pool = self._dataset.pool(self._data_dir)
        except DataError as error:
            # A note, not a problem: only `--unlabelled` needs them, and labelled images may be all that is wanted.
            self._found.notes.append(str(error))
        else:
            self._read_all("unlabelled image", Images(pool, np.zeros(len(pool), dtype=np.int64), ("",)))

    def _read_all(self, what: str, images: Images) -> None:
        """Read every image; note which sizes and types there are, and what is wrong or strange about which image."""
        count = len(images.pixels)
        read = map_images(
            partial(self._read_image, what, images.pixels), count, partial(self._progress, f"reading {what}s")
        )
        # A string says what is wrong with an image; a shape and a type, that nothing is.
        self._found.problems += [image for image in read if isinstance(image, str)]
        good = {index: image for index, image in enumerate(read) if not isinstance(image, str)}
        if good:
            self._found.notes.append(f"{what}s: {count}, {describe_kinds({kind for kind, _ in good.values()})}")
        traits = {index: traits for index, (_, traits) in good.items() if traits is not None}
        self._found.notes += find_warnings(images, np.array([*traits], dtype=np.int64), [*traits.values()])

    def _read_image(self, what: str, pixels: Sequence[Pixels] | Pixels, index: int) -> str | tuple[Kind, Traits | None]:
        """Return the shape and the type of an image and what is remembered of its file, or what is wrong with it."""
        try:
            with prefix_errors(f"{what} {index}"), wrap_errors(self._name):
                read = pixels.read(index) if isinstance(pixels, ImageFiles) else ReadImage(np.asarray(pixels[index]))
                convert_to_grey(read.pixels, index)  # refuses what no protocol can prepare
                traits = find_traits(read.pixels, read.pixels, read.remarks) if isinstance(pixels, ImageFiles) else None
                return (read.pixels.shape, str(read.pixels.dtype)), traits
        except DataError as error:
            return str(error)


def _get_stem(path: str | Path) -> str:
    """Return what the name of a file has in common with its other spellings, compressed or not."""
    return normalise_name(Path(path).name.removesuffix(".gz"))
