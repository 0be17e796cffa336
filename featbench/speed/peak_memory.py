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
"""Written to clear_refs, this makes Linux reset VmHWM, the largest resident size so far (proc(5))."""


def measure_peak(device: torch.device, call: Callable[[], T]) -> tuple[T, int | None]:
    """Return what `call` returns, and the bytes that it took at its peak; None where the system does not report them.

    On CUDA all that torch's allocator held; on a CPU by how much the resident size of this process grew (Linux).
    """
    # What only reference cycles keep alive could be freed during the call, and hide what it takes.
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        value = call()
        torch.cuda.synchronize(device)
        return value, int(torch.cuda.max_memory_allocated(device))
    before = _reset_peak()
    value = call()
    after = None if before is None else _read_status("VmHWM")
    return value, None if before is None or after is None else max(0, after - before)


def _reset_peak() -> int | None:
    """Return the resident bytes of this process, and let its peak count from here; None if that is not possible."""
    if sys.platform != "linux":
        return None
    # The allocator keeps freed memory, which the call could use without the process growing: return it to the system.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
    if trim is not None:
        trim(0)
    try:
        (PROCESS / "clear_refs").write_text(RESET_PEAK)
    except OSError:
        return None
    return _read_status("VmRSS")


def _read_status(field: str) -> int | None:
    """Return a field of /proc/self/status in bytes, None where there is no such field or file."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else 1024 * int(found.group(1))
