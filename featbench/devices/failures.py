"""What a device says when it has no memory left, or is no longer there."""

from __future__ import annotations

import torch

MEMORY_WORDS = ("can't allocate memory", "out of memory", "not enough memory", "STATUS_ALLOC_FAILED")

LOST_WORDS = ("CUDA error", "CUDA driver", "no CUDA-capable device", "STATUS_EXECUTION_FAILED", "STATUS_INTERNAL_ERROR")
"""What torch's messages hold when a kernel or the device failed: after it, nothing else runs on it in this process."""

REFUSED_WORDS = ("invalid argument", "invalid configuration argument")
"""What they hold when one launch was refused: others may follow."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine: a smaller batch may still fit."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_WORDS)


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU failed or disappeared."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    message = str(error)
    return any(words in message for words in LOST_WORDS) and not any(words in message for words in REFUSED_WORDS)
