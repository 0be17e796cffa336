"""Measure dense SIFT and HOG against OpenCV on Caltech-101: how fast, and how much alike, in one run.

Run: FEATBENCH_DATA=data python benchmarks/sift.py --output benchmarks/sift.md
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from featbench.features.descriptors import dense_hog, dense_sift
from featbench.store.provenance import describe_run

HEIGHT, WIDTH = 200, 300
"""The size of the images that are measured; many of Caltech-101 have it as they are."""

BATCH = 16

Grey = NDArray[np.uint8]
Descriptors = NDArray[np.float32]
Describe = Callable[[Tensor], Tensor]


def main() -> None:
    """Measure all there is, print it, and write it with what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    parser.add_argument("--images", type=int, default=4 * BATCH)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = read_images(arguments.images)
    text = "\n\n".join([format_heading(len(images)), compare_speed(images, arguments.repeats), compare_values(images)])
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", "utf-8")


def read_images(count: int) -> list[Grey]:
    """Return grey images of one size, drawn from all classes."""
    files = sorted((Path(os.environ["FEATBENCH_DATA"]) / "caltech101").rglob("*/image_*.jpg"))
    fitting = [file for file in files if Image.open(file).size == (WIDTH, HEIGHT)]
    chosen = np.random.default_rng(0).choice(len(fitting), count, replace=False)
    return [np.array(Image.open(fitting[index]).convert("L")) for index in sorted(chosen)]


