"""Caltech-101 from the set's own folders, with or without the background class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from featbench.data.class_folders import ClassFolderDataset
from featbench.data.dataset import Dataset, Download
from featbench.data.folder import find_folder
from featbench.errors import DataError
from featbench.hookspecs import hookimpl

FOLDER = "101_ObjectCategories"

PARENTS = ("caltech101", "caltech101/caltech-101", "caltech-101", "")
"""Folders below the data folder that may hold it: where the archive is extracted, by featbench or by hand."""


class Caltech101(ClassFolderDataset):
    """Caltech-101: 9,144 photographs of about 300 pixels, 101 kinds of objects and a background class."""

    name: ClassVar[str] = "caltech101"
    source: ClassVar[str] = "Fei-Fei, Fergus, Perona 2004, Learning generative visual models from few training examples"
    licence: ClassVar[str] = "CC BY 4.0"
    homepage: ClassVar[str] = "https://data.caltech.edu/records/mzrjq-6wc02"
    downloads: ClassVar[tuple[Download, ...]] = (
        Download(
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            "caltech101/caltech-101.zip",
            "md5:3138e1922a9193bfa496528edbbc45d0",
            unpack="caltech101",
        ),
    )
    by_name: ClassVar[bool] = True
    content: ClassVar[str] = "3610e04d04ad3522497170bd11442ba4ad8e041cb71d23796e4fc3a45f7a9e75"

    def root(self, data_dir: Path | None) -> Path:
        """Return the folder 101_ObjectCategories."""
        if data_dir is None:
            raise DataError(
                f"data set {self.name} needs the folder {FOLDER}: set FEATBENCH_DATA or --data-dir to the folder that "
                f"holds it, or caltech101/{FOLDER} (`featbench data fetch {self.name}` downloads it)"
            )
        found = find_folder(data_dir, [Path(parent, FOLDER) for parent in PARENTS])
        if found is None:
            raise DataError(
                f"data set {self.name}: there is no folder {data_dir / PARENTS[0] / FOLDER}, nor {data_dir / FOLDER}: "
                f"put it there, set --data-dir, or `featbench data fetch {self.name}`"
            )
        return found


class Caltech101Objects(Caltech101):
    """Caltech-101 without its background class: 8,677 photographs, 101 kinds of objects."""

    name: ClassVar[str] = "caltech101-objects"
    content: ClassVar[str] = "44d689398f2862f5df4a7bedbf002b69f777ba4080f5081766339814afa8d746"
    without: ClassVar[tuple[str, ...]] = ("BACKGROUND_Google",)


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register Caltech-101, whole and without its background."""
    return [Caltech101(), Caltech101Objects()]
