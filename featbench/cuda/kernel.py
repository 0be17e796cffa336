"""How kernels are written and launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor


def kernel(function: Callable[..., Any]) -> Any:
    """Make a Triton kernel, or what kernels call, of a function; in a file whose annotations are not strings."""
    return triton.jit(function)


def launch(kernel: Any, programs: int, first: Tensor, /, *arguments: Any, **options: Any) -> None:
    """Run so many programs of a kernel on the device of its first argument; none are no launch."""
    if programs > 0:
        with torch.cuda.device(first.get_device()):
            kernel[(programs,)](first, *arguments, **options)


def ceil_div(count: int, size: int) -> int:
    """Return how many blocks of `size` cover `count`."""
    return -(-count // size)


def next_power_of_two(count: int, least: int = 1) -> int:
    """Return the smallest power of two that is neither below `count` nor below `least`."""
    return max(least, 1 << (count - 1).bit_length())


def make_contiguous(x: Tensor | None) -> Tensor | None:
    """Return a tensor as kernels read it, if there is one."""
    return None if x is None else x.contiguous()


def send(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device, without waiting for what runs there."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def to_nhwc(y: Tensor) -> Tensor:
    """Return maps y [n, maps, h, w] as [n, h, w, maps], contiguous; a copy only where they do not lie so."""
    return y.permute(0, 2, 3, 1).contiguous()
