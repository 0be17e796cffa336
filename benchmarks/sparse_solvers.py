"""Measure the sparse solvers against scikit-learn and SPAMS on natural image patches, in turn in one run.

Run: FEATBENCH_DATA=data python benchmarks/sparse_solvers.py --output benchmarks/sparse_solvers.md
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from tabulate import tabulate

from featbench.sparse import coordinate_descent, feature_sign, fista, ista, learn_dictionary
from featbench.store.provenance import describe_run

try:
    import spams
except ImportError:
    spams = None

SIZE = 9
FLAT = 3.0
"""Smallest standard deviation of a patch, in grey levels of 255; flatter ones are left out."""

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Tolerances of scikit-learn's Lasso: the loosest that reaches 1e-6 on every patch is timed; sparse_encode has 1e-8."""

Array = NDArray[np.float64]
Coder = Callable[[Array, Array, float], Array]


def main() -> None:
    """Measure all there is, print it, and write it with what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=2000, help="patches for the comparison of all solvers")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--lam", type=float, nargs="+", default=[1.0, 0.5])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    training, held_out = read_natural_patches(20_000, 0), read_natural_patches(arguments.patches, 1)
    pages = [format_heading()]
    for atoms in arguments.atoms:
        dictionary = learn_dictionary(training, atoms, 1.0, updates=100).atoms.numpy()
        for lam in arguments.lam:
            pages.append(compare_fast_coders(held_out, dictionary, lam, arguments.repeats))
            print(pages[-1], flush=True)
        pages.append(compare_all_solvers(held_out[: arguments.few], dictionary, max(arguments.lam)))
        print(pages[-1], flush=True)
    pages.append(compare_dictionaries(training, held_out[:5000], arguments.atoms))
    print(pages[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n\n".join(pages) + "\n", "utf-8")


def read_natural_patches(count: int, seed: int) -> Array:
    """Return grey patches [count, 81] of zero mean and unit variance: seed 0 of the even photographs, 1 of the odd."""
    files = sorted((Path(os.environ["FEATBENCH_DATA"]) / "bsds500").rglob("*.jpg"))[seed % 2 :: 2]
    generator = np.random.default_rng(seed)
    drawn = []
    for file in files:
        grey = np.asarray(Image.open(file).convert("L"), dtype=np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(grey, (SIZE, SIZE))
        corners = generator.integers(windows.shape[:2], size=(2 * count // len(files) + 1, 2))
        drawn.append(windows[corners[:, 0], corners[:, 1]].reshape(-1, SIZE * SIZE))
    patches = np.concatenate(drawn)
    patches = patches[patches.std(axis=1) > FLAT]
    patches = generator.permutation(patches)[:count]
    return (patches - patches.mean(axis=1, keepdims=True)) / patches.std(axis=1, keepdims=True)


def compute_objective(patches: Array, dictionary: Array, codes: Array, lam: float) -> Array:
    """Return ½‖y - Dz‖² + λ‖z‖₁ of each patch."""
    energy: Array = 0.5 * ((patches - codes @ dictionary.T) ** 2).sum(axis=1) + lam * np.abs(codes).sum(axis=1)
    return energy


def encode_with_sklearn(patches: Array, dictionary: Array, lam: float) -> Array:
    """Return scikit-learn's codes by coordinate descent; its alpha is λ of this objective."""
    codes: Array = sparse_encode(patches, dictionary.T, algorithm="lasso_cd", alpha=lam, max_iter=100_000)
    return codes


def make_sklearn_lasso(tolerance: float) -> Coder:
    """Return scikit-learn's coordinate descent with a tolerance; Lasso's alpha is λ divided by the pixels."""

    def encode(patches: Array, dictionary: Array, lam: float) -> Array:
        settings = {"fit_intercept": False, "tol": tolerance, "max_iter": 100_000}
        model = Lasso(lam / len(dictionary), precompute=dictionary.T @ dictionary, **settings)
        codes: Array = model.fit(dictionary, patches.T).coef_
        return codes

    return encode


def encode_with_spams(patches: Array, dictionary: Array, lam: float) -> Array:
    """Return SPAMS' codes by LARS."""
    arrays = np.asfortranarray(patches.T), np.asfortranarray(dictionary)
    codes: Array = spams.lasso(*arrays, lambda1=lam, mode=2, numThreads=1).toarray().T
    return codes


def make_coder(solver: Callable[..., object], dtype: type = np.float64) -> Coder:
    """Return one of featbench's solvers, with its defaults, as a function from arrays to codes."""

    def encode(patches: Array, dictionary: Array, lam: float) -> Array:
        solution = solver(patches.astype(dtype), dictionary.astype(dtype), lam)
        codes: Array = solution.codes.double().numpy()  # type: ignore[attr-defined]
        return codes

    return encode


def compare_fast_coders(patches: Array, dictionary: Array, lam: float, repeats: int) -> str:
    """Time our fastest solver against scikit-learn and SPAMS, in turn."""
    best = feature_sign(patches, dictionary, lam, tolerance=1e-12).objective.numpy()
    loosest = find_loosest_tolerance(patches[:1000], dictionary, lam, best[:1000])
    coders = {
        "feature_sign": make_coder(feature_sign),
        "feature_sign, float32": make_coder(feature_sign, np.float32),
        "sklearn sparse_encode lasso_cd": encode_with_sklearn,
        f"sklearn Lasso, tol={loosest:g}": make_sklearn_lasso(loosest),
    }
    if spams is not None:
        coders["SPAMS lasso (LARS)"] = encode_with_spams
    times: dict[str, list[float]] = {name: [] for name in coders}
    errors = {}
    for _ in range(repeats):
        for name, coder in coders.items():
            taken, codes = time_coder(coder, patches, dictionary, lam)
            times[name].append(taken)
            errors[name] = compute_error(codes, patches, dictionary, lam, best)
    first = median(times["feature_sign"])
    rows = [(name, median(times[name]), median(times[name]) / first, *errors[name]) for name in coders]
    used = float((feature_sign(patches, dictionary, lam).codes != 0).double().sum(dim=1).mean())
    title = f"### {len(patches)} patches, {dictionary.shape[1]} atoms, λ = {lam:g} ({used:.1f} atoms a patch)"
    missing = "" if spams is not None else "\n\nSPAMS is not installed here."
    return f"{title}\n\nMedian of {repeats}, in turn.\n\n{format_table(rows, 'ratio to feature_sign')}{missing}"


