"""Measure extraction: all of Caltech-101 from its prepared images to features on disk, and the error of each precision.

Run: FEATBENCH_DATA=data python benchmarks/extraction.py --output benchmarks/extraction.md
On a GPU: the same with --device cuda. `featbench bench` measures the ratios to convolutions and plain torch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tabulate import tabulate
from torch import nn

from featbench.comparison import Workbench
from featbench.experiment.cell import Cell
from featbench.experiment.request import Request
from featbench.features.extraction import extract
from featbench.operations.precision import PRECISIONS
from featbench.speed.bench import describe_machine
from featbench.speed.report import format_machine

STAGES = {"one stage": "one:Rabs-N-PA", "two stages": "two:Rabs-N-PA"}

ERROR_IMAGES = 64


def main() -> None:
    """Measure both architectures, print the page, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        bench = Workbench(home=home)
        cases = {name: CaltechExtraction(bench, stages, arguments.device) for name, stages in STAGES.items()}
        parts = [
            format_heading(len(cases["one stage"].maps)),
            measure_all_images(cases, arguments.repeats),
            measure_errors(cases),
        ]
    text = "\n\n".join(parts)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", "utf-8")


class CaltechExtraction:
    """One cell of the protocol caltech101-30, random filters in regime R, up to its network."""

    def __init__(self, bench: Workbench, stages: str, device: str) -> None:
        request = Request("caltech101-30", features=["random"], regimes=["R"], stages=stages, draws=1, device=device)
        self.cell: Cell = next(cell for cell in bench.plan(request) if cell.learner.name == "random")
        self.steps, self.features = bench.steps, bench.store.home / "artifacts" / "features"
        images, self.maps = self.steps.load(self.cell.dataset, self.cell.preprocessing)
        self.split = self.steps.split(self.cell, images)
        self.network: nn.Module = self.steps.learn(self.cell, self.split, self.maps)[0]


def measure_all_images(cases: dict[str, CaltechExtraction], repeats: int) -> str:
    """Time all images: bytes to normalised maps, to features, to half precision, to disk with its checksum."""
    rows = []
    for name, case in cases.items():
        seconds = [time_extraction(case) for _ in range(repeats)]
        count = len(case.maps)
        rows.append((name, case.cell.architecture, median(seconds), min(seconds), 1e3 * median(seconds) / count))
    body = tabulate(rows, ["", "architecture", "seconds, median", "least", "ms an image"], "github", floatfmt=".2f")
    return (
        "### All images, to features on disk\n\n"
        "From the prepared grey bytes (memory map) through LCN, padding and the stages to float16 features in the\n"
        f"store, their checksum included; {repeats} runs each.\n\n{body}"
    )


def time_extraction(case: CaltechExtraction) -> float:
    """Return the seconds of one extraction; the features of the last one are deleted first."""
    for file in case.features.glob("*"):
        file.unlink()
    begun = time.perf_counter()
    case.steps.extract_part(case.cell, "all", case.network, case.maps)
    return time.perf_counter() - begun


def measure_errors(cases: dict[str, CaltechExtraction]) -> str:
    """Compare the features of some images in each precision with float64 in plain torch."""
    rows = []
    for name, case in cases.items():
        chosen = np.random.default_rng(0).choice(len(case.maps), ERROR_IMAGES, replace=False)
        maps = case.maps[np.sort(chosen)]
        with torch.no_grad():
            exact = case.network.cpu().double()(maps.double()).flatten(1).numpy()
        case.network.float()
        device = torch.device(case.cell.device)
        found = [
            np.linalg.norm(extract(case.network, maps, device, precision=precision) - exact) / np.linalg.norm(exact)
            for precision in PRECISIONS
        ]
        rows.append((name, *(f"{error:.1e}" for error in found)))
    return (
        "### Error of each precision\n\n"
        f"‖a − b‖/‖b‖ of the features of {ERROR_IMAGES} images against the same network in float64, plain torch.\n\n"
        + tabulate(rows, ["", *PRECISIONS], "github", disable_numparse=True)
    )


def format_heading(count: int) -> str:
    """Return the title, and what was measured with which versions on which machine."""
    about: Sequence[str] = format_machine(describe_machine())
    return (
        "# Extraction, measured\n\n"
        f"Caltech-101, {count} images, 151 pixels, random filters. {'; '.join(about)}; {date.today()}.\n"
        "Made by `python benchmarks/extraction.py --output FILE`."
    )


if __name__ == "__main__":
    main()
