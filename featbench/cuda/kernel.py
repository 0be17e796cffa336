"""How kernels are written and launched, and what all of them need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor


def kernel(function: Callable[..., Any]) -> Any:
    """Make a Triton kernel, or a function that kernels call, of a Python function.

    Its file must not import `annotations` from `__future__`: Triton reads `tl.constexpr` from the annotations, which
    would be strings there.
    """
    return triton.jit(function)


def launch(kernel: Any, programs: int, first: Tensor, /, *arguments: Any, **options: Any) -> None:
    """Run so many programs of a kernel on the device of its first argument; with none, nothing is launched."""
    # CUDA refuses a grid of zero programs, which is what no images come to.
    if programs > 0:
        # Triton launches on the current device, whatever device the tensors are on.
        with torch.cuda.device(first.get_device()):
            kernel[(programs,)](first, *arguments, **options)


def ceil_div(count: int, size: int) -> int:
    """Return how many blocks of `size` cover `count`: the quotient, rounded up."""
    return -(-count // size)


def next_power_of_two(count: int, least: int = 1) -> int:
    """Return the smallest power of two that is at least `count` and `least`, itself a power of two.

    Triton's blocks have sides of powers of two; masks leave out what is too much.
    """
    return max(least, 1 << (count - 1).bit_length())


def make_contiguous(x: Tensor | None) -> Tensor | None:
    """Return a tensor contiguous, as kernels address it; None stays None."""
    return None if x is None else x.contiguous()


def send(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device, without waiting for what runs there."""
    # Only pinned memory is copied asynchronously: from pageable memory CUDA copies while the CPU waits.
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def to_nhwc(y: Tensor) -> Tensor:
    """Return maps y [n, maps, h, w] as [n, h, w, maps], contiguous; a view where they are `channels_last` already."""
    return y.permute(0, 2, 3, 1).contiguous()
