"""Test and measure featbench on a CUDA card, in at most 8 minutes; write one Markdown page named after the card.

Run: benchmarks/on_gpu.sh [PART ...] [--data DIR] [--output DIR]
Each part is a process with a time limit of its own. One that fails stays on the page with the end of its output, and
the others go on. Ends with 1 if any failed, and with 2 where there is no card. docs/bench.md says more.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

TOTAL = 465
"""Seconds for all parts together; what is left of 8 minutes is for starting, and for ending a part that hangs."""

GRACE = 5
"""Seconds in which a part that is interrupted may write what it has."""

TAIL = 40
"""Lines of its output that are shown of a part that failed."""

TESTS = (
    "tests/cuda",
    "tests/classifiers/test_logistic_options.py",
    "tests/features/test_descriptors.py",
    "tests/speed/test_bench.py",
)
"""The tests that need a card, or run their kernels on one."""

WORKERS = "8"
"""Processes that run tests: most of their time is Triton's compiler, on one core each."""

NO_CARD = 2
"""Exit code where there is no card, or no Triton to run on it."""


@dataclass(frozen=True)
class Part:
    """One process: python's arguments, its limit in seconds, and the file with what it found, if it writes one.

    rehearsal: arguments that replace or follow the others on a CPU, so that it takes seconds. needs_data: it is left
    out without --data.
    """

    name: str
    limit: int
    command: tuple[str, ...]
    result: str | None = None
    rehearsal: tuple[str, ...] = ()
    needs_data: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a part: in a word, whether that counts as a failure, and the body of its section."""

    verdict: str
    failed: bool
    body: str


def list_parts(device: str, folder: Path) -> list[Part]:
    """Return the parts, the shortest first; they write into `folder`."""
    tiny = ("--stages", "8F5-Rabs-N-PA4/2", "--size", "32", "--batch", "2", "--repeats", "1", "--no-compile")
    bench = ("-m", "featbench", "bench", "--quiet", "--device", device, "--output")
    # Compiling all 16 rows would take longer than 8 minutes: torch.compile has two rows of its own.
    compiled = ("--stages", "64F9-Rabs-N-PA10/5", "--precision", "float32,bf16", "--batch", "256", "--repeats", "5")
    # The options of pyproject.toml ask for pytest-xdist, which the machine with the card may lack.
    options = ("-o", "addopts=", "--import-mode=importlib")
    pytest = ("-m", "pytest", *options, "-q", "-ra", "-p", "no:cacheprovider")
    parallel = ("-n", WORKERS) if find_spec("xdist") else ()
    return [
        Part(
            "refinement",
            60,
            (f"{ROOT}/benchmarks/refinement.py", "--device", device, "--output", f"{folder}/refinement.md"),
            result="refinement.md",
            rehearsal=("--stages", "8F5-Rabs-N-PA4/2", "--side", "32", "--batch", "4", "--repeats", "1"),
        ),
        Part(
            "compile",
            60,
            (*bench, f"{folder}/compile.txt", *compiled),
            result="compile.txt",
            rehearsal=tiny,
        ),
        Part(
            "bench",
            80,
            (*bench, f"{folder}/bench.txt", "--precision", "float32,tf32,bf16,fp16", "--no-compile"),
            result="bench.txt",
            rehearsal=tiny,
        ),
        Part(
            "extraction",
            80,
            (f"{ROOT}/benchmarks/extraction.py", "--device", device, "--output", f"{folder}/extraction.md"),
            result="extraction.md",
            rehearsal=("--repeats", "1"),
            needs_data=True,
        ),
        Part(
            "agreement",
            85,
            (f"{ROOT}/benchmarks/agreement.py", "--device", device, "--output", f"{folder}/agreement.md"),
            result="agreement.md",
        ),
        Part(
            "tests",
            100,
            (*pytest, *(parallel if device == "cuda" else ()), *(TESTS if device == "cuda" else ())),
            rehearsal=("tests/cuda/test_kernel.py",),
        ),
    ]


def main() -> int:
    """Run the parts that are asked for, or all; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in list_parts("cuda", Path())]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"among {', '.join(names)} (default: all)")
    parser.add_argument("--data", type=Path, default=os.environ.get("FEATBENCH_DATA"), help="holds caltech101, packed")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "gpu", help="the page's folder")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a rehearsal, in small")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(names)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: they are {', '.join(names)}")
    missing = find_what_is_missing(arguments.device)
    if missing:
        print(f"on_gpu: {missing}", file=sys.stderr)
        return NO_CARD
    data = None if arguments.data is None else arguments.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        parts = list_parts(arguments.device, Path(folder))
        chosen = [part for part in parts if not arguments.parts or part.name in arguments.parts]
        page = Page.open(arguments.output, describe_card(), names)
        return run_parts(chosen, Path(folder), page, data, rehearsing=arguments.device == "cpu")


