"""Data sets: the contract that plugins fill."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from featbench.errors import DataError, FeatbenchError, UsageError
from featbench.system.hashing import file_hash
from featbench.types import Images, Pixels


@dataclass(frozen=True)
class Download:
    """A file as a data set's makers publish it.

    path: where it lies below the data folder. checksum: "md5:…" or "sha256:…", of the file as it is published. unpack:
    the file is an archive, which is extracted into this folder below the data folder; None: it is used as it is.
    """

    url: str
    path: str
    checksum: str
    unpack: str | None = None


class Dataset(ABC):
    """A named source of labelled images.

    source: paper. licence, homepage: for `featbench data info`. downloads: for `featbench data fetch`. content: the
    fingerprint of a sound copy, where one is known, for `featbench data verify`. labelled: False for a set that has but
    a `pool`.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    downloads: ClassVar[tuple[Download, ...]] = ()
    content: ClassVar[str] = ""
    labelled: ClassVar[bool] = True

    @abstractmethod
    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the data that is cheap to compute; a `DataError` names what is missing."""

    @abstractmethod
    def load(self, data_dir: Path | None) -> Images:
        """Read the images; a `DataError` names the file that is missing or damaged."""

    def of(self, argument: str) -> Dataset:
        """Return the data set that `name:argument` stands for, as `folder:PATH` does."""
        raise UsageError(f"data set {self.name} takes no argument: write {self.name}, not {self.name}:{argument}")

    def pool(self, data_dir: Path | None) -> Sequence[Pixels]:
        """Return the set's unlabelled images, for `--unlabelled`; a `DataError` if it has none."""
        raise DataError(f"data set {self.name} has no unlabelled images")

    def remarks(self, data_dir: Path | None) -> list[str]:
        """Return what else is worth saying of the copy at hand, as files that were ignored."""
        return []


class FileDataset(Dataset):
    """A data set that is made of files."""

    @abstractmethod
    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the files that it reads, in a fixed order; a `DataError` names what is missing."""

    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the names of the files and of what is in them, wherever they lie."""
        return files_hash(self.files(data_dir))


def files_hash(files: Sequence[Path], root: Path | None = None) -> str:
    """Return a hash of the names of files (with `root`: their paths below it) and of their contents, in this order."""
    digest = hashlib.sha256()
    for path in files:
        name = path.name if root is None else path.relative_to(root).as_posix()
        digest.update(f"{name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def find_file(data_dir: Path | None, dataset: str, folder: str, *names: str) -> Path:
    """Return the first file of these names in `folder` below the data folder, or in the data folder itself.

    Raises `DataError` with the places where it was looked for.
    """
    if data_dir is None:
        raise DataError(
            f"data set {dataset} needs {names[0]}: set FEATBENCH_DATA or --data-dir to the folder of your data sets "
            f"(`featbench data fetch {dataset}` downloads it)"
        )
    for place in (data_dir / folder, data_dir):
        for name in names:
            if (place / name).is_file():
                return place / name
    raise DataError(
        f"data set {dataset}: {names[0]} is neither in {data_dir / folder} nor in {data_dir}: put it there, set "
        f"--data-dir, or `featbench data fetch {dataset}`"
    )


def check_images(name: str, images: Images) -> Images:
    """Hold a data set to its contract: as many labels as images, labels within the classes."""
    count = len(images.pixels)
    if count == 0:
        raise DataError(f"data set {name} holds no images")
    if len(images.labels) != count:
        raise DataError(f"data set {name} has {count} images but {len(images.labels)} labels")
    if images.test is not None and len(images.test) != count:
        raise DataError(f"data set {name} has {count} images but marks {len(images.test)} of them as test or training")
    if not np.issubdtype(np.asarray(images.labels).dtype, np.integer):
        raise DataError(f"data set {name} has labels that are not integers")
    if images.labels.min() < 0 or images.labels.max() >= len(images.classes):
        raise DataError(f"data set {name} has labels outside its {len(images.classes)} classes")
    return images


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a data set raises while it is read into a `DataError` that names it."""
    try:
        yield
    except FeatbenchError:
        raise
    except Exception as error:
        raise DataError(f"data set {name} cannot be read: {type(error).__name__}: {error}") from error


@contextmanager
def blaming(whose: str) -> Iterator[None]:
    """Put the name of a data set or a file before a `DataError` that does not give it."""
    try:
        yield
    except DataError as error:
        if whose in str(error):
            raise
        raise DataError(f"{whose}: {error}") from error
