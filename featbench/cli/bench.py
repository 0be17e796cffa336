"""`featbench bench`."""

from __future__ import annotations

import argparse
import re

from featbench.cli import options as shared
from featbench.cli import running
from featbench.cli.main import INTERRUPTED
from featbench.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench bench`."""
    parser.description = (
        "Measures how fast features are extracted on this machine, with random filters on maps of noise, beside the "
        "convolutions alone and the same network in plain torch. It takes minutes, and wants a machine that does "
        "nothing else."
    )
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--stages",
        action="append",
        metavar="ARCHITECTURE",
        help="as in 64F9-Rabs-N-PA10/5; may be repeated (default: one and two stages of Jarrett et al. 2009)",
    )
    group.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda",
        help="where (default: auto, the CPU and, where there is one, the GPU)",
    )
    group.add_argument("--batch", metavar="LIST", help="images at once (default: 1,32 on a CPU, 1,256 on a GPU)")
    group.add_argument("--size", type=int, default=143, metavar="N", help="side of the maps in pixels (default: 143)")
    group.add_argument(
        "--precision", default="float32", metavar="LIST", help="among float32,tf32,bf16,fp16 (default: float32)"
    )
    group.add_argument("--repeats", type=int, default=7, metavar="N", help="runs behind each median (default: 7)")
    group.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes long to compile")
    group = parser.add_argument_group("how it is shown")
    group.add_argument("--json", action="store_true", help="print a JSON array of rows in place of the table")
    group.add_argument("--output", metavar="FILE", help="write it there instead of printing it")
    group.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Measure every case, and print what was finished."""
    output = shared.writable_file(options.output) if options.output else None
    precisions = shared.names(options.precision, "--precision") or []
    batches = _whole_numbers(options.batch) if options.batch is not None else None
    from featbench.cli.console import Console
    from featbench.speed.bench import ARCHITECTURES, Bench, Row, describe_machine, find_devices, plan
    from featbench.speed.report import render_json, render_table

    devices = find_devices(options.device)
    cases = plan(options.stages or ARCHITECTURES, devices, batches, options.size, precisions)
    bench = Bench(options.repeats, compiles=not options.no_compile)
    rows: list[Row] = []
    interrupted = False
    with Console(quiet=options.quiet) as console:
        both = "device: cpu and cuda (auto: a CUDA device was found)"
        console.inform(both if len(devices) > 1 else running.device_line(options.device))
        try:
            for case in cases:
                console.step("measuring", len(rows), len(cases))
                rows.append(bench.measure(case))
                console.inform(f"[{len(rows)}/{len(cases)}] {case}: {rows[-1].images_per_second:.4g} images/s")
        except KeyboardInterrupt:
            interrupted = True
            console.say(f"featbench: interrupted; {len(rows)} of {len(cases)} rows were measured")
        if options.json:
            for note in bench.notes:
                console.inform(note)
    text = render_json(rows) if options.json else render_table(rows, options.repeats, bench.notes, describe_machine())
    running.deliver(text, output)
    return INTERRUPTED if interrupted else 0


def _whole_numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d+", part, re.ASCII) for part in parts):
        raise UsageError(f"cannot read --batch {text!r}: write whole numbers, as 1,32")
    return [int(part) for part in parts]
