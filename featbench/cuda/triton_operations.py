"""The operations as Triton kernels: between two matrix products, maps are read once and written once.

A stage on a GPU waits for memory: `64F9-Rabs-N-PA10/5` needs 3 µs of arithmetic an image on an H200, and each pass over
its 64 maps of 135×135 in float32 takes another µs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from featbench.cuda import bank_kernels, descriptor_kernels, normalization_kernels, pooling_kernels, sparse_kernels
from featbench.cuda.kernel import to_nhwc
from featbench.errors import UsageError
from featbench.operations.precision import HALF_DTYPES
from featbench.operations.reference import BankWeights, Reference, Responses, is_tracked_by_autograd
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.oriented_gradients import Histograms
from featbench.stages.specs import PoolingSpec

FUSED_FAN_IN = 4
"""Most input maps of a bank that our own kernel convolves: a grey or a colour image. cuDNN convolves the others."""

FUSED_TAPS = 512
"""Most weights of a filter that our own kernel convolves."""


class TritonOperations(Reference):
    """The operations on CUDA; under autograd, and in types other than float32, those of the reference.

    Maps come out last in memory (`torch.channels_last`), as cuDNN's fast algorithms and the kernels that follow want
    them. Our kernels give the same bits in every batch and every run; cuDNN and cuBLAS do not promise that.
    """

    name = "Triton kernels"

    def filter_bank(self, x: Tensor, bank: BankWeights, *, moments: bool = False) -> Responses:
        """Filter x [n, maps, h, w]: a first layer in one kernel, others by cuDNN and one kernel for the rest, in place.

        bf16 and fp16: a first layer multiplies the rounded operands exactly, in TF32, which holds both types; cuDNN
        multiplies them in 16 bits and rounds its sums to 16 bits, before the bias and tanh.
        """
        if not _launchable(x, *bank.trainable):
            return super().filter_bank(x, bank, moments=moments)
        _check_fit(x, bank)
        fan_in, size = bank.weight.shape[1], bank.weight.shape[3]
        # With few input maps a convolution is cheap beside writing its maps and reading them again for tanh: one kernel
        # saves that. With many the product dominates, and nobody multiplies faster than cuDNN.
        if bank.table is None and fan_in <= FUSED_FAN_IN and fan_in * size * size <= FUSED_TAPS:
            # Rounded beforehand: tensor cores would only cut off the bits beyond TF32. bf16 and fp16 fit into TF32,
            # whose products are exact, so that one kernel serves all three.
            rounded = self._round_operand(x), self._round_operand(bank.weight)
            kept, ieee = HALF_DTYPES.get(self.precision, torch.float32), self.precision == "float32"
            return bank_kernels.convolve(*rounded, bank, kept, ieee=ieee, moments=moments)
        return bank_kernels.activate(to_nhwc(self._convolved(x, bank)), bank, moments=moments)

    def _convolved(self, x: Tensor, bank: BankWeights) -> Tensor:
        """Return the bare convolution, in the type that maps are kept in."""
        groups = 1 if bank.table is None else len(bank.table)
        last, weight = to_nhwc(self._operand(x)), self._operand(bank.weight)
        seen = (last if bank.table is None else last[..., bank.table.flatten()]).permute(0, 3, 1, 2)
        # `flags` sets all of cuDNN's settings, so that the user's own have to be passed on; only TF32 is ours.
        cudnn = torch.backends.cudnn
        flags = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
        with cudnn.flags(**flags, allow_tf32=self.precision == "tf32"):
            return functional.conv2d(seen, weight.contiguous(memory_format=torch.channels_last), groups=groups)

    def _operand(self, x: Tensor) -> Tensor:
        """Return x as cuDNN multiplies it: in 16 bits, or float32 rounded to the precision."""
        return x.to(HALF_DTYPES[self.precision]) if self.precision in HALF_DTYPES else self._round_operand(x)

    def statistics(self, responses: Responses, norm: LocalNormalisation) -> tuple[Tensor | None, Tensor | None]:
        """Return what N subtracts and what it divides by."""
        mean, square = responses.mean, responses.mean_square
        # Known where a bank was the operation before; missing where N comes first, or follows a plugin's module.
        if not _launchable(mean, square, maps=responses.y):
            return super().statistics(responses, norm)
        if mean is None or square is None:
            mean, square = normalization_kernels.compute_moments(responses.y)
        return normalization_kernels.compute_statistics(mean, square, norm)

    def normalise_and_pool(
        self, responses: Responses, shift: Tensor | None, scale: Tensor | None, spec: PoolingSpec
    ) -> Tensor:
        """Pool; average and maximum over space in one kernel, [n, maps, rows, columns] contiguous."""
        if spec.over_maps or spec.kind not in "AM" or not _launchable(shift, scale, maps=responses.y):
            return super().normalise_and_pool(responses, shift, scale, spec)
        # Raises where no window fits: the kernel would be launched with a negative number of rows.
        _, maps, height, width = responses.y.shape
        spec.output_shape((maps, height, width))
        return pooling_kernels.normalise_and_pool(responses.y, shift, scale, spec)

    def descriptors(self, images: Tensor, kind: Histograms, size: int, step: int) -> Tensor:
        """Return dense histograms of gradients, one program for each patch; raises as `Histograms.check`."""
        kind.check(tuple(images.shape), size, step)
        # A side of one pixel has no differences, which the reference refuses.
        if not _launchable(images) or min(images.shape[1:]) < 2:
            return super().descriptors(images, kind, size, step)
        return descriptor_kernels.describe(images, kind, size, step)

    def sparse_step(self, codes: Tensor, mixing: Tensor, drive: Tensor, threshold: Tensor) -> Tensor:
        """Return h_θ(b + z S): one matrix product for each group, and its soft threshold in place."""
        if not _launchable(codes, mixing, drive, threshold):
            return super().sparse_step(codes, mixing, drive, threshold)
        # Groups first: one batched product b + z S for all groups.
        moved = torch.baddbmm(drive.transpose(0, 1), codes.transpose(0, 1), mixing).contiguous()
        sparse_kernels.shrink(moved, threshold)
        return moved.transpose(0, 1)

    def momentum_step(
        self, moved: Tensor, codes: Tensor, extrapolated: Tensor, momentum: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advance the momentum of all rows by a step, each read and written once; float32 and float64."""
        state = moved, codes, extrapolated, momentum
        if is_tracked_by_autograd(*state) or moved.dtype not in (torch.float32, torch.float64):
            return super().momentum_step(*state)
        return sparse_kernels.accelerate(*(tensor.contiguous() for tensor in state))

    def coordinate_steps(
        self, codes: Tensor, targets: Tensor, coupling: Tensor, lam: float, steps: int, *, nonnegative: bool = False
    ) -> None:
        """Take all the steps in one kernel, one program for each row; float32 and float64."""
        types = {codes.dtype, targets.dtype, coupling.dtype}
        if is_tracked_by_autograd(codes, targets, coupling) or types not in ({torch.float32}, {torch.float64}):
            return super().coordinate_steps(codes, targets, coupling, lam, steps, nonnegative=nonnegative)
        moved = codes.contiguous(), targets.contiguous()
        sparse_kernels.descend(*moved, coupling.contiguous(), lam, steps, nonnegative=nonnegative)
        # `contiguous` copied what was not: the caller's tensors are to change in place.
        for mine, theirs in zip(moved, (codes, targets), strict=True):
            if mine is not theirs:
                theirs.copy_(mine)
        return None


