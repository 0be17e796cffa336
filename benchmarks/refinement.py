"""Measure a step of supervised refinement against its convolutions alone, and against plain torch.

Run: python benchmarks/refinement.py --output benchmarks/refinement.md
On a GPU: the same with --device cuda --precision bf16.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional

from featbench.devices.selection import resolve_device
from featbench.operations.precision import HALF_DTYPES, PRECISIONS
from featbench.refinement.checkpoint import NoCheckpoint
from featbench.refinement.classifier_layer import ClassifierLayer
from featbench.refinement.gradients import Examples, Gradients
from featbench.refinement.progress import ignore_progress
from featbench.refinement.settings import Refinement
from featbench.refinement.trainer import Trainer
from featbench.refinement.training_state import SEARCH, TrainingState
from featbench.speed.bench import Case, describe_machine, make_random_network, plain_torch
from featbench.speed.convolutions import Convolution, find_convolutions
from featbench.speed.peak_memory import measure_peak
from featbench.speed.report import format_machine
from featbench.stages.architecture import Architecture
from featbench.system.clock import Clock
from featbench.system.threads import Workers

STAGES = "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4"

IMAGES, CLASSES = 3060, 102
"""An epoch of Caltech-101 with 30 training images of each class."""

STEPS = 4
"""Steps of training that are timed together."""

TRIALS = 3
"""Trials of each way to compute a convolution, after one that does not count; the best time decides."""

BAR_TIMES, BAR_BYTES = 4.0, 6e9
"""Targets: at most so many times as long as the convolutions alone, in at most so many bytes."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """Median milliseconds an image of each contender, and peak bytes of the process and of training alone."""

    milliseconds: dict[str, float]
    process_bytes: int
    step_bytes: int | None


def main() -> None:
    """Measure, print the page, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=STAGES)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=143, help="pixels of the maps that come in")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="on cuda; on a CPU it is float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    architecture, device = Architecture.parse(arguments.stages), resolve_device(arguments.device)
    case = Case(architecture, device.type, arguments.precision, arguments.batch, arguments.side)
    text = format_page(case, arguments.repeats, measure(case, arguments.repeats))
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", "utf-8")


def measure(case: Case, repeats: int) -> Measured:
    """Time all contenders in turn, so that a drift of the machine affects all alike.

    Memory is that of training by itself: it is read before the others have run.
    """
    training = Training(case)
    training.epoch()
    before = read_peak_bytes()
    _, step_bytes = measure_peak(training.device, training.epoch)  # which has the peak count from its start
    process_bytes = max(before, read_peak_bytes())
    ways = find_fastest_ways(training)
    contenders: dict[str, Callable[[], int]] = {
        "featbench": training.epoch,
        "forward": partial(repeat_convolutions, [way for way, _ in ways], case.batch),
        "backward": partial(repeat_convolutions, [way for _, way in ways], case.batch),
        "plain torch": PlainTorch(training).epoch,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + repeats):
        for name, call in contenders.items():
            with nullcontext() if name == "featbench" else plain_torch(case):
                clock = Clock(training.device)
                images = call()
                seconds[name].append(clock.seconds() / images)
    return Measured({name: 1e3 * median(each[1:]) for name, each in seconds.items()}, process_bytes, step_bytes)


