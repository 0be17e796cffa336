"""How much memory is free, and whether what is about to be computed fits into it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

UNCHECKED_BYTES = 2**30
"""Requests up to this size are not checked: asking the system costs more than it protects from."""


def available_memory(device: torch.device) -> int:
    """Return the bytes that can be allocated on a device without swapping, as far as the system reports them."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text("ascii").splitlines():
            # Not MemFree: the page cache, which MemAvailable counts too, is given up as soon as a process needs it.
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_memory(needed: int, device: torch.device, purpose: str) -> None:
    """Raise `MemoryError` if `needed` bytes for `purpose` cannot be allocated on `device` now.

    Linux overcommits: it grants an allocation that it cannot back with memory, and kills the process once the pages are
    written. Only a question in advance turns that into an error from which a caller can recover with a smaller batch.
    """
    if needed > UNCHECKED_BYTES and needed > available_memory(device):
        raise MemoryError(f"{needed / 2**30:.1f} GiB are needed for {purpose}")
