"""How much memory a solver may take: blocks of fixed size, and an error before anything too large is allocated."""

from __future__ import annotations

import torch

from featbench.errors import UsageError
from featbench.system.memory import available_memory

BLOCK = {"cpu": 2**18, "cuda": 2**26}
"""Codes of one block: few enough that a block stays in the cache of a CPU, enough to fill a GPU."""

TEMPORARIES = 16
"""Arrays of a block's size, in float64, that a solver holds at once, at most."""


def choose_block_rows(atoms: int, device: torch.device) -> int:
    """Return how many patches are coded together: as many as have BLOCK codes, at least 1."""
    return max(BLOCK.get(device.type, BLOCK["cpu"]) // atoms, 1)


def require_coding_memory(patches: int, atoms: int, pixels: int, itemsize: int, device: torch.device) -> None:
    """Raise UsageError unless codes, Gram matrix and temporaries fit into the memory that is available."""
    codes = patches * atoms * itemsize
    # The Gram matrix and the dictionary in float64, of 8 bytes a value, both taken to be as large as the larger one.
    gram = 2 * 8 * atoms * max(atoms, pixels)
    block = TEMPORARIES * 8 * min(patches, choose_block_rows(atoms, device)) * max(atoms, pixels)
    needed, available = codes + gram + block, available_memory(device)
    if needed > available:
        raise UsageError(
            f"{patches} patches over {atoms} atoms need {_gib(needed)} of memory on {device} (codes {_gib(codes)}, "
            f"Gram matrix {_gib(gram)}), and {_gib(available)} are available: code fewer patches a call, "
            "or use fewer atoms"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