def read_peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Training:
    """Refinement as it is: an epoch of `Trainer` over a few batches of the training images."""

    def __init__(self, case: Case) -> None:
        self.case, self.device, self.network = case, torch.device(case.device), make_random_network(case)
        generator = torch.Generator().manual_seed(0)
        self.examples = Examples(
            torch.randn(IMAGES, *case.shape, generator=generator), torch.arange(IMAGES) * 7 % CLASSES
        )
        with torch.no_grad():
            features = self.network(self.examples.maps[:16]).flatten(1)
        self.layer = ClassifierLayer(features.shape[1], CLASSES)
        self.layer.standardisation.fit(features)
        # An untrained layer is zero, and so would be all gradients that pass through it: nothing would be computed.
        torch.nn.init.normal_(self.layer.linear.weight, generator=generator)
        network = deepcopy(self.network).to(self.device)
        layer = deepcopy(self.layer).to(self.device)
        self.gradients = Gradients(network, layer, self.device, case.precision)

    def epoch(self) -> int:
        """Train on a few batches; return how many images they have."""
        settings = Refinement(batch=self.case.batch, epochs=1, rate=1e-4, head_rate=1e-4)
        trainer = Trainer(TrainingState(SEARCH), settings, self.gradients, seed=0, progress=ignore_progress)
        few = self.examples[torch.arange(min(STEPS * self.case.batch, IMAGES))]
        trainer.run(1, few, None, NoCheckpoint())
        return len(few)


