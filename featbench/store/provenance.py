"""Provenance: what code and which machine gave a result, recorded once a run and referenced by its hash."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from featbench.store.keys import compute_code_version
from featbench.store.store import Store
from featbench.system.hashing import content_hash

PACKAGES = ("featbench", "torch", "numpy", "scikit-learn", "pillow", "pluggy", "safetensors")

CHECKOUT = Path(__file__).parents[2]
"""The folder that holds featbench's own; a git checkout where featbench was not installed from a package."""

SOURCES = ("featbench", "pyproject.toml", "constraints.txt")
"""What has to be committed for a run to be clean; results and leaderboards need not be."""


def describe_run() -> dict[str, Any]:
    """Return featbench's commit and whether it was edited since, versions, processor, GPU and threads."""
    commit, dirty = _read_git_state(CHECKOUT)
    return {
        "commit": commit,
        "dirty": dirty,
        "numerics": compute_code_version(),
        "python": platform.python_version(),
        "versions": find_versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _read_processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
    }


def find_versions() -> dict[str, str | None]:
    """Return the versions of featbench and of what it computes with; None for a package that is not installed."""
    return {name: _find_version(name) for name in PACKAGES}


def record_run(store: Store) -> str:
    """Keep the provenance of this run in the store; returns the hash that results refer to it by."""
    document = describe_run()
    key = content_hash(document)
    # A thousand results of one run share one record.
    if store.read_record("provenance", key) is None:
        store.write_record("provenance", key, document)
    return key


def _read_git_state(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of featbench's own checkout, and whether its sources differ from it; None where installed."""
    # Git would look for a checkout further up: an installed featbench may lie inside somebody else's.
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *SOURCES))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read_processor() -> str:
    """Return the name of the processor as the kernel gives it: Python's own is empty or "x86_64" on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
