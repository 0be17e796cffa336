"""Data sets that are folders of images with one folder a class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from featbench.data.dataset import FileDataset, hash_files
from featbench.data.image_files import ENDINGS, ImageFiles, list_files, require_distinct
from featbench.errors import DataError
from featbench.types import Images


@dataclass(frozen=True)
class ClassFolders:
    """What is in a folder with one folder a class.

    classes: their names, sorted. files: the image files, class by class, sorted. labels: the class of each, an index.
    others: all other files.
    """

    classes: tuple[str, ...]
    files: list[Path]
    labels: list[int]
    others: list[Path]


class ClassFolderDataset(FileDataset):
    """A folder with one folder a class, except the classes named in `without`; files that are no images are ignored."""

    without: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def root(self, data_dir: Path | None) -> Path:
        """Return the folder that holds the classes; a `DataError` says where it was looked for."""

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the image files, class by class."""
        return find_class_folders(self.root(data_dir), self.without).files

    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the images' contents and of their paths below the folder."""
        return hash_files(self.files(data_dir), self.root(data_dir))

    def load(self, data_dir: Path | None) -> Images:
        """Return the images, each read when it is asked for."""
        root = self.root(data_dir)
        found = find_class_folders(root, self.without)
        names = [path.relative_to(root).as_posix() for path in found.files]
        return Images(ImageFiles(found.files), np.array(found.labels, dtype=np.int64), found.classes, names=names)

    def remarks(self, data_dir: Path | None) -> list[str]:
        """Say how many files were ignored, and name one."""
        others = find_class_folders(self.root(data_dir), self.without).others
        return [f"{len(others)} other files ignored, as {others[0]}"] if others else []


def find_class_folders(root: Path, without: tuple[str, ...] = ()) -> ClassFolders:
    """List a folder with one folder a class, except the classes named in `without`; hidden folders are ignored.

    Raises `DataError` if there is no such folder or no class in it, if a class holds no images, or if two files or
    folders have one name but for the case.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    # `__MACOSX` holds what macOS adds to archives.
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    require_distinct(folders)
    classes = [folder for folder in folders if folder.name not in without]
    if not classes:
        raise DataError(f"{root} holds no folders: a data set of images has one folder a class")
    files, labels = [], []
    others = [path for path in root.iterdir() if path.is_file()]
    for label, folder in enumerate(classes):
        images, rest = list_files(folder)
        if not images:
            raise DataError(f"class {folder.name!r} is empty: {folder} holds no images ({', '.join(ENDINGS)})")
        files += images
        others += rest
        labels += [label] * len(images)
    return ClassFolders(tuple(folder.name for folder in classes), files, labels, sorted(others))
