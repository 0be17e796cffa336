"""Draw digits of MNIST under each distortion, and measure what distorting an image costs on one thread.

Run: FEATBENCH_DATA=data python benchmarks/augmentation.py --output docs/augmentation.png
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
import torch
from torch import Tensor

from featbench.datasets.mnist import Mnist
from featbench.refinement.augmentation import Augmentation

EVERYTHING = Augmentation(shift=2, rotate=15, scale=0.15, shear=0.2, elastic=34)

ROWS = {
    "original": Augmentation(),
    "shift=2": Augmentation(shift=2),
    "rotate=15": Augmentation(rotate=15),
    "scale=0.15": Augmentation(scale=0.15),
    "shear=0.2": Augmentation(shear=0.2),
    "elastic=34": Augmentation(elastic=34),
    "all of them": EVERYTHING,
    "another epoch": EVERYTHING,
}

BATCH, REPEATS = 16, 30


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a PNG file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for side in (28, 143):
        maps = torch.randn(BATCH, 1, side, side)
        affine, everything = (time_augmentation(kind, maps) for kind in (Augmentation(rotate=15), EVERYTHING))
        print(f"{side}x{side}: affine {affine:.0f} us an image, with elastic {everything:.0f} us")
    if arguments.output:
        draw_digits(read_ten_digits(), arguments.output)


def time_augmentation(augmentation: Augmentation, maps: Tensor) -> float:
    """Return the median microseconds an image, in batches."""
    images, times = np.arange(len(maps)), []
    for epoch in range(REPEATS):
        start = time.perf_counter()
        augmentation.distort(maps, images, epoch)
        times.append(time.perf_counter() - start)
    return 1e6 * median(times) / len(maps)


def read_ten_digits() -> Tensor:
    """Return the first training image of each class, [10, 1, 28, 28]."""
    images = Mnist().load(Path(os.environ["FEATBENCH_DATA"]))
    first = np.unique(images.labels, return_index=True)[1]
    return torch.from_numpy(np.stack([images.pixels[index] for index in first]))[:, None].float()


def draw_digits(digits: Tensor, path: Path) -> None:
    """Draw a row of digits for each distortion."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(ROWS), figsize=(8, 0.72 * len(ROWS)), layout="constrained")
    for epoch, (axis, (name, augmentation)) in enumerate(zip(axes, ROWS.items(), strict=True)):
        maps = augmentation.distort(digits, np.arange(len(digits)), epoch)
        axis.imshow(np.hstack(maps[:, 0].numpy()), cmap="gray_r", interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
