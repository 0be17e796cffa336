"""Natural images to learn filters from: the photographs of the Berkeley segmentation data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from featbench.data.dataset import Dataset, FileDataset
from featbench.data.folder import find_folder
from featbench.data.image_files import ImageFiles, find_image_files
from featbench.errors import DataError
from featbench.hookspecs import hookimpl
from featbench.types import Images, Pixels

CANDIDATES = ("bsds500/train", "bsds500", "BSDS500/data/images/train", "BSR/BSDS500/data/images/train")
"""Where the photographs may lie below the data folder."""


class Berkeley(FileDataset):
    """Photographs without labels, 200 of 481×321 in colour, for --unlabelled; any folder will do there as well."""

    name: ClassVar[str] = "berkeley"
    source: ClassVar[str] = "Arbelaez, Maire, Fowlkes, Malik 2011, BSDS500 (training images)"
    licence: ClassVar[str] = "non-commercial research"
    labelled: ClassVar[bool] = False
    homepage: ClassVar[str] = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"

    def files(self, data_dir: Path | None) -> list[Path]:
        """Return the photographs, sorted."""
        if data_dir is None:
            raise DataError(
                "data set berkeley: set FEATBENCH_DATA or --data-dir to the folder of your data sets, or give a folder "
                "of photographs to --unlabelled"
            )
        found = find_folder(data_dir, CANDIDATES)
        if found is None:
            others = ", ".join(CANDIDATES[1:])
            raise DataError(f"data set berkeley: there is no folder {data_dir / CANDIDATES[0]}, nor any of {others}")
        return find_image_files(found)

    def load(self, data_dir: Path | None) -> Images:
        """Refuse: there is nothing to classify."""
        raise DataError("data set berkeley has no labels: learn filters from it, with --unlabelled berkeley")

    def pool(self, data_dir: Path | None) -> Sequence[Pixels]:
        """Return the photographs, each read when it is asked for."""
        return ImageFiles(self.files(data_dir))


@hookimpl
def featbench_datasets() -> list[Dataset]:
    """Register the Berkeley photographs."""
    return [Berkeley()]
