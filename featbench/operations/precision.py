"""The precisions that features can be extracted in."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from featbench.errors import UsageError

Precision = Literal["float32", "tf32", "bf16", "fp16"]
"""What a filter bank computes in, and stores its maps in.

The operands of its products are rounded to 24 (float32), 11 (tf32), 8 (bf16) or 11 (fp16) significant bits. Sums, and
all operations after the bank, are float32. bf16 and fp16 also store the bank's maps in 16 bits.
"""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

HALF_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""torch's 16-bit types, by the precisions that use them."""


def check_precision(name: str) -> Precision:
    """Return the precision of this name, or raise a `UsageError` that lists the known ones."""
    for known in PRECISIONS:
        if name == known:
            return known
    raise UsageError(f"unknown precision {name!r}: it is {', '.join(PRECISIONS)}")


def round_to_tf32(x: Tensor) -> Tensor:
    """Round to the nearest number of 11 significant bits, in float32: what tensor cores multiply in TF32."""
    # A float32 has 23 bits after the leading one, TF32 keeps 10 of them and the same exponent: 13 bits are cut off.
    bits = x.float().contiguous().view(torch.int32)
    # Adding half of the last kept bit before the cut rounds to nearest. 0x0FFF is one less than half, and the last kept
    # bit itself is added to it: so a tie goes up only from an odd number, to the even one (IEEE 754). A carry into the
    # exponent is right as well: it is the next power of two.
    rounded = bits + 0x0FFF + ((bits >> 13) & 1)
    # The integer arithmetic would turn a NaN into an infinity, or into a number.
    return torch.where(torch.isfinite(x), (rounded & ~0x1FFF).view(torch.float32), x.float()).to(x.dtype)
