"""scikit-learn's handwritten digits: 1,797 real images of 8×8 pixels, part of the package."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from featbench.data.dataset import Dataset
from featbench.hookspecs import hookimpl
from featbench.types import Images


class Digits(Dataset):
    """Handwritten digits, 1,797 images of 8×8, ten classes; comes with scikit-learn, no download."""

    name: ClassVar[str] = "digits"
    source: ClassVar[str] = "UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), test part"
    image_count: ClassVar[int | None] = 1797
    content: ClassVar[str] = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"

    def fingerprint(self, data_dir: Path | None) -> str:
        """Return the hash of the file that scikit-learn ships."""
        import sklearn

        return hashlib.sha256((Path(sklearn.__file__).parent / "datasets/data/digits.csv.gz").read_bytes()).hexdigest()

    def load(self, data_dir: Path | None) -> Images:
        """Return grey images of values 0 to 16."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        return Images(
            pixels=digits.images.astype(np.uint8),
            labels=digits.target.astype(np.int64),
            classes=tuple(str(name) for name in digits.target_names),
        )


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register the digits."""
    return [Digits()]
