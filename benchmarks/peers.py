"""Measure features and sparse codes against those of other libraries, each pair in turn in one run.

Peers: scikit-learn, and where they are installed `pip install kymatio kornia opencv-python-headless`.
Run: FEATBENCH_DATA=data python benchmarks/peers.py --output benchmarks/peers.md
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from sparse_solvers import Array, Coder, compute_error, make_coder, read_natural_patches
from tabulate import tabulate
from threadpoolctl import threadpool_limits
from torch import Tensor

from featbench.devices.batches import Batches
from featbench.features.descriptors import dense_sift
from featbench.learning.networks import assemble, learn_stages
from featbench.plugins.random import Random
from featbench.sparse import feature_sign, fista, learn_dictionary
from featbench.stages.architecture import Architecture
from featbench.store.provenance import describe_run

BATCHES = (32, 1)
"""Images at once."""

SIDE = 128
"""Side of the images for filters and scattering: a power of two, which suits FFTs."""

HEIGHT, WIDTH = 200, 300
"""Size of the images for SIFT, as in sift.py."""

SIZE, CELL = 16, 4
"""Pixels along a patch that SIFT describes, and along one of its 4×4 cells."""

ATOMS, LAM = 64, 1.0

LIBRARIES = ("kymatio", "kornia", "opencv-python-headless", "opencv-python", "scikit-learn", "numpy", "scipy")

Describe = Callable[[Tensor], Tensor]
Named = tuple[str, Describe]


def main() -> None:
    """Measure all there is, print it, and write it with what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of every library")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    threadpool_limits(arguments.threads, user_api="blas")
    pages = []
    for measure in (
        partial(format_heading, arguments.threads, arguments.repeats),
        partial(compare_filters, arguments.images, arguments.repeats),
        partial(compare_descriptors, arguments.images, arguments.repeats, arguments.threads),
        partial(compare_codes, arguments.patches, arguments.repeats, arguments.threads),
    ):
        pages.append(measure())
        print(pages[-1], end="\n\n", flush=True)
    if arguments.output:
        arguments.output.write_text("\n\n".join(pages) + "\n", "utf-8")


def read_photographs(count: int, height: int, width: int) -> Tensor:
    """Return grey images of Caltech-101, drawn from all classes and resized, uint8 [count, height, width]."""
    files = sorted((Path(os.environ["FEATBENCH_DATA"]) / "caltech101").rglob("*/image_*.jpg"))
    chosen = np.random.default_rng(0).choice(len(files), count, replace=False)
    greys = [Image.open(files[index]).convert("L").resize((width, height)) for index in sorted(chosen)]
    return torch.from_numpy(np.stack([np.array(grey) for grey in greys]))


@torch.no_grad()
def compare_filters(count: int, repeats: int) -> str:
    """Time stages of random filters against scattering."""
    pixels = read_photographs(count, SIDE, SIDE).float()
    images = (pixels - pixels.mean(dim=(1, 2), keepdim=True)) / pixels.std(dim=(1, 2), keepdim=True)
    rows, missing = [], []
    for order in (2, 1):
        try:
            theirs = make_kymatio_scattering(order)
        except ImportError as reason:
            missing = [explain_missing("kymatio", reason)]
            continue
        for text in ("64F9-Rabs-N-PA10/5", "8F9-Rabs-N-PA10/5"):
            rows += time_pair((text, make_stages(text)), (f"kymatio, order {order}", theirs), images, repeats)
    explanation = (
        f"Grey images of {SIDE}×{SIDE}, of zero mean and unit variance. featbench: one stage of random filters.\n"
        "kymatio: `Scattering2D`, J=2, L=8, torch; order 2, its default, has two layers of filters, order 1 has one,\n"
        "as a stage has. They are different features of different numbers: only the cost is compared. kymatio 0.3.0\n"
        "cannot be imported as `kymatio.torch` with SciPy 1.17, which lacks what its 3-D part asks for (kymatio's\n"
        "issue 1068); the module of its 2-D scattering is imported by itself here, and runs."
    )
    return format_section("Filters and scattering", explanation, rows, missing)


def make_stages(text: str) -> Describe:
    """Return featbench's extraction with random filters, images [n, height, width] to [n, maps, rows, columns]."""
    architecture, learner, cpu = Architecture.parse(text), Random(), torch.device("cpu")
    shape = (1, SIDE, SIDE)
    learned = learn_stages(architecture, learner, shape, None, seed=0, device=cpu)
    batches = Batches(assemble(architecture, learner, shape, learned), cpu)
    return lambda images: batches.launch(images.unsqueeze(1))()


