"""Small data sets, whole or broken, for the tests of what featbench does with a copy at hand."""

from collections.abc import Sequence

import numpy as np

from featbench.data.dataset import Dataset, FileDataset
from featbench.errors import DataError
from featbench.types import Images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (200, 4, 6), dtype=np.uint8)
LABELS = np.arange(200) % 3
MD5 = "md5:5d41402abc4b2a76b9719d911017c592"
"""Of b"hello"."""


class Set(Dataset):
    """Things in three classes. They
    are drawn at random.

    More of it."""

    name = "set"

    def __init__(self, pixels=PIXELS, labels=LABELS, classes=("a", "b", "c"), test=None, **attributes):
        self.images = Images(pixels, labels, classes, test)
        for key, value in attributes.items():
            setattr(self, key, value)

    def fingerprint(self, data_dir):
        return "f00d"

    def load(self, data_dir):
        return self.images


class Files(Set, FileDataset):
    """A set of one file."""

    def files(self, data_dir):
        if data_dir is None or not (data_dir / "file").is_file():
            raise DataError("there is no file")
        return [data_dir / "file"]

    fingerprint = FileDataset.fingerprint


class Lazy(Sequence):
    """Images of many sizes; `broken` says which of them raise what."""

    def __init__(self, count, broken=None):
        self.count, self.broken, self.read = count, broken or {}, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.broken:
            raise self.broken[index]
        return np.zeros((5 + index % 3, 7), dtype=np.uint8)


def lazy(count, broken=None):
    return Set(Lazy(count, broken), np.arange(count) % 3)
