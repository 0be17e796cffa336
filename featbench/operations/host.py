"""The operations on a CPU: maps last in memory, what comes next computed in place, tanh inside the convolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import gcd

import torch
from torch import Tensor
from torch.nn import functional

from featbench.operations.precision import HALF_DTYPES, Precision
from featbench.operations.reference import BankWeights, Reference, Responses, is_tracked_by_autograd
from featbench.stages.architecture import PoolingSpec
from featbench.stages.normalization import LocalNormalisation
from featbench.system.memory import require_memory

KEPT_BYTES = 2**25 - 2**14
"""The largest block whose release teaches glibc's allocator to keep memory, less a margin."""

MAPS_HELD = 2
"""Copies of a filter bank's maps that are held at once, at most."""


class Host(Reference):
    """The operations on a CPU, in float32.

    Each value is computed from its own image by the same instructions, whatever the batch and the number of threads.
    """

    name = "fused torch"

    def __init__(self, precision: Precision = "float32") -> None:
        super().__init__(precision)
        _keep_memory()

    def filter_bank(self, x: Tensor, bank: BankWeights, *, moments: bool = False) -> Responses:
        """Filter x, its non-linearity done while the maps are in the cache, and then overwritten in place."""
        if is_tracked_by_autograd(x, *bank.trainable) or x.dtype != torch.float32:
            return super().filter_bank(x, bank, moments=moments)
        _require_memory_for_maps(x, bank)
        groups = 1 if bank.table is None else len(bank.table)
        seen = x if bank.table is None else x[:, bank.table.flatten()]
        filtered = find_tanh_convolution() if bank.gain is not None else functional.conv2d
        weight = to_channels_last(self._rounded(bank.weight))
        y = filtered(to_channels_last(self._rounded(seen)), weight, bank.bias, groups=groups)
        last = y.permute(0, 2, 3, 1)
        if bank.gain is not None and not bool((bank.gain == 1).all()):
            last.mul_(bank.gain)
        if bank.rectified:
            last.abs_()
        mean, square = _moments(last) if moments else (None, None)
        kept = y.to(HALF_DTYPES[self.precision]) if self.precision in HALF_DTYPES else y
        return Responses(kept, mean, square, own=True)

    def statistics(self, responses: Responses, norm: LocalNormalisation) -> tuple[Tensor | None, Tensor | None]:
        """Return what N subtracts and what it divides by."""
        y = responses.y
        if responses.mean is None and y.dtype == torch.float32 and not is_tracked_by_autograd(y):
            responses = Responses(y, *_moments(y.permute(0, 2, 3, 1)))
        return super().statistics(responses, norm)

    def normalise_and_pool(
        self, responses: Responses, shift: Tensor | None, scale: Tensor | None, spec: PoolingSpec
    ) -> Tensor:
        """Pool; the average of (y - m)/s is that of y/s less that of m/s, so that m meets one map alone."""
        if spec.over_maps or spec.kind not in "AM" or is_tracked_by_autograd(responses.y, shift, scale):
            return super().normalise_and_pool(responses, shift, scale, spec)
        if spec.kind == "M":
            y = self.normalise(responses, shift, scale)
            return functional.max_pool2d(y, spec.size, spec.stride)
        pooled = _average(self.normalise(responses, None, scale), spec.size, spec.stride)
        if shift is None:
            return pooled
        return pooled.sub_(_average(shift if scale is None else shift / scale, spec.size, spec.stride))

    def normalise(self, responses: Responses, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """Return (y - shift) / scale, in the place of y where nobody else holds it."""
        y = responses.y
        if not responses.own or y.dtype != torch.float32 or is_tracked_by_autograd(y, shift, scale):
            return super().normalise(responses, shift, scale)
        if shift is not None:
            y.sub_(shift)
        return y if scale is None else y.mul_(scale.reciprocal())

    def sparse_step(self, codes: Tensor, mixing: Tensor, drive: Tensor, threshold: Tensor) -> Tensor:
        """Take a step; a single group is one matrix product."""
        if is_tracked_by_autograd(codes, mixing, drive, threshold) or mixing.shape[0] > 1:
            return super().sparse_step(codes, mixing, drive, threshold)
        moved = torch.addmm(drive[:, 0], codes[:, 0], mixing[0]).unsqueeze(1)
        return moved.sign().mul_(moved.abs_().sub_(threshold).clamp_min_(0))


def _require_memory_for_maps(x: Tensor, bank: BankWeights) -> None:
    """Raise `MemoryError` if the maps that a filter bank makes of x [n, maps, h, w] cannot fit."""
    filters, _, size, _ = bank.weight.shape
    needed = MAPS_HELD * x.element_size() * x.shape[0] * filters * (x.shape[2] - size + 1) * (x.shape[3] - size + 1)
    require_memory(needed, x.device, f"{filters} maps")


def to_channels_last(x: Tensor) -> Tensor:
    """Return x [n, maps, h, w] with its maps last in memory; strides say so even where there is one map."""
    _, maps, height, width = x.shape
    if maps > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))


def _moments(last: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and mean square over maps, [n, 1, h, w], of y [n, h, w, maps]."""
    square = torch.linalg.vector_norm(last, dim=3).square_().div_(last.shape[3])
    return last.mean(dim=3).unsqueeze(1), square.unsqueeze(1)


def _average(y: Tensor, size: int, stride: int) -> Tensor:
    """Average over windows, of squares of the greatest common divisor first: 10/5 is 5/5 and then 2/1."""
    common = gcd(size, stride)
    if common > 1:
        y = functional.avg_pool2d(y, common, common)
    return y if size == stride else functional.avg_pool2d(y, size // common, stride // common)


@cache
def _keep_memory() -> None:
    """Have glibc keep what is freed, up to 64 MB: else every batch asks the system for its pages anew.

    Where a block got from the system is freed, glibc takes its size as the new bound for such blocks, and twice that
    as what it keeps. Other allocators take no notice.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8)


@cache
def find_tanh_convolution() -> Callable[..., Tensor]:
    """Return convolution and tanh, in one primitive of oneDNN where this torch has it; both give the same.

    The primitive applies tanh to values that are still in registers. It is no public function of torch, so it is tried
    on a small example first.
    """

    def apart(x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
        return functional.conv2d(x, weight, bias, groups=groups).tanh_()

    def together(x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
        places = [0, 0], [1, 1], [1, 1]
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *places, groups, "tanh", [], "")
        return found

    example = torch.linspace(-2, 2, 36).view(1, 4, 3, 3), torch.linspace(-1, 1, 32).view(4, 2, 2, 2), torch.ones(4)
    try:
        agree = torch.allclose(together(*example, groups=2), apart(*example, groups=2), rtol=1e-6, atol=1e-6)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        agree = False
    return together if agree else apart
