"""Unlabelled images to learn from: their names, and where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featbench.data.dataset import wrap_errors
from featbench.data.image_files import ImageFiles, find_image_files
from featbench.registry import Registry
from featbench.types import Pixels

TRAINING = "training+"
"""What stands before the name of unlabelled images that are seen besides the training images."""


def joins_training(unlabelled: str) -> bool:
    """Whether filters are learned on training images besides the unlabelled ones: `training+PATH`."""
    return unlabelled.startswith(TRAINING)


def pool_name(unlabelled: str) -> str:
    """Return the folder or data set of unlabelled images alone."""
    return unlabelled.removeprefix(TRAINING)


def unlabelled_images(name: str, registry: Registry, data_dir: Path | None) -> Sequence[Pixels]:
    """Return the unlabelled images of a data set, or those of a folder."""
    if name in registry.names("datasets"):
        with wrap_errors(name):
            return registry.dataset(name).pool(data_dir)
    return ImageFiles(find_image_files(Path(name)))
