"""Image files: those below a folder, their hash, and their pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featbench.data.dataset import hash_files
from featbench.data.folder_listing import explain_emptiness, list_folder
from featbench.data.image_reader import ReadImage, read_with_remarks
from featbench.errors import DataError
from featbench.system.hashing import file_hash
from featbench.system.printable import make_printable
from featbench.types import Pixels


class ImageFiles(Sequence[Pixels]):
    """Images that are read from their files when they are asked for, each [height, width] or [height, width, 3]."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:  # type: ignore[override]
        return self.read(index).pixels

    def read(self, index: int) -> ReadImage:
        """Return an image, and what a user should know of how it was read."""
        return read_with_remarks(self.paths[index])


def find_image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted; a `DataError` if there are none, or no such folder."""
    if not folder.is_dir():
        raise DataError(f"there is no folder of images {make_printable(folder)}")
    found, ignored = list_folder(folder)
    if not found:
        raise DataError(f"the folder {explain_emptiness(folder, ignored)}")
    return found


def hash_image_folder(folder: Path) -> str:
    """Return a hash of the names and contents of the images below a folder; raises as `find_image_files` does."""
    return hash_image_files(find_image_files(folder), folder)


def hash_image_files(files: Sequence[Path], root: Path) -> str:
    """Return a hash of image files' paths below `root` and of their contents.

    One that cannot be read, as a link that leads nowhere, has its name in the hash: it may be left out.
    """
    return hash_files(files, root, _hash_if_readable)


def _hash_if_readable(path: Path) -> str:
    # What is no file any more since the folder was listed is left to the reader, which looks before it opens.
    try:
        return file_hash(path) if path.is_file() else "no file"
    except OSError:
        return "unreadable"
