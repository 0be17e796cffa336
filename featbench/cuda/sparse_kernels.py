"""Sparse coding: the soft threshold in place, FISTA's momentum, and coordinate descent with codes in registers.

Between two matrix products a solver does little arithmetic on much memory: each kernel reads and writes it once.
"""

import torch
import triton.language as tl
from torch import Tensor

from featbench.cuda.kernel import ceil_div, kernel, launch, next_power_of_two


def shrink(values: Tensor, threshold: Tensor) -> None:
    """Apply the soft threshold [groups, m], or one for all groups, to values [groups, r, m], contiguous, in place."""
    groups, rows, units = values.shape
    # One row of the threshold for each group, so that the kernel needs no case for a shared one.
    threshold = threshold.expand(groups, units).contiguous()
    block_units = min(next_power_of_two(units), 1024)
    block_rows = 2048 // block_units
    unit_blocks = ceil_div(units, block_units)
    launch(
        _shrink, ceil_div(groups * rows, block_rows) * unit_blocks, values, threshold, groups * rows, rows,
        unit_blocks, units=units, block_rows=block_rows, block_units=block_units,
    )  # fmt: skip


def accelerate(moved: Tensor, codes: Tensor, extrapolated: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
    """Return FISTA's next point [n, m] and momentum [n, 1], see `Reference.momentum_step`; float32 or float64.

    All are contiguous.
    """
    n, units = moved.shape
    point, following = torch.empty_like(moved), torch.empty_like(momentum)
    block = next_power_of_two(units)
    launch(
        _accelerate, n, moved, codes, extrapolated, momentum, point, following, units=units, block=block,
        num_warps=min(16, max(1, block // 256)),
    )  # fmt: skip
    return point, following


def descend(codes: Tensor, targets: Tensor, coupling: Tensor, lam: float, steps: int, *, nonnegative: bool) -> None:
    """Take steps of greedy coordinate descent in place, see `Reference.coordinate_steps`; float32 or float64.

    codes and targets [n, m], coupling [m, m]: contiguous.
    """
    n, units = codes.shape
    block = next_power_of_two(units)
    # Few warps: they wait for one another twice a step, at `argmax` and at `sum`. λ comes in a tensor, since Triton
    # passes a Python float as float32, and float64 codes would then converge to another minimum.
    penalty = torch.full((1,), lam, dtype=codes.dtype, device=codes.device)
    launch(
        _descend, n, codes, targets, coupling, coupling.diagonal().sqrt(), penalty, steps, units=units,
        nonnegative=nonnegative, block=block, num_warps=min(16, max(1, block // 256)),
    )  # fmt: skip


@kernel
def _shrink(
    values: tl.tensor, threshold: tl.tensor, rows: tl.tensor, group_rows: tl.tensor, unit_blocks: tl.tensor,
    units: tl.constexpr, block_rows: tl.constexpr, block_units: tl.constexpr,
) -> None:  # fmt: skip
    """Shrink a block of rows and units: h_θ(x) = sign(x) max(|x| - θ, 0)."""
    program = tl.program_id(0)
    unit = program % unit_blocks * block_units + tl.arange(0, block_units)
    row = (program // unit_blocks).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    there = (row < rows)[:, None] & (unit < units)[None, :]
    address = values + row[:, None] * units + unit[None, :]
    value = tl.load(address, there, other=0.0)
    least = tl.load(threshold + row[:, None] // group_rows * units + unit[None, :], there, other=0.0)
    size = tl.maximum(tl.abs(value) - least, 0.0)
    # The value itself where it is neither above nor below 0: zero stays zero even where training made the threshold
    # negative, since sign(0) = 0, and a NaN stays a NaN.
    tl.store(address, tl.where(value > 0.0, size, tl.where(value < 0.0, -size, value)), there)


@kernel
def _accelerate(
    moved: tl.tensor, codes: tl.tensor, extrapolated: tl.tensor, momentum: tl.tensor, point: tl.tensor,
    following: tl.tensor, units: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Advance the momentum of one row by a step; the equations are those of `Reference.momentum_step`."""
    unit = tl.arange(0, block)
    present = unit < units
    row = tl.program_id(0).to(tl.int64)
    position = row * units + unit
    code = tl.load(moved + position, present, other=0.0)
    change = code - tl.load(codes + position, present, other=0.0)
    uphill = tl.sum((tl.load(extrapolated + position, present, other=0.0) - code) * change, axis=0)
    before = tl.load(momentum + row)
    # 1 in the type of the momentum, whatever type Triton gives to a literal.
    before = tl.where(uphill > 0.0, before * 0.0 + 1.0, before)
    after = (tl.sqrt(4.0 * before * before + 1.0) + 1.0) / 2.0
    tl.store(point + position, code + change * ((before - 1.0) / after), present)
    tl.store(following + row, after)


@kernel
def _descend(
    codes: tl.tensor, targets: tl.tensor, coupling: tl.tensor, norms: tl.tensor, penalty: tl.tensor,
    steps: tl.tensor, units: tl.constexpr, nonnegative: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Take all the steps of one row; the equations are those of `Reference.coordinate_steps`.

    Codes and targets stay in registers from the first step to the last: a step reads one row of DᵀD.
    """
    unit = tl.arange(0, block)
    present = unit < units
    start = tl.program_id(0).to(tl.int64) * units
    code = tl.load(codes + start + unit, present, other=0.0)
    target = tl.load(targets + start + unit, present, other=0.0)
    norm = tl.load(norms + unit, present, other=0.0)
    square = tl.where(norm > 0.0, norm * norm, 1.0)
    lam = tl.load(penalty)
    for _ in range(steps):
        shrunk = tl.maximum(target - lam, 0.0) if nonnegative else target - tl.maximum(tl.minimum(target, lam), -lam)
        change = tl.where(norm > 0.0, shrunk / square - code, 0.0)
        # Units beyond the last lose even against those that would not move: 0 > -1.
        chosen = tl.argmax(tl.where(present, tl.abs(change) * norm, -1.0), axis=0)
        # Registers cannot be indexed: the sum of all but one zeros picks the chosen unit's value.
        move = tl.sum(tl.where(unit == chosen, change, 0.0), axis=0)
        code = tl.where(unit == chosen, code + move, code)
        row = coupling + chosen.to(tl.int64) * units
        # Row k of DᵀD without its diagonal: B_k leaves z_k out, and does not change. chosen < units fails only where a
        # NaN has won; nothing is then read beyond the matrix.
        between = tl.load(row + unit, present & (chosen < units) & (unit != chosen), other=0.0)
        target -= between * move
    tl.store(codes + start + unit, code, present)
    tl.store(targets + start + unit, target, present)
