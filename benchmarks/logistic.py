"""Measure logistic regression over a path of 8 strengths against scikit-learn's lbfgs, in one run.

Run: FEATBENCH_DATA=data python benchmarks/logistic.py --output benchmarks/logistic.md
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy
import scipy.optimize
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from tabulate import tabulate

from featbench.classification.row_space import Standardiser, TrainingRows, multiply
from featbench.classification.softmax_regression import TOLERANCE, LogisticSolution, SoftmaxRidge
from featbench.comparison import Workbench
from featbench.evaluation.split import draw_split
from featbench.features.extraction import extract
from featbench.learning.networks import assemble, learn_stages
from featbench.stages.architecture import Architecture
from featbench.store.provenance import describe_run
from featbench.types import FloatArray, IntArray

STRENGTHS = [float(strength) for strength in np.logspace(-1, -6, 8)]

CLOSE = 1e-6
"""scikit-learn is stopped as soon as its objective exceeds ours by at most this part of it."""

Array = NDArray[np.float64]


def main() -> None:
    """Measure both sizes, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cap", type=int, default=2000, help="iterations that scikit-learn is given for a strength")
    parser.add_argument(
        "--full", type=int, nargs="*", default=[3, 5], help="strengths that it is given at full width, by index"
    )
    arguments = parser.parse_args()
    if "FEATBENCH_DATA" not in os.environ:
        parser.error("the features are those of Caltech-101: set FEATBENCH_DATA to the folder that holds caltech101")
    torch.set_num_threads(arguments.threads)
    pages = [format_heading(arguments.threads)]
    for measure in (compare_on_caltech, compare_on_synthetic):
        pages.append(measure(arguments.full, arguments.cap))
        print(pages[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n\n".join(pages) + "\n", "utf-8")


def compare_on_caltech(full: list[int], cap: int) -> str:
    """Measure on 3,060 rows of Caltech-101, some strengths of scikit-learn at full width."""
    features, labels = extract_random_features()
    path = solve_path(features, labels)
    iterations = [run_until_close(path.across, labels, solution, cap) for solution in path.solutions]
    wide = path.standardise.apply(features)
    measured = {index: run_until_close(wide, labels, path.solutions[index], cap) for index in full}
    pace = sum(run.seconds for run in measured.values()) / sum(run.iterations for run in measured.values())
    rows, total = [], 0.0
    for index, (solution, seconds, narrow) in enumerate(zip(path.solutions, path.seconds, iterations, strict=True)):
        run = measured.get(index)
        theirs = run.seconds if run else narrow.iterations * pace
        total += theirs
        shown = f"{theirs:.0f}" if run else f"{theirs:.0f} (estimate)"
        counted = f"{run.shown()} ({narrow.shown()})" if run else f"({narrow.shown()})"
        rows.append((*format_ours(solution, seconds), counted, shown))
    return format_page(
        f"Caltech-101, one stage of random filters: {format_shape(features)}, 102 classes", path, rows, total
    ) + (
        f"\n\nscikit-learn at full width, float64: {pace:.2f} s an iteration on the strengths without (estimate). The\n"
        "other times are this pace × the iterations, in parentheses, that it needs on the same rows turned onto their\n"
        "principal axes, where L-BFGS takes the same steps but for rounding."
    )


def compare_on_synthetic(full: list[int], cap: int) -> str:
    """Measure on as many rows as MNIST has."""
    features, labels = draw_synthetic(60_000, 1024, 10)
    path = solve_path(features, labels)
    x = path.standardise.apply(features)
    runs = [run_until_close(x, labels, solution, cap) for solution in path.solutions]
    rows = [
        (*format_ours(solution, seconds), run.shown(), f"{run.seconds:.1f}")
        for solution, seconds, run in zip(path.solutions, path.seconds, runs, strict=True)
    ]
    return format_page(
        f"Synthetic: {format_shape(features)}, 10 classes", path, rows, sum(run.seconds for run in runs)
    ) + (
        "\n\nClass means plus noise, both with variances that fall as 1/j along random axes; scikit-learn in float64,\n"
        "measured at every strength."
    )


@dataclass(frozen=True)
class Fits:
    """Our solutions, the seconds of each and of what they share, and the rows on their principal axes."""

    solutions: list[LogisticSolution]
    seconds: list[float]
    shared: dict[str, float]
    across: Array
    standardise: Standardiser


def solve_path(features: FloatArray, labels: IntArray) -> Fits:
    """Solve for all strengths, from strong to weak."""
    everyone = np.ones(len(labels), dtype=bool)
    clock = LapClock()
    standardise = Standardiser.fit(features)
    shared = {"statistics": clock.lap()}
    rows = TrainingRows(features, standardise)
    shared["x xᵀ" if rows.wide else "standardising"] = clock.lap()
    axes, variance = rows.find_principal_axes(everyone)
    shared["principal axes"] = clock.lap()
    across = multiply(torch.from_numpy(rows.base), torch.from_numpy(axes))
    shared["turning rows"] = clock.lap()
    solver = SoftmaxRidge(across, torch.from_numpy(variance), labels, everyone, int(labels.max()) + 1)
    solutions, seconds = [], []
    for strength in STRENGTHS:
        solutions.append(solver.solve(strength))
        seconds.append(clock.lap())
    rows.lift(axes @ solutions[-1].weight)
    shared["weights of one strength on the features"] = clock.lap()
    return Fits(solutions, seconds, shared, across.numpy(), standardise)


@dataclass(frozen=True)
class Attempt:
    """What scikit-learn needed until its objective was within `CLOSE` of ours, if it ever was."""

    seconds: float
    iterations: int
    reached: bool

    def shown(self) -> str:
        """Return the iterations, with a sign where they were not enough."""
        return f"{self.iterations}" if self.reached else f">{self.iterations}"


def run_until_close(x: Array, labels: IntArray, ours: LogisticSolution, cap: int) -> Attempt:
    """Fit scikit-learn's lbfgs from zeros until its objective is within `CLOSE` of ours.

    Its own stopping rule looks at the gradient, which says little about the objective: stopped by that, it would be
    timed for another accuracy. The callback of SciPy's solver sees the objective.
    """
    # C multiplies the sum of losses, λ ours the mean of n: C = 1/(λ n) makes both the same problem.
    minimize, reached = scipy.optimize.minimize, []

    def watched(*positional: Any, **named: Any) -> Any:
        def stop(intermediate_result: Any) -> None:
            if intermediate_result.fun <= ours.objective * (1 + CLOSE):
                reached.append(True)
                raise StopIteration

        return minimize(*positional, **{**named, "callback": stop})

    model = LogisticRegression(C=1 / (ours.strength * len(x)), solver="lbfgs", tol=1e-12, max_iter=cap)
    clock = LapClock()
    with mock.patch.object(scipy.optimize, "minimize", watched), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, labels)
    run = Attempt(clock.lap(), int(model.n_iter_.max()), bool(reached))
    print(f"λ = {ours.strength:.1e}, {x.shape[0]} × {x.shape[1]}: {run}", file=sys.stderr, flush=True)
    return run


class LapClock:
    """A stopwatch: each lap begins where the last one ended."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap, or since the clock was made."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def extract_random_features() -> tuple[FloatArray, IntArray]:
    """Extract the features of the training images of a draw, as the protocol caltech101-30 has them."""
    bench, cpu = Workbench(), torch.device("cpu")
    protocol = bench.registry.protocol("caltech101-30")
    images, maps = bench.steps.load(protocol.dataset, protocol.preprocessing)
    fraction, count = protocol.validation_fraction, protocol.train_per_class
    split = draw_split(images, train_per_class=count, validation_fraction=fraction, test=protocol.test, seed=0, draw=0)
    learner, architecture = bench.registry.learner("random").create({}), Architecture.parse(protocol.architecture)
    stages = learn_stages(architecture, learner, maps.shape, None, seed=0, device=cpu)
    features = extract(assemble(architecture, learner, maps.shape, stages), maps.select(split.train), cpu)
    return features.astype(np.float16), images.labels[split.train]


def draw_synthetic(n: int, d: int, classes: int) -> tuple[FloatArray, IntArray]:
    """Draw class means plus noise, both with variances that fall as 1/j along random axes."""
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=n)
    means, noise = generator.standard_normal((classes, d)), generator.standard_normal((n, d))
    turn = np.linalg.qr(generator.standard_normal((d, d)))[0] / np.sqrt(1 + np.arange(d))[:, None]
    return ((0.5 * means[labels] + noise) @ turn).astype(np.float32), labels


def format_ours(solution: LogisticSolution, seconds: float) -> tuple[str, str, str, int, str]:
    """Return the columns of a row that are about our solution."""
    relative = f"{solution.gap / solution.objective:.0e}" + ("" if solution.converged else " (not converged)")
    return f"{solution.strength:.1e}", f"{solution.objective:.9f}", relative, solution.iterations, f"{seconds:.2f}"


def format_shape(features: FloatArray) -> str:
    """Return rows × columns and type."""
    return f"{len(features):,} × {features.shape[1]:,} {features.dtype}"


def format_page(title: str, path: Fits, rows: list[Any], theirs: float) -> str:
    """Return a table with its sums."""
    header = ["λ", "objective", "gap", "Newton steps", "seconds", "scikit-learn: iterations", "seconds"]
    table = tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=("right",) * len(header))
    shared = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in path.shared.items())
    whole = sum(path.seconds) + sum(path.shared.values())
    return (
        f"### {title}\n\n{table}\n\nShared by our strengths: {shared}. Ours in all: **{whole:.1f} s**; scikit-learn: "
        f"{theirs:.0f} s, **{theirs / whole:.0f} times** as long."
    )


def format_heading(threads: int) -> str:
    """Return the title, and what was measured with which versions on which machine."""
    cpu = describe_run()["cpu"]
    versions = (
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    )
    busy = f"load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else "load unknown"
    return (
        "# Logistic regression, measured\n\n"
        "Mean log-loss + λ/2 ‖w‖² on standardised features of mean squared row norm 1, all rows, 8 strengths from\n"
        f"strong to weak. Ours stops at a duality gap of {TOLERANCE:g} of the objective. scikit-learn's lbfgs starts\n"
        f"from zeros and is stopped at the first iteration whose objective is within {CLOSE:g} of ours: no tolerance\n"
        "of its own would reach that accuracy earlier.\n"
        f"{versions}; {cpu}, {os.cpu_count()} cores, {threads} threads,\n"
        f"{busy} (other work ran meanwhile: ratios say more than seconds); {date.today()}.\n"
        "Made by `FEATBENCH_DATA=data python benchmarks/logistic.py --output FILE`, with OMP_NUM_THREADS and\n"
        f"OPENBLAS_NUM_THREADS = {threads}."
    )


if __name__ == "__main__":
    main()
