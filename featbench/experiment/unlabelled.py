"""Unlabelled images to learn from, as `--unlabelled` names them: a folder, a data set, or `training+` either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featbench.data.dataset import wrap_errors
from featbench.data.folder_listing import describe_ignored, list_folder
from featbench.data.image_files import ImageFiles, find_image_files
from featbench.registry import Registry
from featbench.system.user_files import expand_user
from featbench.types import Pixels

TRAINING = "training+"
"""Prefix of the name of unlabelled images that a learner sees together with the training images."""


def joins_training(unlabelled: str) -> bool:
    """Whether filters are learned on the training images too: `training+PATH`."""
    return unlabelled.startswith(TRAINING)


def get_pool_name(unlabelled: str) -> str:
    """Return the folder or data set of unlabelled images, without the prefix."""
    return unlabelled.removeprefix(TRAINING)


def find_unlabelled_images(name: str, registry: Registry, data_dir: Path | None) -> Sequence[Pixels]:
    """Return the unlabelled images of a data set, or those of a folder; raises `DataError` if there are none."""
    if name in registry.names("datasets"):
        with wrap_errors(name):
            return registry.dataset(name).pool(data_dir)
    return ImageFiles(find_image_files(expand_user(name)))


def describe_unused(name: str, registry: Registry) -> list[str]:
    """Return a line that counts what lies in a folder of unlabelled images and is not used; none for a data set."""
    folder = expand_user(name)
    if name in registry.names("datasets") or not folder.is_dir():
        return []
    return describe_ignored(list_folder(folder)[1])
