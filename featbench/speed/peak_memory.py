"""How much memory a call takes at its peak, on a device."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

PROCESS = Path("/proc/self")

RESET_PEAK = "5"
"""What Linux is told, through clear_refs, to forget the largest resident size so far."""


def measure_peak(device: torch.device, call: Callable[[], T]) -> tuple[T, int | None]:
    """Return what `call` returns, and the bytes that it took at its peak; None where the system does not tell.

    On CUDA all that torch's allocator held; on a CPU by how much the resident size of this process grew (Linux).
    """
    gc.collect()  # what only cycles hold is no part of it
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        value = call()
        torch.cuda.synchronize(device)
        return value, int(torch.cuda.max_memory_allocated(device))
    before = _resident_from_here()
    value = call()
    after = None if before is None else _status("VmHWM")
    return value, None if before is None or after is None else max(0, after - before)


def _resident_from_here() -> int | None:
    """Return the resident bytes of this process, after its free memory was given back; its peak counts from here."""
    if sys.platform != "linux":
        return None
    # Free memory that the allocator has kept would be taken again without the process growing.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
    if trim is not None:
        trim(0)
    try:
        (PROCESS / "clear_refs").write_text(RESET_PEAK)
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else 1024 * int(found.group(1))