class PlainTorch:
    """The same steps in plain torch: modules one after another, autograd, all threads on each operation."""

    def __init__(self, training: Training) -> None:
        self.case, self.examples, self.device = training.case, training.examples, training.device
        self.network, self.layer = (deepcopy(part).to(self.device) for part in (training.network, training.layer))
        parameters = [*self.network.parameters(), *self.layer.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def epoch(self) -> int:
        """Train on a few batches; return how many images they have."""
        self.network.train()
        batches = torch.split(torch.arange(min(STEPS * self.case.batch, IMAGES)), self.case.batch)
        for images in batches:
            batch = self.examples[images]
            with self._autocast():
                features = self.network(batch.maps.to(self.device))
            loss = functional.cross_entropy(self.layer(features.float()), batch.labels.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return sum(map(len, batches))

    def _autocast(self) -> AbstractContextManager[object]:
        half = HALF_DTYPES.get(self.case.precision)
        return torch.autocast("cuda", half) if half and self.device.type == "cuda" else nullcontext()


# The convolutions alone: no bias, and each output is dropped before the next one is made.


def repeat_convolutions(calls: list[Call], batch: int) -> int:
    """Compute the convolutions of a few batches; return how many images these have."""
    for _ in range(STEPS):
        for call in calls:
            call()
    return STEPS * batch


def find_fastest_ways(training: Training) -> list[tuple[Call, Call]]:
    """Return for each layer, forward and backward, the way that was fastest in a trial."""
    case, device, generator = training.case, training.device, torch.Generator().manual_seed(0)
    dtype = HALF_DTYPES.get(case.precision, torch.float32) if device.type == "cuda" else torch.float32
    count = torch.get_num_threads()
    workers = Workers(count) if device.type == "cpu" and count > 1 else None
    found = []
    with torch.no_grad(), plain_torch(case):
        for number, layer in enumerate(find_convolutions(training.network, training.examples.maps[:1])):
            maps = torch.randn(case.batch, *layer.maps, generator=generator).to(device, dtype)
            weight = layer.weight.to(device, dtype)
            grad = torch.randn_like(functional.conv2d(maps, weight, groups=layer.groups))
            ways: list[list[Call]] = [[], []]
            for form in (torch.contiguous_format, torch.channels_last):
                x, w, g = (tensor.clone(memory_format=form) for tensor in (maps, weight, grad))
                for at_once in choose_part_sizes(case.batch, count if workers else 1, device):
                    forward, backward = partial(_convolve, layer), partial(_compute_gradients, layer, wanted=number > 0)
                    for kind, convolve in enumerate((forward, backward)):
                        ways[kind] += _list_ways(convolve, x, w, g, at_once, workers)
            fastest = [min(each, key=partial(_time_best, device=device)) for each in ways]
            found.append((fastest[0], fastest[1]))
    return found


def choose_part_sizes(batch: int, threads: int, device: torch.device) -> list[int]:
    """Return the sizes of parts that are tried: the batch, a share for each thread, one image."""
    return [batch] if device.type == "cuda" else sorted({batch, -(-batch // threads), 1})


def _list_ways(
    convolve: Callable[..., object], maps: Tensor, weight: Tensor, grad: Tensor, at_once: int, workers: Workers | None
) -> Iterator[Call]:
    """Yield the ways with parts of this size: all threads on each operation, or one thread for each part."""
    parts = list(zip(torch.split(maps, at_once), torch.split(grad, at_once), strict=True))

    def one(part: tuple[Tensor, Tensor]) -> object:
        return convolve(part[0], weight, part[1])

    def in_turn() -> None:
        for part in parts:
            one(part)

    def side_by_side(workers: Workers) -> None:
        for _ in workers.map(one, parts):
            pass

    yield in_turn
    if workers and len(parts) > 1:
        yield partial(side_by_side, workers)


def _convolve(layer: Convolution, maps: Tensor, weight: Tensor, _grad: Tensor) -> None:
    functional.conv2d(maps, weight, groups=layer.groups)


def _compute_gradients(layer: Convolution, maps: Tensor, weight: Tensor, grad: Tensor, *, wanted: bool) -> None:
    """Compute the gradient by the weight, and by the maps where a layer below is trained."""
    stride, padding, dilation, transposed, output_padding = [1, 1], [0, 0], [1, 1], False, [0, 0]
    geometry = stride, padding, dilation, transposed, output_padding
    torch.ops.aten.convolution_backward(grad, maps, weight, None, *geometry, layer.groups, [wanted, True, False])


def _time_best(call: Call, device: torch.device) -> float:
    call()
    seconds = []
    for _ in range(TRIALS):
        clock = Clock(device)
        call()
        seconds.append(clock.seconds())
    return min(seconds)


def format_page(case: Case, repeats: int, measured: Measured) -> str:
    """Return the page: what was measured, on which machine, and how it compares with the targets."""
    ours, plain = measured.milliseconds["featbench"], measured.milliseconds["plain torch"]
    alone = measured.milliseconds["forward"] + measured.milliseconds["backward"]
    rows = [
        ("featbench: the whole step", ours, ours / alone, IMAGES * ours / 1e3),
        ("its convolutions alone", alone, 1.0, IMAGES * alone / 1e3),
        ("of these forward", measured.milliseconds["forward"], None, None),
        ("of these backward", measured.milliseconds["backward"], None, None),
        ("plain torch: the whole step", plain, plain / alone, IMAGES * plain / 1e3),
    ]
    headers = ["", "ms an image", "× convolutions", f"s an epoch of {IMAGES}"]
    table = tabulate(rows, headers, "github", floatfmt=("", ".2f", ".2f", ".1f"))
    step = "not told" if measured.step_bytes is None else f"{measured.step_bytes / 1e9:.2f} GB"
    return (
        "# Supervised refinement, measured\n\n"
        f"{case}, {case.size}×{case.size} pixels, {CLASSES} classes.\n"
        f"{'; '.join(format_machine(describe_machine()))}; {torch.get_num_threads()} threads used; {date.today()}.\n"
        "Made by `python benchmarks/refinement.py --output FILE`.\n\n"
        "A step is forward, classifier layer, backward and SGD with momentum. The convolutions alone are those of\n"
        "each layer and their gradients, by the weights and, but for the first layer, by the maps; connection tables\n"
        "are groups. Each is done in the way that was fastest in a trial: maps first or last in memory; the batch at\n"
        "once, in a share for each thread, or image by image; all threads on an operation, or one for each part.\n"
        "Plain torch is the modules one after another under autograd.\n"
        f"Medians of {repeats} runs of {STEPS} steps that take turns.\n\n"
        f"{table}\n\n"
        f"- The step takes {ours / alone:.2f} times as long as its convolutions; asked for: {BAR_TIMES:g} at most.\n"
        f"- Plain torch takes {plain / ours:.2f} times as long as featbench.\n"
        f"- The process took {measured.process_bytes / 1e9:.2f} GB at its peak, all {IMAGES} images included; asked\n"
        f"  for: {BAR_BYTES / 1e9:g} GB at most. Of this training itself took {step}."
    )


if __name__ == "__main__":
    main()
