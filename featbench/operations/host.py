"""The operations on a CPU: maps last in memory, each operation in place, tanh inside the convolution.

A stage on a CPU waits for memory, not for arithmetic: of plain torch's 18 ms an image for `64F9-Rabs-N-PA10/5`, the
convolution itself takes less than 1 ms. All that this file does differently from `Reference` saves passes over maps, or
page faults.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import gcd

import torch
from torch import Tensor
from torch.nn import functional

from featbench.operations.precision import HALF_DTYPES, Precision
from featbench.operations.reference import BankWeights, Reference, Responses, is_tracked_by_autograd
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.specs import PoolingSpec
from featbench.system.memory import require_memory

KEPT_BYTES = 2**25 - 2**14
"""Size of the block whose release makes glibc keep freed memory: its limit of 32 MiB, less room for the header."""

MAPS_HELD = 2
"""Copies of a filter bank's maps that are held at once, at most."""


class HostOperations(Reference):
    """The operations on a CPU, in float32; under autograd, and in other types, those of the reference.

    Each value is computed from its own image by the same instructions, whatever the batch and the number of threads.
    """

    name = "fused torch"

    def __init__(self, precision: Precision = "float32") -> None:
        super().__init__(precision)
        _keep_freed_memory()

    def filter_bank(self, x: Tensor, bank: BankWeights, *, moments: bool = False) -> Responses:
        """Filter x [n, maps, h, w]; tanh is applied by the convolution itself, gain and |·| in place."""
        if is_tracked_by_autograd(x, *bank.trainable) or x.dtype != torch.float32:
            # What follows overwrites values that autograd would need to go back.
            return super().filter_bank(x, bank, moments=moments)
        _require_memory_for_maps(x, bank)
        groups = 1 if bank.table is None else len(bank.table)
        seen = x if bank.table is None else x[:, bank.table.flatten()]
        convolve = find_tanh_convolution() if bank.gain is not None else functional.conv2d
        # With maps last in memory oneDNN vectorises over maps, and the sums over maps that N needs read in order.
        weight = to_channels_last(self._round_operand(bank.weight))
        y = convolve(to_channels_last(self._round_operand(seen)), weight, bank.bias, groups=groups)
        last = y.permute(0, 2, 3, 1)
        # Most learners leave all gains at 1, and the product is one more pass over all maps.
        if bank.gain is not None and not bool((bank.gain == 1).all()):
            last.mul_(bank.gain)
        if bank.rectified:
            last.abs_()
        # Of the float32 maps, not of those rounded to 16 bits: as on a GPU, where they are summed in registers.
        mean, square = _compute_moments(last) if moments else (None, None)
        kept = y.to(HALF_DTYPES[self.precision]) if self.precision in HALF_DTYPES else y
        return Responses(kept, mean, square, own=True)

    def statistics(self, responses: Responses, norm: LocalNormalisation) -> tuple[Tensor | None, Tensor | None]:
        """Return what N subtracts and what it divides by, [n, 1, h, w] each, or None."""
        y = responses.y
        if responses.mean is None and y.dtype == torch.float32 and not is_tracked_by_autograd(y):
            responses = Responses(y, *_compute_moments(y.permute(0, 2, 3, 1)))
        return super().statistics(responses, norm)

    def normalise_and_pool(
        self, responses: Responses, shift: Tensor | None, scale: Tensor | None, spec: PoolingSpec
    ) -> Tensor:
        """Pool (y - m)/s, where N's mean m and deviation s are the same for all maps.

        The average is linear: PA((y - m)/s)_k = PA(y_k/s) - PA(m/s). So m is subtracted once from the small pooled maps
        instead of from every map at full size.
        """
        if spec.over_maps or spec.kind not in "AM" or is_tracked_by_autograd(responses.y, shift, scale):
            return super().normalise_and_pool(responses, shift, scale, spec)
        if spec.kind == "M":
            y = self.normalise(responses, shift, scale)
            return functional.max_pool2d(y, spec.size, spec.stride)
        pooled = _average_pool(self.normalise(responses, None, scale), spec.size, spec.stride)
        if shift is None:
            return pooled
        return pooled.sub_(_average_pool(shift if scale is None else shift / scale, spec.size, spec.stride))

    def normalise(self, responses: Responses, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        """Return (y - shift) / scale, written over y where nobody else holds it."""
        y = responses.y
        if not responses.own or y.dtype != torch.float32 or is_tracked_by_autograd(y, shift, scale):
            return super().normalise(responses, shift, scale)
        if shift is not None:
            y.sub_(shift)
        # One division a pixel and a product for each of its maps: dividing each map takes twice as long.
        return y if scale is None else y.mul_(scale.reciprocal())

    def sparse_step(self, codes: Tensor, mixing: Tensor, drive: Tensor, threshold: Tensor) -> Tensor:
        """Return h_θ(b + z S); a single group is one matrix product, its soft threshold in place."""
        if is_tracked_by_autograd(codes, mixing, drive, threshold) or mixing.shape[0] > 1:
            return super().sparse_step(codes, mixing, drive, threshold)
        moved = torch.addmm(drive[:, 0], codes[:, 0], mixing[0]).unsqueeze(1)
        # The sign is taken before `abs_` overwrites it: Python evaluates the object of a call before its arguments.
        return moved.sign().mul_(moved.abs_().sub_(threshold).clamp_min_(0))


def _require_memory_for_maps(x: Tensor, bank: BankWeights) -> None:
    """Raise `MemoryError` if the maps that a filter bank makes of x [n, maps, h, w] cannot fit."""
    filters, _, size, _ = bank.weight.shape
    needed = MAPS_HELD * x.element_size() * x.shape[0] * filters * (x.shape[2] - size + 1) * (x.shape[3] - size + 1)
    require_memory(needed, x.device, f"{filters} maps")


def to_channels_last(x: Tensor) -> Tensor:
    """Return x [n, maps, h, w] with its maps last in memory, torch's `channels_last`; the shape stays."""
    _, maps, height, width = x.shape
    if maps > 1:
        return x.contiguous(memory_format=torch.channels_last)
    # Of one map both formats hold the same numbers, so that `contiguous` leaves the strides of the other format. oneDNN
    # reads the format from the strides, and would answer with maps first.
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))


