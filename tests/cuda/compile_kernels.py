"""Compile every kernel that the operations launch, for a GPU that need not be there, and print their names."""

import inspect

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from featbench.cuda import (
    bank_kernels,
    descriptor_kernels,
    image_kernels,
    normalization_kernels,
    pooling_kernels,
    sparse_kernels,
)
from featbench.cuda.triton_operations import TritonOperations
from featbench.features.descriptors import HOG, SIFT
from featbench.operations.reference import BankWeights, Responses
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.specs import PoolingSpec

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.int64: "*i64",
}
compiled = {}


def compile(kernel, programs, *arguments, num_warps=4, num_stages=3, **constants):
    """Compile a kernel as its launch would: what is None, and numbers that are 1, become constants."""
    named = inspect.signature(kernel.fn).bind(*arguments, **constants).arguments
    signature = {
        name: TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        for name, value in named.items()
        if name not in constants and (isinstance(value, torch.Tensor) or value not in (None, 1))
    }
    constants = {name: value for name, value in named.items() if name not in signature}
    key = kernel.fn.__name__, str(signature), str(constants)
    if key not in compiled:
        source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
        options = {"num_warps": num_warps, "num_stages": num_stages}
        compiled[key] = triton.compile(source, target=TARGET, options=options)


def bank(operations, maps, filters, size, side, gain):
    """Compile a filter bank."""
    weight, bias = torch.zeros(filters, maps, size, size), torch.zeros(filters)
    weights = BankWeights(weight, bias, None, bias if gain else None, gain)
    return operations.filter_bank(torch.zeros(2, maps, side, side), weights, moments=gain)


def normalise(operations, responses):
    """Compile every N, and poolings."""
    halves = LocalNormalisation(5, divisive=False), LocalNormalisation(subtractive=False, zeros=True)
    for norm in (LocalNormalisation(), *halves):
        shift, scale = operations.statistics(responses, norm)
    for spec in (PoolingSpec("A", 3, 2), PoolingSpec("M", 1, 1)):
        operations.normalise_and_pool(responses, shift, scale, spec)
        operations.normalise_and_pool(responses, None, None, spec)


def sparse(operations):
    """Compile the steps of sparse coding."""
    for rows, groups, units in [(9, 2, 33), (1, 1, 1)]:
        drive = torch.zeros(rows, groups, units)
        operations.sparse_step(drive, torch.zeros(groups, units, units), drive, drive[0])
    cases = [(torch.float32, 256, 25, False), (torch.float64, 1000, 1, True), (torch.float64, 1, 0, False)]
    for dtype, units, steps, nonnegative in cases:
        codes, coupling = torch.zeros(2, units, dtype=dtype), torch.zeros(units, units, dtype=dtype)
        operations.coordinate_steps(codes, codes, coupling, 0.1, steps, nonnegative=nonnegative)
        operations.momentum_step(codes, codes, codes, codes[:, :1])


def images(operations):
    """Compile what images meet first, and descriptors."""
    flat, start = torch.zeros(400, dtype=torch.uint8), np.array([0])
    for side, made, lcn in [(20, 12, 1.0), (20, 20, None), (9, 1, 0.5)]:
        shapes = np.array([[side, side]])
        image_kernels.normalise_images(flat, start, shapes, (made, made), standardise=side == 20, lcn=lcn)
    for kind, size, step in [(SIFT, 16, 8), (HOG, 16, 1), (SIFT, 40, 1)]:
        operations.descriptors(torch.zeros(2, 40, 40), kind, size, step)


for module in (
    bank_kernels, descriptor_kernels, image_kernels, normalization_kernels, pooling_kernels, sparse_kernels
):  # fmt: skip
    module.launch = compile
single, half = TritonOperations(), TritonOperations("bf16")
normalise(single, bank(single, 1, 64, 9, 20, gain=True))
normalise(half, bank(half, 3, 130, 3, 7, gain=True))
normalise(single, Responses(torch.zeros(2, 65, 3, 3)))
bank(single, 3, 130, 3, 3, gain=False)
bank(half, 2, 1, 2, 7, gain=True)
bank(single, 6, 64, 3, 9, gain=True)
bank(half, 6, 130, 2, 2, gain=False)
sparse(single)
images(single)
print(*sorted({name for name, *_ in compiled}))
