"""Pack Caltech-101 for a machine that little can be sent to: grey, as small as its protocols see it, as JPEG.

Run: FEATBENCH_DATA=data python benchmarks/pack.py packed
Then: FEATBENCH_DATA=packed, in place of the original data. Accuracies differ a little from those of the original.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

FOLDER = Path("caltech101", "101_ObjectCategories")

LONGEST = 151
"""Pixels of the longer side, as the protocol caltech101-30 resizes images: there is nothing left to resize."""


def main() -> None:
    """Pack the images, and print how many there are and how much they take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the folder to make")
    parser.add_argument("--classes", type=int, help="so many classes, the first ones by name (default: all)")
    parser.add_argument("--per-class", type=int, help="images of each class at most (default: all)")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs, at most 95 (default: 90)")
    arguments = parser.parse_args()
    if "FEATBENCH_DATA" not in os.environ:
        parser.error("set FEATBENCH_DATA to the folder that holds caltech101")
    source = Path(os.environ["FEATBENCH_DATA"]) / FOLDER
    files = list_images(source, arguments.classes, arguments.per_class)
    if not files:
        parser.error(f"there are no images in {source}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(lambda file: pack(source, file, arguments.output / FOLDER, arguments.quality), files))
    print(f"{len(files)} images, {sum(sizes) / 2**20:.1f} MiB in {arguments.output}")


def list_images(source: Path, classes: int | None, per_class: int | None) -> list[Path]:
    """Return the images of each class folder, the first ones by name."""
    folders = sorted(folder for folder in source.iterdir() if folder.is_dir()) if source.is_dir() else []
    return [file for folder in folders[:classes] for file in sorted(folder.glob("*.jpg"))[:per_class]]


def pack(source: Path, file: Path, output: Path, quality: int) -> int:
    """Write one image grey and small into the same class folder of `output`; return its bytes."""
    packed = output / file.relative_to(source)
    packed.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.open(file).convert("L")
    scale = LONGEST / max(grey.size)
    width, height = (max(1, round(side * scale)) for side in grey.size)
    grey.resize((width, height), Image.Resampling.BICUBIC).save(packed, quality=quality, optimize=True)
    return packed.stat().st_size


if __name__ == "__main__":
    main()