def _compute_moments(last: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and mean square over maps, [n, 1, h, w], of y [n, h, w, maps]."""
    # Two passes, neither of which writes: `norm` squares as it sums, where y.square().mean() would store the squares of
    # all maps first, and `var_mean` takes longer than both.
    square = torch.linalg.vector_norm(last, dim=3).square_().div_(last.shape[3])
    return last.mean(dim=3).unsqueeze(1), square.unsqueeze(1)


def _average_pool(y: Tensor, size: int, stride: int) -> Tensor:
    """Average over windows of `size` every `stride`, in two steps where that is exact.

    With g the greatest common divisor of both, a window is a whole number of g×g squares that all windows share: 10/5
    is 5/5 and then 2/1. The first step reads each value once; direct pooling reads it (size/stride)² = 4 times.
    """
    common = gcd(size, stride)
    if common > 1:
        y = functional.avg_pool2d(y, common, common)
    return y if size == stride else functional.avg_pool2d(y, size // common, stride // common)


@cache
def _keep_freed_memory() -> None:
    """Make glibc's allocator keep up to 64 MiB of freed memory for the next batch.

    By default it returns large blocks to the system at once, and every batch faults in all its pages again: 1,270 page
    faults an image where 13 are left with this, which take longer than the arithmetic.
    """
    # glibc adapts: when a block that it got by mmap is freed, its size becomes the new threshold for using mmap (up to
    # 32 MiB), and twice that what may stay free at the top of the heap (mallopt(3), M_MMAP_THRESHOLD). So one block of
    # nearly 32 MiB, freed right here, is enough. Other allocators, as musl's, are not changed by it.
    torch.empty(KEPT_BYTES, dtype=torch.uint8)


@cache
def find_tanh_convolution() -> Callable[..., Tensor]:
    """Return a function that convolves and applies tanh: one oneDNN primitive if this torch has it, else two calls.

    Both take x [n, maps, h, w], weight, bias and groups, and agree to 1e-6.
    """

    def apart(x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
        return functional.conv2d(x, weight, bias, groups=groups).tanh_()

    def together(x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
        padding, stride, dilation = [0, 0], [1, 1], [1, 1]
        # oneDNN applies tanh to sums that are still in registers. On some CPUs torch's own tanh takes three times as
        # long as the whole convolution.
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, dilation, groups, "tanh", [], ""
        )
        return found

    # The operator is private to torch (its compiler calls it), and may vanish or change in any release. So it is tried
    # on a small example, with groups and with values where tanh is steep and where it saturates.
    example = torch.linspace(-2, 2, 36).view(1, 4, 3, 3), torch.linspace(-1, 1, 32).view(4, 2, 2, 2), torch.ones(4)
    try:
        agree = torch.allclose(together(*example, groups=2), apart(*example, groups=2), rtol=1e-6, atol=1e-6)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        agree = False
    return together if agree else apart
