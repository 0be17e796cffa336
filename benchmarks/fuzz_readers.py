"""Damage files at random, read them, and count what comes of it.

Run: python benchmarks/fuzz_readers.py [--cases 3000] [--seed 0] [--only NAME] [--output benchmarks/fuzz_readers]
Ends with 1 if a reader was silently wrong, hung, took memory or failed by accident. `--only "png:17"` repeats one case.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from fuzz_binary import (
    list_archive_targets,
    list_idx_targets,
    list_norb_targets,
    list_record_targets,
    list_store_targets,
    list_svhn_targets,
)
from fuzz_bombs import list_bombs
from fuzz_targets import Content, Target, list_image_targets
from tabulate import tabulate

from featbench.errors import FeatbenchError

OUTCOMES = {
    "error": "a clean error: one of featbench's own that names the file, or a file of the store that is set aside",
    "same": "correct: what the sound file holds",
    "other": "correct: what the damaged bytes hold, as another program reads them; no checksum covers them",
    "unjudged": "something else, of which no other program can tell whether it is right",
    "wrong": "silently wrong: not what the sound file holds, nor what another program finds, or against a checksum",
    "hang": "no answer within the time limit",
    "memory": "more memory than the limit",
    "internal": "an exception that is not featbench's own, or a crash",
    "unnamed": "an error of featbench's that does not name the file",
}
"""What can come of a case, with its meaning; from `wrong` on, each is a fault."""

FAULTS = ("wrong", "hang", "memory", "internal", "unnamed")

SECONDS, MEGABYTES = 30.0, 512
"""Limits of a case: time, and memory beyond what the process had before."""

ADDRESS_SPACE = 6 * 2**30
"""A case cannot take more than this from the machine, whatever the reader does."""


@dataclass(frozen=True)
class Case:
    """One damaged file: its target, its number, and what the damage leaves right."""

    target: Target
    number: int
    data: bytes
    sums_right: bool


@dataclass(frozen=True)
class Finding:
    """What came of a case, and a line about it."""

    case: Case
    outcome: str
    text: str
    megabytes: float


def main() -> None:
    """Run all cases, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000, help="number of damaged files (default: 3000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a target's name, or part of it; with :N, its case N alone")
    parser.add_argument("--no-bombs", action="store_true", help="leave out what takes minutes to unpack")
    parser.add_argument("--output", type=Path, help="write PATH.md and PATH.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    cases = list_cases(arguments.cases, arguments.seed, arguments.only)
    bombs = () if arguments.no_bombs else list_bomb_cases(arguments.only)
    findings = [run_case(case) for case in chain(cases, bombs)]
    page = render(findings, arguments.seed, time.perf_counter() - started)
    print(page)
    if arguments.output is not None:
        arguments.output.with_suffix(".md").write_text(page, "utf-8")
        document = json.dumps(describe(findings, arguments.seed), indent=1, ensure_ascii=False)
        arguments.output.with_suffix(".json").write_text(document + "\n", "utf-8")
    sys.exit(any(finding.outcome in FAULTS for finding in findings))


def list_targets() -> list[Target]:
    """Return everything that is fuzzed."""
    lists = (list_image_targets, list_idx_targets, list_norb_targets, list_svhn_targets, list_record_targets)
    return [target for targets in (*lists, list_archive_targets, list_store_targets) for target in targets()]


def list_cases(count: int, seed: int, only: str) -> Iterator[Case]:
    """Yield the cases, as many of each target; each is drawn from the seed, its target and its number alone."""
    targets = list_targets()
    name, _, chosen = only.partition(":")
    for target in targets:
        if name not in target.name:
            continue
        for number in range(-(-count // len(targets))):
            if chosen and number != int(chosen):
                continue
            random = np.random.default_rng([seed, *target.name.encode(), number])
            sound = next(iter(target.files.values()))
            kind = number % len(target.mutations)
            yield Case(target, number, target.mutations[kind](sound, random), sums_right=kind > 0)


def list_bomb_cases(only: str) -> Iterator[Case]:
    """Yield the bombs, each a case of its own."""
    name = only.partition(":")[0]
    for target, data in list_bombs():
        if name in target.name:
            yield Case(target, 0, data, sums_right=True)


def run_case(case: Case) -> Finding:
    """Write the files of a case into a folder, read them in a process of their own, and judge what came of it."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        place = Path(folder).resolve()
        sound = _read_sound(case.target, place)
        damaged = place / next(iter(case.target.files))
        damaged.write_bytes(case.data)
        answer = _answer_in_child(case, place, damaged)
    outcome, text = _judge(case, answer, sound)
    return Finding(case, outcome, text, answer.get("megabytes", 0.0))


def _read_sound(target: Target, folder: Path) -> str:
    """Write the sound files, and return the hash of what they hold, as another program finds it where there is one."""
    for name, content in target.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    content = target.read(folder) if target.decode is None else target.decode(folder / next(iter(target.files)))
    if content is None:
        raise RuntimeError(f"{target.name}: the sound files cannot be read")
    return hash_content(content)


def _answer_in_child(case: Case, folder: Path, damaged: Path) -> dict[str, Any]:
    """Read the damaged file in a child, and return what it answers; what is missing, it did not live to answer."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(case, folder, damaged, send)
    os.close(send)
    lines, deadline = b"", time.monotonic() + SECONDS
    with os.fdopen(receive, "rb", buffering=0) as stream:
        while (left := deadline - time.monotonic()) > 0 and select.select([stream], [], [], left)[0]:
            block = stream.read(2**16)
            if not block:
                break
            lines += block
    late = time.monotonic() >= deadline
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    answer: dict[str, Any] = {"late": late, "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}
    for line in lines.decode().splitlines():
        answer |= json.loads(line)
    return answer


def _answer(case: Case, folder: Path, damaged: Path, send: int) -> None:
    """Read, tell what came of it, then let another program read and tell that; never returns."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    before = _peak_megabytes()

    def tell(**words: Any) -> None:
        os.write(send, (json.dumps(words) + "\n").encode())

    try:
        found = case.target.read(folder)
        tell(read=None if found is None else hash_content(found))
    except FeatbenchError as error:
        tell(error=str(error), named=damaged.name in str(error))
    except BaseException as error:  # whatever a reader lets through is what is looked for
        tell(internal=f"{type(error).__name__}: {error}")
    tell(megabytes=_peak_megabytes() - before)
    try:
        tell(truth=None if case.target.decode is None else hash_content(case.target.decode(damaged)))
    except BaseException as error:  # the other program need not be careful
        tell(truth=None, other=f"{type(error).__name__}: {error}")
    os._exit(0)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def hash_content(content: Content) -> str:
    """Return a hash of arrays, with their shapes and types, and of other things by how they are written."""
    digest = hashlib.sha256()
    for part in content:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.shape} {part.dtype}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def _judge(case: Case, answer: dict[str, Any], sound: str) -> tuple[str, str]:
    """Return the outcome of a case and a line about it."""
    if "megabytes" not in answer:
        return ("hang", f"after {SECONDS:g} s") if answer["late"] else ("internal", f"signal {answer['signal']}")
    if answer["megabytes"] > MEGABYTES:
        return "memory", f"{answer['megabytes']:.0f} MB"
    if "internal" in answer:
        return "internal", answer["internal"]
    if "error" in answer:
        return "error" if answer["named"] else "unnamed", answer["error"]
    if answer["read"] is None:
        return "error", "set aside"
    if answer["read"] == sound:
        return "same", ""
    if case.target.protected and not case.sums_right:
        return "wrong", "other content, though a checksum covers it"
    if answer.get("truth") is None:
        return "unjudged", answer.get("other", "")
    return ("other", "") if answer["truth"] == answer["read"] else ("wrong", "another program finds something else")


def describe(findings: list[Finding], seed: int) -> dict[str, Any]:
    """Return the counts as JSON, with every case that is a fault or could not be judged."""
    counts = {
        name: Counter(f.outcome for f in findings if f.case.target.name == name) for name in _list_names(findings)
    }
    odd = [finding for finding in findings if finding.outcome in (*FAULTS, "unjudged")]
    return {
        "seed": seed,
        "cases": len(findings),
        "total": Counter(finding.outcome for finding in findings),
        "targets": counts,
        "largest MB": round(max(finding.megabytes for finding in findings), 1),
        "odd": [{"case": f"{f.case.target.name}:{f.case.number}", "outcome": f.outcome, "text": f.text} for f in odd],
    }


def _list_names(findings: list[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.case.target.name for finding in findings))


def render(findings: list[Finding], seed: int, seconds: float) -> str:
    """Return the page: the counts of each reader, their meaning, and what is odd."""
    known = describe(findings, seed)
    bombs = sum((counts for name, counts in known["targets"].items() if name.startswith("bomb")), Counter())
    readers = {name: counts for name, counts in known["targets"].items() if not name.startswith("bomb")}
    readers |= {"bombs": bombs} if bombs else {}
    rows = [[name, *(counts[outcome] or "" for outcome in OUTCOMES)] for name, counts in readers.items()]
    rows.append(["all", *(known["total"][outcome] for outcome in OUTCOMES)])
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, Pillow {PIL.__version__}"
    lines = [
        "# Readers on damaged files",
        "",
        f"{len(findings)} damaged files, seed {seed}, {seconds:.0f} s; {versions}. `python benchmarks/fuzz_readers.py` "
        f"repeats it. The largest amount of memory that a case took was {known['largest MB']:.0f} MB.",
        "",
        tabulate(rows, ["reader", *OUTCOMES], tablefmt="github"),
        "",
        *(f"- **{outcome}**: {meaning}." for outcome, meaning in OUTCOMES.items()),
        "",
    ]
    if known["odd"]:
        lines += ["What is not an error and not proven:", ""]
        lines += [f"- `{odd['case']}`: {odd['outcome']}: {odd['text'][:200]}" for odd in known["odd"]] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
