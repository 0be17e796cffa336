"""A user's own images: one folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from featbench.data.class_folders import ClassFolderDataset
from featbench.data.dataset import Dataset
from featbench.errors import DataError, UsageError
from featbench.hookspecs import hookimpl
from featbench.system.user_files import expand_user


class Folder(ClassFolderDataset):
    """Your own images, one folder a class (jpg, png, tif, webp, …): folder:PATH."""

    name: ClassVar[str] = "folder"
    source: ClassVar[str] = "your own"

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    def of(self, argument: str) -> Dataset:
        """Return the data set of a folder."""
        if not argument:
            raise UsageError("folder: needs a path, as in folder:photographs")
        return Folder(expand_user(argument))

    def root(self, data_dir: Path | None) -> Path:
        """Return the folder that was named."""
        if self.path is None:
            raise DataError("the data set folder needs a path: write folder:PATH, a folder with one folder a class")
        return self.path


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register folders of images."""
    return [Folder()]
