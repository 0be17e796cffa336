"""Measurements of extraction as a table of text, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

import featbench
from featbench.speed.bench import Row

HEADERS = (
    "architecture",
    "device",
    "precision",
    "batch",
    "images/s",
    "ms/image",
    "GB/s",
    "× convolution",
    "× reference",
    "× compiled",
    "peak memory",
    "error",
)

CONTENDERS = ("ours", "convolution", "reference", "compiled")

EXPLANATION = """\
images/s, ms/image: from maps in the machine's memory to features there; each time is the median of {repeats}.
GB/s: the maps that each stage reads and writes at least, over the time: its input read, its filter bank's maps written
and read, its output written.
× convolution: our time over that of the convolutions alone (torch, on the device, no bias): smaller is better.
× reference, × compiled: how many times as fast as the same network in plain torch, and under torch.compile.
peak memory, in MiB: on CUDA all that was allocated; on a CPU by how much the process grew.
error: ‖a - b‖/‖b‖ of the features against float64, on at most 2 images."""


def render_json(rows: Sequence[Row]) -> str:
    """Return the rows as a JSON array that ends with a newline; what was not measured is null."""
    return json.dumps([make_json_row(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def render_table(rows: Sequence[Row], repeats: int, notes: Sequence[str], machine: Mapping[str, Any]) -> str:
    """Return the rows as a table, with what its columns mean, the notes, and what it was measured on."""
    table = tabulate(
        [_format_row(row) for row in rows],
        headers=HEADERS,
        colalign=("left", "left", "left", *("right",) * (len(HEADERS) - 3)) if rows else (),
        disable_numparse=True,
    )
    parts = [table, EXPLANATION.format(repeats=repeats), "\n".join(notes), "\n".join(format_machine(machine))]
    return "\n\n".join(part for part in parts if part) + "\n"


def make_json_row(row: Row) -> dict[str, Any]:
    """Return a row as a dictionary from names of columns to values; milliseconds are those of the whole batch."""
    return {
        "architecture": str(row.case.architecture),
        "device": row.case.device,
        "precision": row.case.precision,
        "batch": row.case.batch,
        "size": row.case.size,
        "images_per_second": row.images_per_second,
        "gigabytes_per_second": row.gigabytes_per_second,
        "times_convolution": row.times_convolution,
        "times_reference": row.times_as_fast_as("reference"),
        "times_compiled": row.times_as_fast_as("compiled"),
        "peak_bytes": row.peak_bytes,
        "error": row.error,
        "milliseconds": {name: _multiply(1e3, row.seconds.get(name)) for name in CONTENDERS},
    }


def format_machine(machine: Mapping[str, Any]) -> list[str]:
    """Return lines that name processor, GPU, driver and versions, from what `describe_machine` returns."""
    versions = machine["versions"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores; {machine['threads']} threads"]
    if machine["gpu"]:
        driver = f"driver {machine['driver']}, " if machine["driver"] else ""
        lines.append(f"{machine['gpu']}; {driver}CUDA {machine['cuda']}")
    commit = f" ({machine['commit'][:10]}{', edited' if machine['dirty'] else ''})" if machine["commit"] else ""
    # A checkout may be run without being installed, and then has no version that Python knows.
    ours = versions["featbench"] or featbench.__version__
    lines.append(f"torch {versions['torch']}, Python {machine['python']}, featbench {ours}{commit}")
    return lines


def _format_row(row: Row) -> list[str]:
    return [
        str(row.case.architecture),
        row.case.device,
        row.case.precision,
        str(row.case.batch),
        f"{row.images_per_second:.4g}",
        f"{1e3 / row.images_per_second:.3f}",
        f"{row.gigabytes_per_second:.3g}",
        _format_ratio(row.times_convolution),
        _format_ratio(row.times_as_fast_as("reference")),
        _format_ratio(row.times_as_fast_as("compiled")),
        "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.1f}",
        f"{row.error:.1e}",
    ]


def _format_ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _multiply(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value
