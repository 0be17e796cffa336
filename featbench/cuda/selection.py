"""Which implementation of the operations a device gets."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from featbench.cuda.reference import Precision, Reference
from featbench.errors import DeviceError


def select(device: str | torch.device, precision: Precision = "float32") -> Reference:
    """Return the operations for a device: Triton's kernels on CUDA, cache-conscious torch on a CPU.

    There is no fallback: raises `DeviceError` for CUDA that is not there or has no Triton, and for any other device.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        from featbench.cuda.host import Host

        return Host(precision)
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
