"""Which implementation of the operations a device gets."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from featbench.errors import DeviceError
from featbench.operations.precision import Precision
from featbench.operations.reference import Reference


def select_operations(device: str | torch.device, precision: Precision = "float32") -> Reference:
    """Return the operations for a device: Triton's kernels on CUDA, cache-conscious torch on a CPU.

    There is no fallback: raises `DeviceError` for CUDA that is not there or has no Triton, and for any other device.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        from featbench.operations.host import HostOperations

        return HostOperations(precision)
    if kind != "cuda":
        raise DeviceError(f"device {device} has no operations here: it is cpu or cuda")
    if not torch.cuda.is_available():
        raise DeviceError("torch finds no CUDA device: use --device cpu or --device auto")
    if find_spec("triton") is None:
        raise DeviceError(
            "extraction on CUDA runs Triton kernels, and triton is not installed: pip install triton, or --device cpu"
        )
    from featbench.cuda.triton_operations import TritonOperations

    return TritonOperations(precision)


def resolve_device(name: str) -> torch.device:
    """Return the device of `auto`, `cpu` or `cuda`; a `DeviceError` if CUDA is asked for and absent."""
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}: it is auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("CUDA was asked for, but torch finds no CUDA device: use --device cpu or --device auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")
