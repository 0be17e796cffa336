"""Which second stage is best on a learned first one: random filters, PSD of each group apart, PSD of all together?

Caltech-101, Rabs-N-PA in both stages, the protocol of Jarrett et al. 2009 but for at most 15 test images per class; PSD
on Berkeley patches. Run: FEATBENCH_DATA=data python benchmarks/second_stage.py --output benchmarks/second_stage.md
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean, stdev

import torch
from tabulate import tabulate
from torch import nn

from featbench.comparison import Workbench
from featbench.data.maps import Maps
from featbench.data.prepare import PreparedImages
from featbench.evaluation.protocol import Protocol
from featbench.evaluation.scoring import compute_score
from featbench.evaluation.split import draw_split
from featbench.features.extraction import extract
from featbench.learning.learner import FilterLearner
from featbench.learning.networks import StageFilters, assemble, learn_stages
from featbench.learning.patches import PatchSource
from featbench.stages.architecture import Architecture
from featbench.stages.filters import Bank, Filters
from featbench.store.provenance import describe_run
from featbench.types import IntArray

CPU = torch.device("cpu")


class Stacked(FilterLearner):
    """One learner for the first stage, and another, or the same with its groups apart, for the second."""

    name = "stacked"
    family = "unsupervised"

    def __init__(self, first: FilterLearner, second: FilterLearner, *, together: bool) -> None:
        self.first, self.second, self.together = first, second, together

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters | torch.Tensor:
        """Ask the learner of the stage: only the first stage has one input map."""
        learner = self.first if bank.fan_in == 1 else self.second
        return learner.filters(bank, patches, seed)  # type: ignore[return-value]

    def connected(
        self, bank: Bank, table: IntArray, maps: int, patches: PatchSource | None, seed: int
    ) -> Filters | None:
        """Let the second learner learn its groups together, if `together`."""
        return self.second.connected(bank, table, maps, patches, seed) if self.together else None


@dataclass(frozen=True)
class SecondStage:
    """One second stage: the learner of its filters, and whether it learns all groups together."""

    name: str
    learner: str
    together: bool


SECOND_STAGES = (
    SecondStage("random", "random", together=False),
    SecondStage("psd, each group apart", "psd", together=False),
    SecondStage("psd, all groups together", "psd", together=True),
)


def main() -> None:
    """Measure all second stages on the same draws, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--test-per-class", type=int, default=15)
    arguments = parser.parse_args()
    rows = list(measure(arguments.draws, arguments.test_per_class))
    table = tabulate(rows, headers="keys", tablefmt="github")
    about = describe_run()
    commit = f"{about['commit']}{' (changed)' if about['dirty'] else ''}"
    page = (
        "# Second stages on a first stage of PSD\n\n"
        f"`python benchmarks/second_stage.py --draws {arguments.draws} --test-per-class {arguments.test_per_class}`, "
        f"{date.today()}, featbench {commit}, torch {torch.__version__}, "
        f"{os.cpu_count()} cores, {platform.machine()}.\n\n{table}\n\n± is the standard deviation over the draws.\n"
    )
    print(page)
    if arguments.output:
        arguments.output.write_text(page, "utf-8")


def measure(draws: int, test_per_class: int) -> Iterator[dict[str, str]]:
    """Yield a row for each second stage."""
    bench = Workbench()
    protocol, steps = bench.registry.protocol("caltech101-30"), bench.steps
    architecture = Architecture.parse(protocol.architectures["two:Rabs-N-PA"])
    images, maps = steps.load("caltech101", protocol.preprocessing)
    pool = steps.load_pool("berkeley", protocol.preprocessing)
    psd = bench.registry.learner("psd").create({})
    first: list[StageFilters] | None = None
    for second in SECOND_STAGES:
        learner = Stacked(psd, bench.registry.learner(second.learner).create({}), together=second.together)
        stages = learn_stages(architecture, learner, maps.shape, pool, seed=0, device=CPU)
        first = first or stages[:1]
        assert torch.equal(first[0].filters.weight, stages[0].filters.weight)
        network = assemble(architecture, psd, maps.shape, stages)
        scores = [
            compute_accuracy(bench, network, images, maps, protocol, draw, test_per_class) for draw in range(draws)
        ]
        yield {
            "second stage": second.name,
            "accuracy %": f"{fmean(scores):.1f} ± {stdev(scores):.1f}" if draws > 1 else f"{scores[0]:.1f}",
            "draws": ", ".join(f"{one:.1f}" for one in scores),
        }


def compute_accuracy(
    bench: Workbench,
    network: nn.Module,
    images: PreparedImages,
    maps: Maps,
    protocol: Protocol,
    draw: int,
    test_per_class: int,
) -> float:
    """Train logistic regression on one draw, and return the mean accuracy over classes on its test images."""
    split = draw_split(
        images,
        train_per_class=protocol.train_per_class,
        test_per_class=test_per_class,
        validation_fraction=protocol.validation_fraction,
        test=protocol.test,
        seed=0,
        draw=draw,
    )
    train, test = (extract(network, maps.select(which), CPU) for which in (split.train, split.test))
    predictor = bench.registry.classifier("logistic").fit(
        train, images.labels[split.train], split.validation, len(images.classes), seed=draw
    )
    predicted = predictor.predict(test)
    metric = bench.registry.metric(protocol.metric)
    return compute_score(metric, predicted, images.labels[split.test], len(images.classes)).value


if __name__ == "__main__":
    main()
