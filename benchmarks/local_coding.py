"""Measure what PMK-SVM and ScSPM spend their time on: intersection kernels, and sparse codes over many atoms.

Run: FEATBENCH_DATA=data python benchmarks/local_coding.py --output benchmarks/local_coding.md
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.decomposition import sparse_encode
from tabulate import tabulate
from torch import Tensor

from featbench.classification.intersection_kernel import intersection_gram
from featbench.features.descriptors import dense_sift
from featbench.sparse import active_descent, feature_sign
from featbench.sparse.dictionary import draw_first_atoms

TRAIN, TEST, BINS = 3060, 6084, 4200
"""Caltech-101 with 30 training images per class, 200 words, levels 0 to 2."""

SAMPLE = 24
"""Test images on which the slower ways are timed, and the kernel is checked: their time is proportional to them."""

ATOMS, LAM = 1024, 0.075
"""ScSPM's dictionary; λ in ½‖y - Dz‖² + λ‖z‖₁, half of the published 0.15."""


def main() -> None:
    """Measure both, print them, and write them with what they were measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    arguments = parser.parse_args()
    text = "\n\n".join([format_heading(), compare_kernels(), compare_codes()])
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", "utf-8")


def format_heading() -> str:
    """Return the title, and what was measured with which versions on which machine."""
    return (
        "# Intersection kernels and sparse codes, measured\n\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}, numpy "
        f"{np.__version__}; {os.cpu_count()} cores shared with other work; {date.today()}.\n"
        "Made by `python benchmarks/local_coding.py --output FILE`."
    )


def compare_kernels() -> str:
    """Time the Gram matrices of one draw of Caltech-101, computed by our kernel and in other ways."""
    counts = np.random.default_rng(0).poisson(0.3, (TRAIN + TEST, BINS)).astype(np.float32)
    train, test = counts[:TRAIN], counts[TRAIN:]
    some = test[:SAMPLE]
    intersection_gram(some, some)  # the first call compiles
    ours, both = time_call(lambda: (intersection_gram(train, train), intersection_gram(test, train)), 3)
    naive, expected = time_call(lambda: np.stack([np.minimum(one, train).sum(axis=1) for one in some]), 3)
    city, _ = time_call(lambda: cdist(some, train, "cityblock"), 3)
    pairs = (TRAIN + TEST) * TRAIN
    rows = [
        ["ours", ours, 1.0],
        ["numpy, a row at a time", naive * pairs / (SAMPLE * TRAIN), naive * pairs / (SAMPLE * TRAIN) / ours],
        ["scipy's cdist, cityblock", city * pairs / (SAMPLE * TRAIN), city * pairs / (SAMPLE * TRAIN) / ours],
    ]
    difference = float(np.abs(both[1][:SAMPLE] - expected).max())
    return (
        "### Intersection kernels\n\n"
        f"Seconds for the Gram matrices of {TRAIN} × {TRAIN} and {TEST} × {TRAIN} histograms of {BINS} bins together, "
        f"median of 3;\nthe other ways timed on {SAMPLE} rows and multiplied up. Largest difference from the naive sum "
        f"on those rows: {difference:g}.\n\n"
        + tabulate(rows, ["way", "seconds", "times ours"], "github", floatfmt=(None, ".2f", ".1f"))
    )


def compare_codes() -> str:
    """Time solvers on descriptors of Caltech-101."""
    files = sorted((Path(os.environ["FEATBENCH_DATA"]) / "caltech101").rglob("*/image_0001.jpg"))
    images = [torch.from_numpy(np.array(Image.open(file).convert("L"), dtype=np.float32))[None] for file in files]
    every = torch.cat([dense_sift(image).flatten(0, 2) for image in images])
    every = every[torch.linalg.vector_norm(every, dim=1) > 0]
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(every)))
    patches, atoms = every[order[:2000]], draw_first_atoms(every[order[2000:]], ATOMS, 0).float()
    torch.set_num_threads(1)
    active_descent(patches[:10], atoms, LAM)  # the first call compiles
    solvers: dict[str, Callable[[], Any]] = {
        "active_descent, gap 1e-2": partial(active_descent, patches, atoms, LAM, tolerance=1e-2),
        "active_descent, gap 1e-4": partial(active_descent, patches, atoms, LAM, tolerance=1e-4),
        "feature_sign": partial(feature_sign, patches, atoms, LAM),
        "scikit-learn's sparse_encode, lasso_cd": partial(encode, patches, atoms),
    }
    exact = compute_energies(patches, atoms, feature_sign(patches, atoms, LAM).codes)
    rows = []
    for name, solve in solvers.items():
        seconds, found = time_call(solve, 3 if name.startswith("active") else 1)
        z = found if isinstance(found, np.ndarray) else found.codes
        worst = float((compute_energies(patches, atoms, torch.as_tensor(z)) / exact - 1).max())
        rows.append([name, 1e6 * seconds / len(patches), worst])
    return (
        "### Sparse codes\n\n"
        f"Microseconds a SIFT descriptor, {ATOMS} atoms (descriptors of other patches), λ = {2 * LAM} in ‖y - Dz‖² + "
        f"λ‖z‖₁, {len(patches)}\ndescriptors, one thread; and by how much the worst objective lies above the best one "
        "known, relative to it.\n\n"
        + tabulate(rows, ["solver", "µs", "worst"], "github", floatfmt=(None, ".0f", ".1e"))
    )


def encode(patches: Tensor, atoms: Tensor) -> NDArray[np.floating[Any]]:
    """Code patches with scikit-learn."""
    found: NDArray[np.floating[Any]] = sparse_encode(
        patches.double().numpy(), atoms.T.double().numpy(), algorithm="lasso_cd", alpha=LAM, max_iter=2000
    )
    return found


def compute_energies(patches: Tensor, atoms: Tensor, z: Tensor) -> Tensor:
    """Return ½‖y - Dz‖² + λ‖z‖₁, [n], in double precision."""
    rest = patches.double() - z.double() @ atoms.double().T
    return 0.5 * rest.square().sum(dim=1) + LAM * z.double().abs().sum(dim=1)


def time_call(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the median seconds of some calls, and what the last one returned."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return median(seconds), found


if __name__ == "__main__":
    main()
