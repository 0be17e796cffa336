"""Seeds for every purpose, derived from the one that the user gives."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SEED_BITS = 32
"""Bits of the seeds that plugins are given."""


def derive_seed(seed: int, *purpose: object) -> int:
    """Return a seed in [0, 2^63) that depends on `seed` and `purpose` alone, whatever else was drawn before.

    A hash, and not seed + 1, seed + 2, …: streams of different purposes must not be those of a neighbouring seed.
    """
    # SHA-256 rather than `hash`, which Python salts anew in every process.
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1  # torch's seeds are signed


def seed_for(plugin: type, seed: int) -> int:
    """Return the seed that a learner or a classifier is given: the low 32 bits of `seed`.

    scikit-learn and numpy's older generators take no more, and torch's generator of the CPU uses no more. A class that
    sets `seed_bits` itself is given as many bits; subclasses do not inherit it.
    """
    # Learners and classifiers that hand their seed to `numpy.random.default_rng` draw other numbers from fewer bits:
    # the built-in ones among them keep the 63 that their published results were drawn with.
    bits: int = vars(plugin).get("seed_bits", SEED_BITS)
    return seed & ((1 << bits) - 1)


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