def make_kymatio_scattering(order: int) -> Describe:
    """Return kymatio's scattering, images [n, height, width] to [n, paths, rows, columns]."""
    # kymatio.torch has it too, but imports the 3-D one with it, which asks SciPy for what version 1.17 removed.
    from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D

    return ScatteringTorch2D(J=2, shape=(SIDE, SIDE), L=8, max_order=order)


@torch.no_grad()
def compare_descriptors(count: int, repeats: int, threads: int) -> str:
    """Time dense SIFT against kornia's and OpenCV's, and correlate their descriptors."""
    pixels = read_photographs(count, HEIGHT, WIDTH)
    rows, missing = [], []
    for peer, make in (("kornia", make_kornia_sift), ("OpenCV", partial(make_opencv_sift, threads=threads))):
        for step in (8, 4):
            try:
                theirs = make(step)
            except ImportError as reason:
                missing.append(explain_missing(peer, reason))
                break
            here = partial(compute_our_sift, step=step)
            alike = correlate(here(pixels), reorder(theirs(pixels)))
            found = time_pair((f"SIFT, {SIZE}×{SIZE} every {step}", here), (peer, theirs), pixels, repeats)
            rows += [[*row, alike] for row in found]
    explanation = (
        f"Grey images of {WIDTH}×{HEIGHT}, from uint8 pixels to float32 descriptors of 128 numbers at the same\n"
        "places. kornia: `DenseSIFTDescriptor(spatial_bin_size=4, rootsift=False, padding=0)`, of images cut by the\n"
        "few pixels that move its grid onto ours. Its 4×4 cells have our centres, but each pools over 4×4 pixels,\n"
        "where ours shares pixels between neighbouring cells (8×8) and weights the patch with a Gaussian. OpenCV: as\n"
        "in [sift.md](sift.md), image by image, half a pixel from ours; its patches count pixels up to half a cell\n"
        "outside. Correlation: the mean over descriptors that are not blank. In large batches most of kornia's time\n"
        "goes into fresh memory: where glibc keeps what is freed, it was 1.4 times that of single images, not 4.5."
    )
    return format_section("Dense SIFT", explanation, rows, missing, "correlation")


def compute_our_sift(pixels: Tensor, step: int) -> Tensor:
    """Return featbench's descriptors [n, rows, columns, 128] of images [n, height, width]."""
    return dense_sift(pixels.float(), size=SIZE, step=step)


