"""Feature extraction measured on this machine, compared with its convolutions alone and with plain torch."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from statistics import median
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featbench.devices.batches import Batches
from featbench.devices.failures import is_out_of_memory
from featbench.devices.selection import resolve_device, select_operations
from featbench.errors import UsageError
from featbench.learning.learner import FilterLearner
from featbench.learning.networks import assemble, learn_stages
from featbench.operations.precision import HALF_DTYPES, Precision, check_precision
from featbench.registry import Registry
from featbench.speed.convolutions import Call, choose_fastest, find_convolutions
from featbench.speed.peak_memory import measure_peak
from featbench.stages.architecture import Architecture
from featbench.stages.specs import Shape
from featbench.store.provenance import describe_run
from featbench.system.clock import Clock

ARCHITECTURES = ("64F9-Rabs-N-PA10/5", "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4")
"""Architectures that are measured by default: the two of Jarrett et al. 2009."""

BATCHES = {"cpu": (1, 32), "cuda": (1, 256)}
"""Batch sizes that are measured by default: a single image, and enough to fill the device."""

COMPARED = 2
"""Images whose features are compared with those in float64, in which plain torch is slow."""

EMULATED = (
    "on a CPU tf32, bf16 and fp16 are emulated by rounding float32; "
    "there the convolutions, the reference and torch.compile run in float32"
)

NOT_COMPILED = "torch.compile was left out: --no-compile"


@dataclass(frozen=True)
class Case:
    """One measurement: `batch` images of size×size pixels through an architecture, on a device, in a precision."""

    architecture: Architecture
    device: str
    precision: Precision
    batch: int
    size: int

    def __str__(self) -> str:
        return f"{self.architecture} on {self.device} in {self.precision}, batch {self.batch}"

    @property
    def shape(self) -> Shape:
        """Maps, height and width of one image."""
        return 1, self.size, self.size

    @property
    def moved_bytes(self) -> int:
        """Bytes of maps that stages read and write at least: their input and output once, the bank's maps twice.

        Input and output are float32; bf16 and fp16 keep the bank's maps in 16 bits.
        """
        # The bank's maps cannot be pooled while they are written: N needs a statistic of the whole image first.
        width = 2 if self.precision in HALF_DTYPES else 4
        shapes = pairwise([self.shape, *self.architecture.shapes(self.shape)])
        return self.batch * sum(
            4 * (prod(before) + prod(after)) + 2 * width * prod(stage.bank.output_shape(stage.bank_input(before)))
            for stage, (before, after) in zip(self.architecture.stages, shapes, strict=True)
        )


@dataclass(frozen=True)
class Row:
    """What a case measured.

    seconds: medians for the whole batch, of ours, convolution, reference and compiled; without those that were left
    out. peak_bytes: of ours, None where the system does not report it. error: ‖a - b‖/‖b‖ of the features a against
    those in float64, b.
    """

    case: Case
    seconds: Mapping[str, float]
    peak_bytes: int | None
    error: float

    @property
    def images_per_second(self) -> float:
        """Images that featbench extracts in a second."""
        return self.case.batch / self.seconds["ours"]

    @property
    def gigabytes_per_second(self) -> float:
        """The bytes that have to move at least, in 10^9 a second of our time."""
        return self.case.moved_bytes / self.seconds["ours"] / 1e9

    @property
    def times_convolution(self) -> float | None:
        """How many times as long as its convolutions alone, if those were measured."""
        alone = self.seconds.get("convolution")
        return None if alone is None else self.seconds["ours"] / alone

    def times_as_fast_as(self, other: str) -> float | None:
        """How many times as fast as `reference` or `compiled`, if that was measured."""
        theirs = self.seconds.get(other)
        return None if theirs is None else theirs / self.seconds["ours"]


def find_devices(name: str) -> list[str]:
    """Return the devices to measure; for `auto` the CPU and, where there is one, the CUDA device."""
    found = resolve_device(name).type
    return ["cpu", "cuda"] if name == "auto" and found == "cuda" else [found]


def plan(
    stages: Sequence[str], devices: Sequence[str], batches: Sequence[int] | None, size: int, precisions: Sequence[str]
) -> list[Case]:
    """Return every case in the order of the table; nothing is computed.

    batches: batch sizes, None for `BATCHES`. Raises `UsageError`, `ArchitectureError` or `DeviceError` for what cannot
    be measured, so that a mistake in the last case does not cost the time of the others.
    """
    architectures = [Architecture.parse(text) for text in dict.fromkeys(stages)]
    for architecture in architectures:
        architecture.shapes((1, size, size))
    for batch in batches or ():
        if batch < 1:
            raise UsageError(f"a batch holds at least 1 image, not {batch}")
    known = [check_precision(name) for name in dict.fromkeys(precisions)]
    for device, precision in product(devices, known):
        select_operations(device, precision)
    return [
        Case(architecture, device, precision, batch, size)
        for architecture, device in product(architectures, devices)
        for batch, precision in product(dict.fromkeys(batches or BATCHES[device]), known)
    ]


class Bench:
    """Measures cases; each time is the median of `repeats` runs. `notes` lists what was left out of rows, and why."""

    def __init__(self, repeats: int, *, compiles: bool = True) -> None:
        if repeats < 1:
            raise UsageError(f"each time is the median of at least 1 run, not {repeats}")
        self.repeats, self.compiles = repeats, compiles
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> list[str]:
        """What was left out so far, and why."""
        return list(self._notes)

    @torch.no_grad()
    def measure(self, case: Case) -> Row:
        """Measure one case; `DeviceError` if one image alone is too large for the memory."""
        device, maps, network = torch.device(case.device), make_noise(case), make_random_network(case)

        # A copy each: `Batches` moves its network to the device, and the float64 one is converted.
        def fresh() -> tuple[Batches, Tensor]:
            batches = Batches(deepcopy(network), device, case.precision)
            return batches, batches.launch(maps)()

        # The first call loads libraries and compiles kernels: memory that extraction itself does not take.
        fresh()
        (batches, features), peak = measure_peak(device, fresh)
        # float64 on the CPU, whatever the device: its rounding is no part of the error that is measured.
        exact = deepcopy(network).double()(maps[:COMPARED].double())
        error = float((features[:COMPARED] - exact).norm() / exact.norm())
        calls: dict[str, Call] = {"ours": lambda: batches.launch(maps)()}
        for name, make in self._prepare_contenders(case, network, maps).items():
            call = self._warm_up(case, name, make)
            if call is not None:
                calls[name] = call
        return Row(case, self._time_in_turns(case, calls), peak, error)

    def _prepare_contenders(self, case: Case, network: nn.Module, maps: Tensor) -> dict[str, Callable[[], Call]]:
        """Return a function for each contender that sets it up and returns the call to be timed."""
        device = torch.device(case.device)
        dtype = _find_half_dtype(case) or torch.float32
        plain = deepcopy(network).to(device).eval()
        others: dict[str, Callable[[], Call]] = {
            "convolution": lambda: choose_fastest(find_convolutions(network, maps[:1]), case.batch, device, dtype),
            "reference": lambda: lambda: plain(maps.to(device)).cpu(),
        }
        if case.device == "cpu" and case.precision != "float32":
            self._notes[EMULATED] = None
        if self.compiles:
            others["compiled"] = lambda: _compiled(plain, maps, device)
        else:
            self._notes[NOT_COMPILED] = None
        return others

    def _warm_up(self, case: Case, name: str, make: Callable[[], Call]) -> Call | None:
        """Set a contender up and call it once; None, and a note, if it cannot run here."""
        try:
            with plain_torch(case):
                call = make()
                call()
        except Exception as error:
            # torch.compile fails in many ways, of many types, where a compiler is missing. What fails otherwise, but
            # for memory, is a mistake of ours that must not look like a missing column.
            if name != "compiled" and not is_out_of_memory(error):
                raise
            title = "torch.compile" if name == "compiled" else name
            self._notes[f"{title} was left out: {type(error).__name__}: {shorten(str(error), 200)}"] = None
            return None
        return call

    def _time_in_turns(self, case: Case, calls: Mapping[str, Call]) -> dict[str, float]:
        """Return the median seconds of each call; they take turns, so that a drift of the machine affects all alike."""
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(self.repeats):
            for name, call in calls.items():
                with nullcontext() if name == "ours" else plain_torch(case):
                    clock = Clock(torch.device(case.device))
                    call()
                    seconds[name].append(clock.seconds())
        return {name: median(times) for name, times in seconds.items()}


def make_noise(case: Case) -> Tensor:
    """Return maps [batch, 1, size, size] of normal noise, the same images first in every batch."""
    # numpy fills in order, so that a smaller batch is the beginning of a larger one, and errors are of the same images.
    generator = np.random.default_rng(0)
    return torch.from_numpy(generator.standard_normal((case.batch, *case.shape), dtype=np.float32))


def make_random_network(case: Case) -> nn.Module:
    """Return the architecture with random filters, on the CPU."""
    learner = Registry().learner("random")()
    assert isinstance(learner, FilterLearner)
    stages = learn_stages(case.architecture, learner, case.shape, None, seed=0, device=torch.device("cpu"))
    return assemble(case.architecture, learner, case.shape, stages).eval()


@contextmanager
def plain_torch(case: Case) -> Iterator[None]:
    """Set torch to the precision of a case, and to its own fastest settings; on a CPU that is float32."""
    # Emulating 16 bits on a CPU would time the emulation: there torch stands for what anyone runs, float32.
    if case.device == "cpu":
        yield
        return
    half = _find_half_dtype(case)
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=case.precision == "tf32")
    with cudnn, torch.autocast("cuda", half, enabled=half is not None):
        yield


def describe_machine() -> dict[str, Any]:
    """Return what describes a run, as `describe_run` of the store, and the driver of the GPU if that is known."""
    return {**describe_run(), "driver": _read_driver()}


def _find_half_dtype(case: Case) -> torch.dtype | None:
    """Return the 16-bit type in which torch itself computes a case, if it does."""
    return HALF_DTYPES.get(case.precision) if case.device == "cuda" else None


def _compiled(network: nn.Module, maps: Tensor, device: torch.device) -> Call:
    # Without the reset torch would not compile a second batch size for itself, but one slower program for any size.
    torch.compiler.reset()
    compiled = torch.compile(network, dynamic=False)
    return lambda: compiled(maps.to(device)).cpu()


def _read_driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None or not torch.cuda.is_available():
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None
