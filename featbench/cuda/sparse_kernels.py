"""Sparse coding: the soft threshold in place, FISTA's momentum, and coordinate descent with codes in registers."""

import torch
import triton.language as tl
from torch import Tensor

from featbench.cuda.kernel import ceil_div, kernel, launch, next_power_of_two


def shrink(values: Tensor, threshold: Tensor) -> None:
    """Apply the soft threshold [groups, m], or one for all groups, to values [groups, r, m], contiguous, in place."""
    groups, rows, units = values.shape
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
    # Few warps: they wait for each other twice a step. A float argument would reach the kernel as float32.
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
    """Shrink a block of rows and units."""
    program = tl.program_id(0)
    unit = program % unit_blocks * block_units + tl.arange(0, block_units)
    row = (program // unit_blocks).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    there = (row < rows)[:, None] & (unit < units)[None, :]
    place = values + row[:, None] * units + unit[None, :]
    value = tl.load(place, there, other=0.0)
    least = tl.load(threshold + row[:, None] // group_rows * units + unit[None, :], there, other=0.0)
    left = tl.maximum(tl.abs(value) - least, 0.0)
    # Zero stays zero, also where the threshold is negative, and a NaN stays one.
    tl.store(place, tl.where(value > 0.0, left, tl.where(value < 0.0, -left, value)), there)


@kernel
def _accelerate(
    moved: tl.tensor, codes: tl.tensor, extrapolated: tl.tensor, momentum: tl.tensor, point: tl.tensor,
    following: tl.tensor, units: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Take the momentum of one row a step on."""
    unit = tl.arange(0, block)
    present = unit < units
    row = tl.program_id(0).to(tl.int64)
    place = row * units + unit
    code = tl.load(moved + place, present, other=0.0)
    change = code - tl.load(codes + place, present, other=0.0)
    uphill = tl.sum((tl.load(extrapolated + place, present, other=0.0) - code) * change, axis=0)
    before = tl.load(momentum + row)
    before = tl.where(uphill > 0.0, before * 0.0 + 1.0, before)
    after = (tl.sqrt(4.0 * before * before + 1.0) + 1.0) / 2.0
    tl.store(point + place, code + change * ((before - 1.0) / after), present)
    tl.store(following + row, after)


@kernel
def _descend(
    codes: tl.tensor, targets: tl.tensor, coupling: tl.tensor, norms: tl.tensor, penalty: tl.tensor,
    steps: tl.tensor, units: tl.constexpr, nonnegative: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Take all the steps of one row."""
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
        # Units that are not there lose against those that gain nothing.
        chosen = tl.argmax(tl.where(present, tl.abs(change) * norm, -1.0), axis=0)
        move = tl.sum(tl.where(unit == chosen, change, 0.0), axis=0)
        code = tl.where(unit == chosen, code + move, code)
        row = coupling + chosen.to(tl.int64) * units
        between = tl.load(row + unit, present & (chosen < units) & (unit != chosen), other=0.0)
        target -= between * move
    tl.store(codes + start + unit, code, present)
    tl.store(targets + start + unit, target, present)