def make_grid(side: int, size: int, step: int) -> range:
    """Return where patches begin along a side, their grid centred."""
    return range((side - size) % step // 2, side - size + 1, step)


def make_opencv_sift(size: int, step: int) -> Callable[[Grey], Descriptors]:
    """Return OpenCV's SIFT, upright, of one scale and without blur, at the pixels right below our patches' centres."""
    keypoints = [
        # A cell is 3/2 of a keypoint's size.
        cv2.KeyPoint(float(left + size // 2), float(top + size // 2), size / 6, 0, 0, 0)
        for top in make_grid(HEIGHT, size, step)
        for left in make_grid(WIDTH, size, step)
    ]
    # One layer an octave is its fastest: every layer is blurred, and the first alone is needed.
    sift = cv2.SIFT_create(nOctaveLayers=1, sigma=0.5)

    def describe(grey: Grey) -> Descriptors:
        kept, found = sift.compute(grey, keypoints)
        assert len(kept) == len(keypoints)
        return found

    return describe


def make_opencv_hog(cell: int, gaussian: float) -> Callable[[Grey], Descriptors]:
    """Return OpenCV's HOG of the pixels that our grid covers, in our order of blocks, cells and orientations."""
    (top, rows), (left, columns) = ((side % cell // 2, side // cell) for side in (HEIGHT, WIDTH))
    sizes = (columns * cell, rows * cell), (2 * cell, 2 * cell), (cell, cell), (cell, cell)
    hog = cv2.HOGDescriptor(*sizes, 9, 1, gaussian, cv2.HOGDescriptor_L2Hys, 0.2, False)

    def describe(grey: Grey) -> Descriptors:
        found = hog.compute(grey[top : top + rows * cell, left : left + columns * cell])
        blocks = found.reshape(columns - 1, rows - 1, 2, 2, 9).transpose(1, 0, 3, 2, 4)
        return np.ascontiguousarray(blocks[..., ::-1]).reshape(-1, 36)

    return describe


def compare_speed(images: Sequence[Grey], repeats: int) -> str:
    """Time ours, image by image and in batches, against OpenCV's, in turn."""
    rows = []
    for name, ours, theirs in (
        ("SIFT, 16×16 every 8", partial(dense_sift, step=8), make_opencv_sift(16, 8)),
        ("SIFT, 16×16 every 4", partial(dense_sift, step=4), make_opencv_sift(16, 4)),
        ("HOG, 2×2 cells of 8×8", dense_hog, make_opencv_hog(8, 8)),
    ):
        one, batch, other = time_all(images, ours, theirs, repeats)
        rows.append((name, len(theirs(images[0])), one, batch, other, other / one, other / batch))
    header = ["descriptors", "an image", "ours, ms", f"ours in batches of {BATCH}, ms", "OpenCV, ms"]
    header += ["OpenCV / ours", "OpenCV / ours in batches"]
    body = tabulate(rows, header, tablefmt="github", floatfmt=("", "", ".2f", ".2f", ".2f", ".1f", ".1f"))
    return (
        "### Speed\n\n"
        f"Milliseconds of processor time an image, one thread: median over images of medians of {repeats}, in turn;\n"
        f"from uint8 pixels to float32 descriptors.\n\n{body}"
    )


def time_all(
    images: Sequence[Grey], ours: Describe, theirs: Callable[[Grey], Descriptors], repeats: int
) -> tuple[float, float, float]:
    """Return the milliseconds an image of ours, of ours in batches, and of OpenCV's."""
    one, batch, other = [], [], []
    for start in range(0, len(images) - BATCH + 1, BATCH):
        greys = images[start : start + BATCH]
        pixels = torch.from_numpy(np.stack(greys))
        taken = np.array([time_turn(pixels, greys, ours, theirs) for _ in range(repeats)])
        batch.append(median(taken[:, 0]) / BATCH)
        one.extend(np.median(taken[:, 1 : BATCH + 1], axis=0))
        other.extend(np.median(taken[:, BATCH + 1 :], axis=0))
    return 1e3 * median(one), 1e3 * median(batch), 1e3 * median(other)


def time_turn(
    pixels: Tensor, greys: Sequence[Grey], ours: Describe, theirs: Callable[[Grey], Descriptors]
) -> list[float]:
    """Return the seconds that ours takes for a batch, for each of its images alone, and OpenCV's for each."""
    together = time_call(lambda: ours(pixels.float()))
    alone = [time_call(partial(lambda one: ours(one.float()), one)) for one in pixels.split(1)]
    return [together, *alone, *(time_call(partial(theirs, grey)) for grey in greys)]


def time_call(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call takes, in all threads: other processes do not count."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def compare_values(images: Sequence[Grey]) -> str:
    """Correlate our descriptors with OpenCV's."""
    rows = []
    for name, ours, theirs in (
        ("SIFT, 16×16 every 8", partial(dense_sift, step=8), make_opencv_sift(16, 8)),
        ("SIFT, 16×16 every 4", partial(dense_sift, step=4), make_opencv_sift(16, 4)),
        ("SIFT, 17×17 every 8", partial(dense_sift, size=17, step=8), make_opencv_sift(17, 8)),
        ("HOG, 2×2 cells of 8×8; OpenCV's winSigma 8", dense_hog, make_opencv_hog(8, 8)),
        ("HOG, 2×2 cells of 8×8; OpenCV's winSigma 4, its default", dense_hog, make_opencv_hog(8, -1)),
    ):
        pixels = torch.from_numpy(np.stack(images)).float()
        here = ours(pixels).flatten(0, 2).double().numpy()
        there = np.concatenate([theirs(grey) for grey in images]).astype(np.float64)
        textured = here.any(axis=1) & there.any(axis=1)
        here, there = here[textured], there[textured]
        a, b = (x - x.mean(axis=1, keepdims=True) for x in (here, there))
        found = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        pooled = float(np.corrcoef(here.ravel(), there.ravel())[0, 1])
        rows.append((name, len(found), found.mean(), np.percentile(found, 5), pooled))
    header = ["descriptors", "compared", "mean", "5th percentile", "all numbers together"]
    body = tabulate(rows, header, tablefmt="github", floatfmt=("", "", ".3f", ".3f", ".3f"))
    return (
        "### Likeness\n\n"
        "Correlation of each descriptor with OpenCV's of the same patch; blank ones are left out. OpenCV centres a\n"
        "patch on a pixel, ours of an even side lie half a pixel from there; those of 17×17 do not. It also counts\n"
        "pixels up to half a cell outside the patch. The Gaussian over a HOG block has σ = 8 pixels here, half the\n"
        "block's side, as in the paper.\n\n"
        f"{body}"
    )


def format_heading(count: int) -> str:
    """Return the title, and what was measured with which versions on which machine."""
    cpu = describe_run()["cpu"]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}"
    return (
        "# Dense SIFT and HOG, measured\n\n"
        f"{count} images of Caltech-101 of {WIDTH}×{HEIGHT} pixels, grey, against OpenCV at the same positions.\n"
        f"{versions}; {cpu}, {os.cpu_count()} cores shared with other work; {date.today()}.\n"
        "Made by `python benchmarks/sift.py --output FILE`."
    )


if __name__ == "__main__":
    main()
