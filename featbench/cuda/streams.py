"""Batches on a GPU: copied from pinned memory on one stream while another computes, replayed as a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from featbench.cuda.graphs import Graphed
from featbench.cuda.grey import GreyImages


class Streamed:
    """Runs a network over batches on a GPU. `launch` returns at once; what it returns waits for the features.

    Three streams: one brings maps in, one computes, one takes features out. Events order them; the memory of one batch
    is not given to another before both streams that use it are past it.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network, self.device = Graphed(network), device
        self.upload, self.compute, self.download = _stream(device), _stream(device), _stream(device)

    def launch(self, maps: Tensor | GreyImages) -> Callable[[], Tensor]:
        """Begin with the features of maps [n, ...] on the CPU."""
        # What the caller's stream did, bringing the network here, is done first.
        self.upload.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.upload):
            if isinstance(maps, Tensor):
                there = maps.pin_memory().to(self.device, non_blocking=True)
            else:
                there = maps.make_maps(self.device)
        self.compute.wait_stream(self.upload)
        with torch.cuda.stream(self.compute):
            there.record_stream(self.compute)
            features = self.network(there)
        self.download.wait_stream(self.compute)
        with torch.cuda.stream(self.download):
            features.record_stream(self.download)
            back = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            back.copy_(features, non_blocking=True)
            done = self.download.record_event()

        def wait() -> Tensor:
            done.synchronize()
            return back

        return wait


def _stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
