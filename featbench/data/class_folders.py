"""Data sets that are folders of images with one folder a class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from featbench.data.dataset import FileDataset
from featbench.data.folder_listing import (
    HIDDEN,
    Ignored,
    describe_ignored,
    explain_emptiness,
    list_folder,
    require_distinct,
)
from featbench.data.image_files import ImageFiles, hash_image_files
from featbench.errors import DataError
from featbench.system.printable import make_printable
from featbench.types import Images


@dataclass(frozen=True)
class ClassFolders:
    """What is in a folder with one folder a class.

    classes: their names, sorted. files: the image files, class by class, sorted. labels: the class of each, an index.
    ignored: what is not taken, and what each is, sorted. nested: the image files that lie in subfolders of their class.
    """

    classes: tuple[str, ...]
    files: list[Path]
    labels: list[int]
    ignored: list[Ignored]
    nested: list[Path]


class ClassFolderDataset(FileDataset):
    """A folder with one folder a class, except the classes named in `without`; files that are no images are ignored."""

    without: ClassVar[tuple[str, ...]] = ()
    by_name: ClassVar[bool] = False
    """Whether files of other names than those of images are no images, whatever they hold: of a set that is known."""

    @abstractmethod
    def root(self, data_dir: Path | None) -> Path:
        """Return the folder that holds the classes; a `DataError` says where it was looked for."""

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the image files, class by class."""
        return self._find(data_dir).files

    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the images' contents and of their paths below the folder."""
        return hash_image_files(self.files(data_dir), self.root(data_dir))

    def load(self, data_dir: Path | None) -> Images:
        """Return the images, each read when it is asked for."""
        root, found = self.root(data_dir), self._find(data_dir)
        names = [make_printable(path.relative_to(root).as_posix()) for path in found.files]
        return Images(ImageFiles(found.files), np.array(found.labels, dtype=np.int64), found.classes, names=names)

    def remarks(self, data_dir: Path | None) -> list[str]:
        """Say how many files were ignored, of which kinds, and which images lie deeper than others."""
        found = self._find(data_dir)
        lines = describe_ignored(found.ignored)
        if found.nested:
            count, first = len(found.nested), make_printable(found.nested[0])
            lines.append(f"images in subfolders of classes, taken as images of the class: {count}, as {first}")
        return lines

    def _find(self, data_dir: Path | None) -> ClassFolders:
        return find_class_folders(self.root(data_dir), self.without, by_name=self.by_name)


def find_class_folders(root: Path, without: tuple[str, ...] = (), *, by_name: bool = False) -> ClassFolders:
    """List a folder with one folder a class, except the classes named in `without`; `by_name` as `list_folder` has it.

    Raises `DataError` if there is no such folder, if it cannot be read or has fewer than two classes, if a class holds
    no images, or if two files or folders have one name but for the case.
    """
    place = make_printable(root)
    if not root.is_dir():
        raise DataError(f"there is no folder {place}")
    folders, ignored = _list_root(root)
    require_distinct(folders)
    classes = [folder for folder in folders if folder.name not in without]
    if not classes:
        raise DataError(f"{place} holds no folders: a data set of images has one folder a class")
    names = tuple(make_printable(folder.name) for folder in classes)
    if len(classes) == 1:
        raise DataError(
            f"{place} holds a single class, {names[0]!r}: there is nothing to tell apart; add other folders"
        )
    files, labels, nested = [], [], []
    for label, folder in enumerate(classes):
        images, rest = list_folder(folder, by_name=by_name)
        if not images:
            raise DataError(f"class {names[label]!r} is empty: {explain_emptiness(folder, rest)}")
        files += images
        ignored += rest
        labels += [label] * len(images)
        nested += [path for path in images if path.parent != folder]
    return ClassFolders(names, files, labels, sorted(ignored), nested)


def _list_root(root: Path) -> tuple[list[Path], list[Ignored]]:
    """Return the folders of the classes, sorted, and what else lies beside them."""
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise DataError(f"folder {make_printable(root)} cannot be read: {error.strerror or error}") from error
    # `__MACOSX` holds what macOS adds to archives.
    hidden = [path for path in entries if path.name.startswith((".", "__"))]
    folders = [path for path in entries if path not in hidden and path.is_dir()]
    beside = [Ignored(path, "beside the class folders") for path in entries if path not in hidden + folders]
    return folders, [Ignored(path, HIDDEN) for path in hidden] + beside
