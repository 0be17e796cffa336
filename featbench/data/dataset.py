"""Data sets: the contract that plugins fill, and the checks that hold a data set to it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
    """A file as a data set's makers publish it: what `featbench data fetch` downloads and checks.

    Parameters
    ----------
    url : str
        Address of the file.
    path : str
        Where the file lies below the data folder.
    checksum : str
        "md5:…" or "sha256:…", of the file as it is published. A file that differs is refused.
    unpack : str or None, default None
        The file is an archive, which is extracted into this folder below the data folder. None: the file is used as it
        is.
    content : str or None, default None
        "md5:…" or "sha256:…" of what a gzip file holds. With it, `featbench data verify` knows a copy that was
        unpacked, or compressed again, to be sound.
    """

    url: str
    path: str
    checksum: str
    unpack: str | None = None
    content: str | None = None


class Dataset(ABC):
    """A named source of labelled images, of unlabelled ones, or of both.

    A plugin subclasses it, or `FileDataset`, sets `name`, implements `fingerprint` and `load`, and returns an instance
    from the hook `featbench_datasets`. Errors of any kind that its methods raise become a `DataError` that names the
    data set.

    Attributes
    ----------
    name : str
        What `--dataset` and a protocol call it; unique among all plugins.
    source : str, default ""
        The paper or the people to cite.
    licence : str, default ""
        Terms of use, in the makers' words.
    homepage : str, default ""
        Address of the makers' page. `featbench data info` shows all three.
    downloads : tuple of Download, default ()
        The files that `featbench data fetch` downloads.
    content : str, default ""
        The fingerprint of a sound copy, which `featbench data verify` compares with that of the copy at hand; "" where
        none is known.
    image_count : int or None, default None
        How many labelled images a whole copy has, which `featbench data verify` compares with those at hand; None where
        that is not known.
    labelled : bool, default True
        False for a set of unlabelled images alone: it has a `pool`, and `load` raises a `DataError`.

    See Also
    --------
    FileDataset : the base of data sets that are made of files.

    Notes
    -----
    The docstring of the class is what `featbench data list` and `featbench data info` say of the data set.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    downloads: ClassVar[tuple[Download, ...]] = ()
    content: ClassVar[str] = ""
    image_count: ClassVar[int | None] = None
    labelled: ClassVar[bool] = True

    @abstractmethod
    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the data, which stored results depend on.

        Other data must give another fingerprint. It is computed in every run, so it should cost much less than
        `load`.

        Parameters
        ----------
        data_dir : Path or None
            The data folder (`--data-dir`, `FEATBENCH_DATA`); None where none is set.

        Returns
        -------
        str
            A string that stands for the data, as a SHA-256 in hexadecimal digits.

        Raises
        ------
        DataError
            If the data is not at hand: the message names what is missing.
        """

    @abstractmethod
    def load(self, data_dir: Path | None) -> Images:
        """Read the labelled images.

        Parameters
        ----------
        data_dir : Path or None
            The data folder (`--data-dir`, `FEATBENCH_DATA`); None where none is set.

        Returns
        -------
        Images
            All images of the data set, in an order that never changes: draws refer to positions in it.

        Raises
        ------
        DataError
            If a file is missing or damaged: the message names it.
        """

    def of(self, argument: str) -> Dataset:
        """Return the data set that `name:argument` stands for, as `folder:PATH` does.

        Parameters
        ----------
        argument : str
            What follows the colon.

        Returns
        -------
        Dataset
            A data set of its own, with the same `name`.

        Raises
        ------
        UsageError
            If it takes no argument, as is the default, or not this one.
        """
        raise UsageError(f"data set {self.name} takes no argument: write {self.name}, not {self.name}:{argument}")

    def pool(self, data_dir: Path | None) -> Sequence[Pixels]:
        """Return the unlabelled images, which `--unlabelled NAME` learns filters from.

        Parameters
        ----------
        data_dir : Path or None
            The data folder (`--data-dir`, `FEATBENCH_DATA`); None where none is set.

        Returns
        -------
        sequence of ndarray
            Images as `Images.pixels` holds them; a sequence may read an image when it is asked for.

        Raises
        ------
        DataError
            If the set has none, as is the default, or a file is missing or damaged.
        """
        raise DataError(f"data set {self.name} has no unlabelled images")

    def remarks(self, data_dir: Path | None) -> list[str]:
        """Return what else a user should know of the copy at hand, as files that were ignored.

        Parameters
        ----------
        data_dir : Path or None
            The data folder (`--data-dir`, `FEATBENCH_DATA`); None where none is set.

        Returns
        -------
        list of str
            One line each, which `featbench data info` and `featbench data verify` print, and comparisons warn with
            unless the set has a `content`; none by default.
        """
        return []


class FileDataset(Dataset):
    """A data set that is made of files: its fingerprint is a hash of their names and contents.

    A plugin implements `files` and `load`. The files may lie anywhere: a copy in another folder has the same
    fingerprint. Each is read through once a run, for its hash.

    Attributes
    ----------
    name, source, licence, homepage, downloads, content, image_count, labelled
        As those of `Dataset`.
    """

    @abstractmethod
    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the files that the data set reads.

        Parameters
        ----------
        data_dir : Path or None
            The data folder (`--data-dir`, `FEATBENCH_DATA`); None where none is set.

        Returns
        -------
        list of Path
            The files, all of which exist, in an order that never changes.

        Raises
        ------
        DataError
            If a file is not at hand: the message names it and where it was looked for.
        """

    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the names and the contents of the files.

        Parameters
        ----------
        data_dir : Path or None
            The data folder (`--data-dir`, `FEATBENCH_DATA`); None where none is set.

        Returns
        -------
        str
            A SHA-256 in hexadecimal digits.

        Raises
        ------
        DataError
            If a file is not at hand.
        """
        return hash_files(self.files(data_dir))


def hash_files(files: Sequence[Path], root: Path | None = None, hash_of: Callable[[Path], str] = file_hash) -> str:
    """Return a hash of the names of files (with `root`: their paths below it) and of their contents, in this order."""
    digest = hashlib.sha256()
    for path in files:
        name = path.name if root is None else path.relative_to(root).as_posix()
        # No name holds a NUL and no hash a line break: two lists of files never come to the same bytes.
        digest.update(f"{name}\0{hash_of(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def load_images(name: str, dataset: Dataset, data_dir: Path | None) -> Images:
    """Load a data set and check that it keeps the contract; whatever it raises becomes a `DataError` that names it."""
    with wrap_errors(name):
        return check_images(name, dataset.load(data_dir))


def check_images(name: str, images: Images) -> Images:
    """Return the images of a data set if they keep the contract, else raise a `DataError` that names the data set.

    There must be images, as many labels as images, as many marks in `test` and `names` if there are any, and labels
    that are indices of classes.
    """
    count = len(images.pixels)
    if count == 0:
        raise DataError(f"data set {name} holds no images")
    if len(images.labels) != count:
        raise DataError(f"data set {name} has {count} images but {len(images.labels)} labels")
    if images.test is not None and len(images.test) != count:
        raise DataError(f"data set {name} has {count} images but marks {len(images.test)} of them as test or training")
    if images.names is not None and len(images.names) != count:
        raise DataError(f"data set {name} has {count} images but {len(images.names)} names of images")
    if not np.issubdtype(np.asarray(images.labels).dtype, np.integer):
        raise DataError(f"data set {name} has labels that are not integers")
    if images.labels.min() < 0 or images.labels.max() >= len(images.classes):
        raise DataError(f"data set {name} has labels outside its {len(images.classes)} classes")
    return images


@contextmanager
def wrap_errors(name: str) -> Iterator[None]:
    """Turn whatever a data set's own code raises into a `DataError` that names the data set.

    featbench's own errors pass: they say what is wrong already. A plugin's bug thus costs one line, not a traceback.
    """
    try:
        yield
    except FeatbenchError:
        raise
    except Exception as error:
        raise DataError(f"data set {name} cannot be read: {type(error).__name__}: {error}") from error


@contextmanager
def prefix_errors(whose: str) -> Iterator[None]:
    """Put the name of a data set or a file before a `DataError` that does not give it."""
    try:
        yield
    except DataError as error:
        if whose in str(error):
            raise
        raise DataError(f"{whose}: {error}") from error
