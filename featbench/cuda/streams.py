"""Batches on a GPU: one is copied there while another is computed, and a third copied back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from featbench.cuda.graphs import Graphed
from featbench.cuda.grey import GreyImages


class Streamed:
    """Runs a network over batches on a GPU; `launch` returns at once, a function that waits for the features.

    Three streams: one uploads maps, one computes, one downloads features; a GPU copies in both directions while it
    computes. Work of one stream runs in order, that of several only where one waits for another.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network, self.device = Graphed(network), device
        self.upload, self.compute, self.download = _stream(device), _stream(device), _stream(device)

    def launch(self, maps: Tensor | GreyImages) -> Callable[[], Tensor]:
        """Start computing the features of maps [n, ...] on the CPU."""
        # The caller's stream may still be copying the network's parameters here.
        self.upload.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.upload):
            if isinstance(maps, Tensor):
                # Only from pinned memory, which the system cannot move, does a copy run beside the CPU.
                there = maps.pin_memory().to(self.device, non_blocking=True)
            else:
                there = maps.make_maps(self.device)
        self.compute.wait_stream(self.upload)
        with torch.cuda.stream(self.compute):
            # torch frees memory in the order of the stream that allocated it, here `upload`, which knows nothing of the
            # others: without this the next upload could overwrite maps that are still being read.
            there.record_stream(self.compute)
            features = self.network(there)
        self.download.wait_stream(self.compute)
        with torch.cuda.stream(self.download):
            # Likewise: allocated on `compute`, read on `download`.
            features.record_stream(self.download)
            back = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            back.copy_(features, non_blocking=True)
            done = self.download.record_event()

        def wait() -> Tensor:
            # An event of this batch, not the stream: later batches go on meanwhile.
            done.synchronize()
            return back

        return wait


def _stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