def compare_all_solvers(patches: Array, dictionary: Array, lam: float) -> str:
    """Time all of our solvers once, and measure how exact they are."""
    best = feature_sign(patches, dictionary, lam, tolerance=1e-12).objective.numpy()
    first, _ = time_coder(make_coder(feature_sign), patches, dictionary, lam)
    rows = []
    for solver in (feature_sign, fista, coordinate_descent, ista):
        for dtype in (np.float64, np.float32):
            taken, codes = time_coder(make_coder(solver, dtype), patches, dictionary, lam)
            name = f"{solver.__name__}, {np.dtype(dtype)}"
            rows.append((name, taken, taken / first, *compute_error(codes, patches, dictionary, lam, best)))
    title = f"### All solvers: {len(patches)} patches, {dictionary.shape[1]} atoms, λ = {lam:g}"
    return f"{title}\n\nOne run each, with defaults.\n\n{format_table(rows, 'ratio to feature_sign')}"


def compare_dictionaries(training: Array, held_out: Array, sizes: list[int]) -> str:
    """Learn dictionaries at λ = 1 with both libraries; the objective is that of held-out patches, exactly coded."""
    rows = []
    for atoms in sizes:
        for epochs in (1, 3):
            settings = {"batch_size": 256, "fit_algorithm": "cd", "random_state": 0, "tol": 0.0}
            learner = MiniBatchDictionaryLearning(
                atoms, alpha=1.0, max_iter=epochs, max_no_improvement=None, **settings
            )
            begun = time.perf_counter()
            theirs = np.ascontiguousarray(learner.fit(training).components_.T)
            taken = time.perf_counter() - begun
            name = f"sklearn MiniBatchDictionaryLearning, {epochs} × {len(training)} patches"
            rows.append((atoms, name, taken, float(feature_sign(held_out, theirs, 1.0).objective.mean())))
        for updates in (50, 100, 200):
            begun = time.perf_counter()
            learned = learn_dictionary(training, atoms, 1.0, updates=updates)
            taken = time.perf_counter() - begun
            name = f"learn_dictionary, {updates} updates of 256 patches"
            rows.append((atoms, name, taken, float(feature_sign(held_out, learned.atoms, 1.0).objective.mean())))
    header = ["atoms", "learner", "seconds", "held-out objective"]
    title = (
        f"### Dictionaries: {len(training)} patches, λ = 1, objective on {len(held_out)} patches of other photographs"
    )
    return f"{title}\n\n{tabulate(rows, header, tablefmt='github', floatfmt=('', '', '.2f', '.4f'))}"


def find_loosest_tolerance(patches: Array, dictionary: Array, lam: float, best: Array) -> float:
    """Return the largest tolerance with which scikit-learn's Lasso comes within 1e-6 of the best, patch by patch."""
    for tolerance in TOLERANCES:
        codes = make_sklearn_lasso(tolerance)(patches, dictionary, lam)
        if compute_error(codes, patches, dictionary, lam, best)[1] < 1e-6:
            return tolerance
    return TOLERANCES[-1]


def compute_error(codes: Array, patches: Array, dictionary: Array, lam: float, best: Array) -> tuple[float, float]:
    """Return how far the objective lies above the best, relatively: summed, and of the worst patch."""
    found = compute_objective(patches, dictionary, codes, lam)
    return float(found.sum() / best.sum() - 1), float((found / best - 1).max())


def time_coder(coder: Coder, patches: Array, dictionary: Array, lam: float) -> tuple[float, Array]:
    """Return how many seconds coding takes, and the codes."""
    begun = time.perf_counter()
    codes = coder(patches, dictionary, lam)
    return time.perf_counter() - begun, codes


def format_table(rows: list[tuple[str, float, float, float, float]], ratio: str) -> str:
    """Return rows of name, seconds, ratio and errors as Markdown."""
    header = ["solver", "seconds", ratio, "error of the sum", "error of the worst patch"]
    return tabulate(rows, header, tablefmt="github", floatfmt=("", ".3f", ".2f", ".1e", ".1e"))


def format_heading() -> str:
    """Return the title, and what was measured with which versions on which machine."""
    cpu = describe_run()["cpu"]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    if spams is not None:
        name = next(name for name in ("spams-bin", "spams") if name in {d.name for d in metadata.distributions()})
        versions += f", {name} {metadata.version(name)}"
    return (
        "# Sparse solvers, measured\n\n"
        "½‖y - Dz‖² + λ‖z‖₁ for 9×9 grey patches of Berkeley photographs (BSDS500, train), each of zero mean and unit\n"
        "variance. D: `learn_dictionary` on 20,000 patches of other photographs at λ = 1, 100 updates.\n"
        f"{versions}; {cpu}, {os.cpu_count()} cores shared with other work, one thread for\n"
        f"every solver; {date.today()}. Errors are relative to `feature_sign(tolerance=1e-12)`.\n"
        "Made by `python benchmarks/sparse_solvers.py --output FILE`."
    )


if __name__ == "__main__":
    main()