def run_parts(parts: Sequence[Part], folder: Path, page: Page, data: Path | None, *, rehearsing: bool) -> int:
    """Run parts one after the other, and write the page after each; return 1 if any failed, else 0."""
    deadline, failed = time.monotonic() + TOTAL, False
    for part in parts:
        begun = time.monotonic()
        limit = min(part.limit, deadline - begun)
        outcome = run_part(part, folder, limit, data, rehearsing=rehearsing)
        took = f"{time.monotonic() - begun:.0f} s of at most {part.limit} s"
        print(f"{part.name}: {outcome.verdict}, {took}", flush=True)
        page.write(part.name, f"**{outcome.verdict}**, {took}", outcome.body)
        failed |= outcome.failed
    print(page.path)
    return int(failed)


def run_part(part: Part, folder: Path, limit: float, data: Path | None, *, rehearsing: bool) -> Outcome:
    """Run one part; what it prints goes to a file, which is there even if the part is killed."""
    if part.needs_data and data is None:
        return Outcome("left out", False, "No data was given: --data DIR, or FEATBENCH_DATA.")
    if limit <= 0:
        return Outcome("not run", True, "The parts before it took all of the time.")
    command = [sys.executable, *part.command, *(part.rehearsal if rehearsing else ())]
    if part.name == "agreement" and data is not None:
        command += ["--data", str(data)]
    # A store of its own: nothing that an earlier run kept may be found, and nothing is left behind.
    environment = {**os.environ, "FEATBENCH_HOME": str(folder / "home")}
    if data is not None:
        environment["FEATBENCH_DATA"] = str(data)
    log = folder / f"{part.name}.log"
    with log.open("wb") as output:
        code = wait(
            # A session of its own, so that the processes which a part starts can be ended with it.
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            ),
            limit,
        )
    verdict = "timed out" if code is None else "passed" if code == 0 else f"failed with {code}"
    result = None if part.result is None else folder / part.result
    found = result.read_text("utf-8") if result is not None and result.is_file() else ""
    printed = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-TAIL:])
    body = (demote(found) if found and str(part.result).endswith(".md") else fence(found)) if found else ""
    if code != 0 or not found:
        body += f"\n\nThe end of its output:\n\n{fence(printed)}"
    return Outcome(verdict, code != 0, body.strip())


def wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """Return the exit code of a process, None if it took longer than `limit` seconds and was ended."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        pass
    # First as Ctrl-C would: `featbench bench` then writes the rows that it has.
    for ending, patience in ((signal.SIGINT, GRACE), (signal.SIGKILL, None)):
        os.killpg(process.pid, ending)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        break
    return None


def find_what_is_missing(device: str) -> str | None:
    """Return why nothing can be run on a device, None if it can."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA card here; --device cpu rehearses the parts without one"
    if device == "cuda" and find_spec("triton") is None:
        return "extraction on a card needs triton, which is not installed"
    return None


def describe_card() -> dict[str, str]:
    """Return what the page has to name: card, driver, versions, processor, commit."""
    from featbench.speed.bench import describe_machine

    machine: Mapping[str, Any] = describe_machine()
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "not installed"
    # A copy of the working tree need not have git's folder.
    commit = machine["commit"] or os.environ.get("FEATBENCH_COMMIT") or "unknown: set FEATBENCH_COMMIT"
    return {
        "card": machine["gpu"] or f"{machine['cpu']} (a rehearsal, no card)",
        "driver": machine["driver"] or "unknown",
        "CUDA": machine["cuda"] or "none",
        "torch": machine["versions"]["torch"],
        "triton": triton,
        "Python": machine["python"],
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "commit": commit + (", edited" if machine["dirty"] else ""),
    }


@dataclass
class Page:
    """The Markdown file of a card: what it is, and a section for each part; those that are not run again are kept."""

    path: Path
    card: Mapping[str, str]
    names: Sequence[str]
    sections: dict[str, str]

    @classmethod
    def open(cls, folder: Path, card: Mapping[str, str], names: Sequence[str]) -> Page:
        """Return the page of a card in a folder, with the sections that it has already."""
        slug = re.sub(r"[^a-z0-9]+", "-", card["card"].lower()).strip("-")
        path = folder / f"{slug}.md"
        text = path.read_text("utf-8") if path.is_file() else ""
        parts = re.split(rf"^## ({'|'.join(names)})\n", text, flags=re.MULTILINE)
        return cls(path, card, names, dict(zip(parts[1::2], parts[2::2], strict=True)))

    def write(self, name: str, verdict: str, body: str) -> None:
        """Replace the section of a part, and write the file."""
        about = f"{verdict}; commit {self.card['commit'][:10]}, {date.today()}."
        self.sections[name] = f"\n{about}\n\n{body}\n\n"
        lines = [f"| {key} | {value} |" for key, value in self.card.items()]
        head = [f"# featbench on {self.card['card']}", "", "| | |", "|---|---|", *lines, "", ""]
        ordered = [f"## {one}\n{self.sections[one]}" for one in self.names if one in self.sections]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(head) + "".join(ordered).rstrip() + "\n", "utf-8")


def demote(text: str) -> str:
    """Return Markdown with its headings two levels lower, below a section of the page."""
    return re.sub(r"^(#{1,4}) ", r"##\1 ", text.strip(), flags=re.MULTILINE)


def fence(text: str) -> str:
    """Return text as it was printed, in a block that backticks inside do not end."""
    return f"~~~~text\n{text.strip()}\n~~~~"


if __name__ == "__main__":
    sys.exit(main())
