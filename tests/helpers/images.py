"""Folders of images."""

from pathlib import Path

import numpy as np
from PIL import Image


def image_folder(folder: Path, count: int, sides: tuple[int, int], seed: int = 0) -> Path:
    """Fill a folder with grey noise images."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(generator.integers(0, 256, size=sides, dtype=np.uint8)).save(folder / f"{number}.png")
    return folder
