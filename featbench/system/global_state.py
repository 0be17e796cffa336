"""Global state of the process that plugins may change, and that others must find as it was."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch


@contextmanager
def keep_global_state(*, environment: bool = True) -> Iterator[None]:
    """Give back, after the block, the settings of torch, numpy and Python that it changes.

    So what a plugin sets for itself, its default type or its number of threads, does not change what others compute.
    environment: give back the environment's variables too; a plugin may need those that it sets when it is loaded.
    """
    before = _read_settings()
    variables, folder = dict(os.environ), _find_folder()
    try:
        yield
    finally:
        after = _read_settings()
        for name, (_, write) in SETTINGS.items():
            if not _is_same(before[name], after[name]):
                write(before[name])
        if environment and dict(os.environ) != variables:
            os.environ.clear()
            os.environ.update(variables)
        if folder is not None and _find_folder() != folder:
            with suppress(OSError):  # the folder may be gone
                os.chdir(folder)


def _set_filters(filters: Any) -> None:
    warnings.filters = list(filters)


def _set_deterministic(mode: int) -> None:
    torch.set_deterministic_debug_mode(mode)


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "Python's generator": (random.getstate, random.setstate),
    "numpy's generator": (np.random.get_state, np.random.set_state),
    "torch's generator": (torch.get_rng_state, torch.set_rng_state),
    "default type": (torch.get_default_dtype, torch.set_default_dtype),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "gradients": (torch.is_grad_enabled, lambda on: torch.set_grad_enabled(on)),
    "precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, _set_deterministic),
    "numpy's errors": (np.geterr, lambda kinds: np.seterr(**kinds)),
    "numpy's printing": (np.get_printoptions, lambda options: np.set_printoptions(**options)),
    "warnings": (lambda: list(warnings.filters), _set_filters),
}
"""How each setting is read and written."""


def _read_settings() -> dict[str, Any]:
    return {name: read() for name, (read, _) in SETTINGS.items()}


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)


def _find_folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None
