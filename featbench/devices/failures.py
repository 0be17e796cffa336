"""What errors of torch mean: no memory left, or a device that is lost.

torch raises `RuntimeError` for nearly everything, so that only its messages tell failures apart.
"""

from __future__ import annotations

import torch

MEMORY_WORDS = ("can't allocate memory", "out of memory", "not enough memory", "STATUS_ALLOC_FAILED")
"""Parts of the messages of torch's CPU allocator, of CUDA, of Windows, and of cuBLAS and cuDNN."""

LOST_WORDS = ("CUDA error", "CUDA driver", "no CUDA-capable device", "STATUS_EXECUTION_FAILED", "STATUS_INTERNAL_ERROR")
"""Parts of torch's messages when a kernel or the device failed: nothing runs on it any more in this process."""

REFUSED_WORDS = ("invalid argument", "invalid configuration argument")
"""Parts of its messages when a single launch was refused: the device goes on."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine: a smaller batch may still fit."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_WORDS)


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU failed or disappeared, so that it is of no use to this process any more."""
    # An error inside a kernel corrupts the CUDA context: every later call of the process reports it again.
    # "CUDA error: out of memory" holds words of both lists, and leaves the device usable.
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    message = str(error)
    return any(words in message for words in LOST_WORDS) and not any(words in message for words in REFUSED_WORDS)