def make_kornia_sift(step: int) -> Describe:
    """Return kornia's dense SIFT, images [n, height, width] to [n, 128, rows, columns], of our patches."""
    from kornia.feature import DenseSIFTDescriptor

    sift = DenseSIFTDescriptor(spatial_bin_size=CELL, rootsift=False, stride=step, padding=0).eval()
    # Its first patch begins half a cell above and to the left of the image.
    top, left = (CELL // 2 + (side - SIZE) % step // 2 for side in (HEIGHT, WIDTH))
    return lambda pixels: sift(pixels[:, None, top:, left:].float())


def make_opencv_sift(step: int, threads: int) -> Describe:
    """Return OpenCV's SIFT, images [n, height, width] to [n, patches, 128], at the positions of our patches."""
    import cv2
    from sift import make_opencv_sift as describer

    cv2.setNumThreads(threads)
    describe = describer(SIZE, step)
    return lambda pixels: torch.from_numpy(np.stack([describe(grey) for grey in pixels.numpy()]))


def reorder(found: Tensor) -> Tensor:
    """Return a peer's descriptors as [n, patches, 128] in our order; OpenCV's have it."""
    if found.ndim == 3:
        return found
    # kornia's orientations come first, and turn clockwise.
    turned = found.unflatten(1, (8, 4, 4))[:, [0, 7, 6, 5, 4, 3, 2, 1]]
    return turned.permute(0, 4, 5, 2, 3, 1).flatten(3).flatten(1, 2)


def correlate(here: Tensor, there: Tensor) -> float:
    """Return the mean correlation of descriptors [n, ..., 128] of the same patches; blank ones are left out."""
    here, there = here.reshape(-1, 128).double(), there.reshape(-1, 128).double()
    textured = here.any(dim=1) & there.any(dim=1)
    a, b = (x[textured] - x[textured].mean(dim=1, keepdim=True) for x in (here, there))
    return float(torch.cosine_similarity(a, b).mean())


def time_pair(ours: Named, theirs: Named, images: Tensor, repeats: int) -> list[list[object]]:
    """Time two ways to describe images [n, height, width], in turn; return a row for each batch size."""
    rows: list[list[object]] = []
    for batch in BATCHES:
        parts = images.split(batch)
        # The first call plans and compiles.
        numbers = [describe(parts[0])[0].numel() for _, describe in (ours, theirs)]
        taken = time_in_turns([partial(describe_all, describe, parts) for _, describe in (ours, theirs)], repeats)
        one, other = (1e3 * seconds / len(images) for seconds in taken)
        rows.append([ours[0], theirs[0], *numbers, batch, one, other, other / one])
    return rows


def describe_all(describe: Describe, parts: Sequence[Tensor]) -> None:
    """Describe batches of images."""
    for part in parts:
        describe(part)


def time_in_turns(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median seconds of wall time of each call; they take turns, so that a drift affects all alike."""
    taken = [[time_call(work) for work in works] for _ in range(repeats)]
    return [median(column) for column in zip(*taken, strict=True)]


def time_call(work: Callable[[], object]) -> float:
    """Return the seconds of wall time that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def format_section(title: str, explanation: str, rows: list[list[object]], missing: list[str], *more: str) -> str:
    """Return a section of the page: title, explanation, table, and what is missing."""
    header = ["ours", "peer", "our numbers an image", "the peer's", "images at once", "ours, ms an image"]
    header += ["the peer's, ms", "peer / ours", *more]
    formats = ("", "", "", "", "", ".2f", ".2f", ".1f", ".3f")
    body = [tabulate(rows, header, tablefmt="github", floatfmt=formats)] if rows else []
    return "\n\n".join([f"### {title}", explanation, *body, *missing])


def explain_missing(peer: str, reason: ImportError) -> str:
    """Say why a peer is not measured."""
    return f"{peer} is left out: {reason}."


def compare_codes(count: int, repeats: int, threads: int) -> str:
    """Time sparse solvers against scikit-learn's on natural patches, and measure how far from the optimum they stop."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    patches = read_natural_patches(count, 1)
    dictionary = learn_dictionary(read_natural_patches(20_000, 0), ATOMS, LAM, updates=100).atoms.numpy()
    best = feature_sign(patches, dictionary, LAM, tolerance=1e-12).objective.numpy()
    coders: dict[str, Coder] = {"feature_sign": make_coder(feature_sign), "fista": make_coder(fista)}
    for algorithm in ("lasso_lars", "lasso_cd"):
        coders[f"scikit-learn's sparse_encode, {algorithm}"] = partial(encode, algorithm=algorithm, threads=threads)
    # Coding for the gaps is the first call, too.
    gaps = [
        compute_error(code(patches, dictionary, LAM), patches, dictionary, LAM, best)[1] for code in coders.values()
    ]
    taken = time_in_turns([partial(code, patches, dictionary, LAM) for code in coders.values()], repeats)
    rows = [
        [name, 1e6 * seconds / count, seconds / taken[0], seconds / taken[1], gap]
        for name, seconds, gap in zip(coders, taken, gaps, strict=True)
    ]
    header = ["solver", "µs a patch", "times feature_sign", "times fista", "largest gap"]
    return (
        "### Sparse codes\n\n"
        f"½‖y - Dz‖² + λ‖z‖₁, λ = {LAM:g}: {count} patches of 9×9 pixels, {ATOMS} atoms, float64;\n"
        "[sparse_solvers.md](sparse_solvers.md) has more. scikit-learn's `n_jobs` is the number of threads. Largest\n"
        "gap: by how much the objective of any patch lies above the least known (`feature_sign(tolerance=1e-12)`),\n"
        "relative to it.\n\n" + tabulate(rows, header, tablefmt="github", floatfmt=("", ".1f", ".2f", ".2f", ".1e"))
    )


def encode(patches: Array, dictionary: Array, lam: float, algorithm: str, threads: int) -> Array:
    """Return scikit-learn's codes."""
    settings = {"algorithm": algorithm, "alpha": lam, "max_iter": 100_000, "n_jobs": threads}
    found: Array = sparse_encode(patches, dictionary.T, **settings)
    return found


def format_heading(threads: int, repeats: int) -> str:
    """Return the title, and what was measured with which versions on which machine."""
    cpu = describe_run()["cpu"]
    installed = {one.name.lower(): one.version for one in metadata.distributions()}
    versions = ", ".join(f"{name} {installed[name]}" for name in LIBRARIES if name in installed)
    return (
        "# Other libraries, measured\n\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, {versions};\n"
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; {threads} "
        f"thread{'s' * (threads > 1)} for every library; {date.today()}.\n"
        f"Wall times, medians of {repeats}; each pair is timed in turn. Images are of Caltech-101, resized; patches\n"
        "are of BSDS500. Made by `python benchmarks/peers.py --output FILE`."
    )


if __name__ == "__main__":
    main()
