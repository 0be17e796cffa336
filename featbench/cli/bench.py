"""`featbench bench`: the speed of feature extraction on this machine."""

from __future__ import annotations

import argparse
import re

from featbench.cli import options as shared
from featbench.cli import running, signals
from featbench.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench bench`."""
    parser.description = (
        "Measures how fast features are extracted on this machine, and compares it with the time of the convolutions "
        "alone and of the same network in plain torch. Filters are random and maps are noise: neither changes the "
        "speed. It takes minutes; let the machine do nothing else meanwhile."
    )
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--stages",
        action="append",
        metavar="ARCHITECTURE",
        help="architecture, such as 64F9-Rabs-N-PA10/5; may be repeated (default: one and two stages of "
        "Jarrett et al. 2009)",
    )
    group.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda",
        help="where to compute (default: auto, on the CPU and also on a CUDA device if there is one)",
    )
    group.add_argument(
        "--batch", metavar="LIST", help="batch sizes, such as 1,32 (default: 1,32 on a CPU, 1,256 on a GPU)"
    )
    group.add_argument("--size", type=int, default=143, metavar="N", help="side of the maps in pixels (default: 143)")
    group.add_argument(
        "--precision",
        default="float32",
        metavar="LIST",
        help="precisions among float32,tf32,bf16,fp16 (default: float32)",
    )
    group.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="number of runs behind each median (default: 7)"
    )
    group.add_argument(
        "--no-compile", action="store_true", help="leave out torch.compile, which takes minutes to compile"
    )
    group = parser.add_argument_group("how it is shown")
    group.add_argument("--json", action="store_true", help="print a JSON array of rows instead of the table")
    group.add_argument(
        "--output",
        type=shared.read_text,
        metavar="FILE",
        help="write the table or JSON to this file instead of printing it (-: print it)",
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Measure every case and print the rows; after an interruption, the rows that were finished."""
    output = shared.require_writable_file(options.output)
    precisions = shared.read_names(options.precision, "--precision") or []
    batches = _read_whole_numbers(options.batch) if options.batch is not None else None
    from featbench.cli.console import Console
    from featbench.speed.bench import ARCHITECTURES, Bench, Row, describe_machine, find_devices, plan
    from featbench.speed.report import render_json, render_table

    devices = find_devices(options.device)
    cases = plan(options.stages or ARCHITECTURES, devices, batches, options.size, precisions)
    bench = Bench(options.repeats, compiles=not options.no_compile)
    rows: list[Row] = []
    code = 0
    with Console(quiet=options.quiet) as console:
        both = "device: cpu and cuda (auto: a CUDA device was found)"
        console.inform(both if len(devices) > 1 else running.describe_device(options.device))
        try:
            for case in cases:
                console.step("measuring", len(rows), len(cases))
                rows.append(bench.measure(case))
                console.inform(f"[{len(rows)}/{len(cases)}] {case}: {rows[-1].images_per_second:.4g} images/s")
        except KeyboardInterrupt as interruption:
            # Rows take minutes each: those that are finished are printed, and the exit code tells of the rest.
            code = signals.find_exit_code(interruption)
            word = signals.describe(interruption)
            console.say(f"featbench: {word}; {len(rows)} of {len(cases)} rows were measured")
        if options.json:
            for note in bench.notes:
                console.inform(note)
    text = render_json(rows) if options.json else render_table(rows, options.repeats, bench.notes, describe_machine())
    running.write_output(text, output)
    return code


def _read_whole_numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d+", part, re.ASCII) for part in parts):
        raise UsageError(f"cannot read --batch {text!r}: write whole numbers, such as 1,32")
    return [int(part) for part in parts]
