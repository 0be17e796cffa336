"""The precisions that features can be extracted in."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from featbench.errors import UsageError

Precision = Literal["float32", "tf32", "bf16", "fp16"]
"""What a filter bank computes with, and keeps its maps in.

The operands of its products are rounded to 24, 11, 8 or 11 bits; sums and what follows are float32. bf16 and fp16
also keep the maps that it gives in 16 bits.
"""


PRECISIONS: tuple[Precision, ...] = get_args(Precision)


HALF_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""torch's 16-bit types, by the precisions that use them."""


def check_precision(name: str) -> Precision:
    """Return the precision of this name, or raise a `UsageError` with those that there are."""
    for known in PRECISIONS:
        if name == known:
            return known
    raise UsageError(f"unknown precision {name!r}: it is {', '.join(PRECISIONS)}")


def round_to_tf32(x: Tensor) -> Tensor:
    """Round to the nearest number of 11 significant bits, in float32: what tensor cores multiply in TF32."""
    bits = x.float().contiguous().view(torch.int32)
    # Half of the last bit that stays is added (a little less where that bit is 0: ties go to even), the rest cut off.
    rounded = bits + 0x0FFF + ((bits >> 13) & 1)
    return torch.where(torch.isfinite(x), (rounded & ~0x1FFF).view(torch.float32), x.float()).to(x.dtype)
