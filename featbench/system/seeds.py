"""Seeds for every purpose, derived from the one that the user gives."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """Return a seed in [0, 2^63) that depends on `seed` and `purpose` alone, whatever else was drawn before.

    A hash, and not seed + 1, seed + 2, …: streams of different purposes must not be those of a neighbouring seed.
    """
    # SHA-256 rather than `hash`, which Python salts anew in every process.
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1  # torch's seeds are signed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch inside the block, and restore their states after it.

    So a plugin that draws from them, against its contract, is reproducible all the same, and what others draw after it
    does not depend on it.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # takes 32 bits at most
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
