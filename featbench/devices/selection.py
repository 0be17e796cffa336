"""Which device computes, and with which implementation of the operations."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from featbench.errors import DeviceError
from featbench.operations.precision import Precision
from featbench.operations.reference import Reference


def select_operations(device: str | torch.device, precision: Precision = "float32") -> Reference:
    """Return the operations for a device: Triton's kernels on CUDA, cache-conscious torch on a CPU.

    Raises `DeviceError` for CUDA without a device or without Triton, and for any other device. There is no fallback: it
    would be slower by an order of magnitude without anybody noticing, and the key of a result names the device.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        # Imported late, here and below: triton is installed only where there is CUDA.
        from featbench.operations.host import HostOperations

        return HostOperations(precision)
    if kind != "cuda":
        raise DeviceError(f"device {device} has no operations here: it is cpu or cuda")
    if not torch.cuda.is_available():
        raise DeviceError("torch finds no CUDA device: use --device cpu or --device auto")
    # Looked up before anything imports it, so that the error says what to do.
    if find_spec("triton") is None:
        raise DeviceError(
            "extraction on CUDA runs Triton kernels, and triton is not installed: pip install triton, or --device cpu"
        )
    from featbench.cuda.triton_operations import TritonOperations

    return TritonOperations(precision)


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` stands for; `auto` is CUDA where torch finds it.

    Raises `DeviceError` for any other name, and for `cuda` where torch finds no CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}: it is auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("CUDA was asked for, but torch finds no CUDA device: use --device cpu or --device auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")
