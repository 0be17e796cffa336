"""Data sets: the contract that plugins fill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from featbench.errors import DataError, FeatbenchError
from featbench.types import Images


class Dataset(ABC):
    """A named source of labelled images."""

    name: ClassVar[str]
    source: ClassVar[str] = ""

    @abstractmethod
    def fingerprint(self, data_dir: Path | None) -> str:
        """Return a hash of the data that is cheap to compute; a `DataError` names what is missing."""

    @abstractmethod
    def load(self, data_dir: Path | None) -> Images:
        """Read the images; a `DataError` names the file that is missing or damaged."""


def check_images(name: str, images: Images) -> Images:
    """Hold a data set to its contract: as many labels as images, labels within the classes, none of them empty."""
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
