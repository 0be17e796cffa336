"""Compare features and accuracies of a device with those of the CPU, in every precision.

Run: python benchmarks/agreement.py --device cuda [--data packed] [--output FILE]
Ends with 1 if the features of any precision differ by more than they may.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from featbench.comparison import Workbench
from featbench.experiment.request import Request
from featbench.features.extraction import extract
from featbench.learning.learner import FilterLearner
from featbench.learning.networks import assemble, learn_stages
from featbench.operations.precision import PRECISIONS, Precision
from featbench.stages.architecture import Architecture

ALLOWED = {"float32": 1e-5, "tf32": 3e-3, "bf16": 2e-2, "fp16": 3e-3}
"""Largest ‖a - b‖/‖b‖ of a device's features a against the CPU's in float32, b; those that tests/cuda allow."""

IMAGES = 64
"""Images whose features are compared."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ComparedCell:
    """A protocol with random filters, and its labels a class for training and for test; None: the protocol's own."""

    protocol: str
    labels: int | None = None

    def __str__(self) -> str:
        return self.protocol if self.labels is None else f"{self.protocol}, {self.labels} + {self.labels} a class"


def main() -> None:
    """Compare digits and, with data, Caltech-101; print the page, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--data", type=Path, help="the folder that holds caltech101, whole or packed by pack.py")
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    arguments = parser.parse_args()
    cells = [ComparedCell("digits")]
    if arguments.data is not None:
        # A few labels: the classifier must not take longer than what is measured here.
        cells.append(ComparedCell("caltech101-30", labels=5))
    with tempfile.TemporaryDirectory() as home:
        rows = [row for cell in cells for row in compare_cell(cell, arguments.device, arguments.data, Path(home))]
    headers = ["cell", "precision", "error", "allowed", "accuracy %", "on the CPU %", "difference", ""]
    text = (
        f"# {arguments.device} against the CPU\n\n"
        f"Error: ‖a − b‖/‖b‖ of the features of {IMAGES} images against the CPU's in float32. Accuracies are those of\n"
        "one draw with random filters and logistic regression, all of it on the device.\n\n"
        + tabulate(rows, headers, "github", disable_numparse=True)
    )
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", "utf-8")
    sys.exit(any(row[-1] for row in rows))


def compare_cell(cell: ComparedCell, device: str, data: Path | None, home: Path) -> Iterator[list[str]]:
    """Yield a row for each precision; its last column is empty where the features agree."""
    expected = measure_accuracy(cell, "cpu", "float32", data, home)
    errors = measure_errors(cell, torch.device(device), data, home)
    for precision in PRECISIONS:
        found, allowed = measure_accuracy(cell, device, precision, data, home), ALLOWED[precision]
        numbers = [f"{errors[precision]:.1e}", f"{allowed:.0e}", f"{found:.2f}", f"{expected:.2f}"]
        # `not <=`, so that a NaN is too large as well.
        verdict = "" if errors[precision] <= allowed else "**too large**"
        yield [str(cell), precision, *numbers, f"{found - expected:+.2f}", verdict]


def measure_errors(cell: ComparedCell, device: torch.device, data: Path | None, home: Path) -> dict[Precision, float]:
    """Return the error of the features of some images in each precision."""
    bench = Workbench(data_dir=data, home=home)
    protocol, learner = bench.registry.protocol(cell.protocol), bench.registry.learner("random")()
    assert isinstance(learner, FilterLearner)
    _, maps = bench.steps.load(protocol.dataset, protocol.preprocessing)
    chosen = np.random.default_rng(0).choice(len(maps), min(IMAGES, len(maps)), replace=False)
    some, architecture = maps.select(np.sort(chosen)), Architecture.parse(protocol.architecture)
    stages = learn_stages(architecture, learner, some.shape, None, seed=0, device=CPU)
    network = assemble(architecture, learner, some.shape, stages)
    exact = extract(deepcopy(network), some, CPU)
    errors = {}
    for precision in PRECISIONS:
        found = extract(deepcopy(network), some, device, precision=precision)
        errors[precision] = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    return errors


def measure_accuracy(cell: ComparedCell, device: str, precision: str, data: Path | None, home: Path) -> float:
    """Return the accuracy in percent of one draw."""
    bench = Workbench(data_dir=data, home=home)
    request = Request(
        cell.protocol,
        features=["random"],
        regimes=["R"],
        classifiers=["logistic"],
        train_per_class=cell.labels,
        test_per_class=cell.labels,
        draws=1,
        device=device,
        precision=precision,
    )
    # Without the rows of chance and raw pixels, which every comparison adds: pixels take as long to classify.
    cells = [one for one in bench.plan(request) if one.learner.name == "random"]
    (run,) = bench.run(cells, {}, track=False).runs
    if run.result.score is None:
        raise SystemExit(f"{cell} on {device} in {precision}: {run.result.status}: {run.result.message}")
    return run.result.score.value


if __name__ == "__main__":
    main()