def _launchable(*tensors: Tensor | None, maps: Tensor | None = None) -> bool:
    """Whether kernels may compute with these: not followed by autograd, float32, and maps float32 or of 16 bits."""
    if is_tracked_by_autograd(maps, *tensors) or (
        maps is not None and maps.dtype not in {torch.float32, *HALF_DTYPES.values()}
    ):
        return False
    return all(tensor is None or tensor.dtype == torch.float32 for tensor in tensors)


def _check_fit(x: Tensor, bank: BankWeights) -> None:
    """Refuse maps that do not fit a bank: a kernel, which checks nothing, would read beyond them."""
    filters, fan_in, *sides = bank.weight.shape
    maps = x.shape[1]
    if bank.table is None and fan_in != maps:
        raise UsageError(f"each filter sees {fan_in} maps, but {maps} come in: give a bank for {maps}, or a table")
    if any(side > length for side, length in zip(sides, x.shape[2:], strict=True)):
        raise UsageError(f"filters of {sides[0]}×{sides[1]} do not fit maps of {x.shape[2]}×{x.shape[3]}")
    for name, tensor in {"bias": bank.bias, "gain": bank.gain}.items():
        if tensor is not None and tensor.shape != (filters,):
            raise UsageError(f"{filters} filters need a {name} each, not one of shape {list(tensor.shape)}")
