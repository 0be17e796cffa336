"""CUDA graphs: the kernels of a network are recorded once for a shape, and launched together.

A stage is a dozen kernels of a few microseconds each; launching one from Python takes longer than running it.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

log = logging.getLogger("featbench")

WARM_UP = 3
"""Runs before recording: kernels are compiled, and cuDNN chooses its algorithms."""


class Graphed:
    """Runs a network on a GPU: batches of the first batch's shape as a graph, others kernel by kernel.

    A network that cannot be recorded (one that waits for the GPU, as a plugin's may) runs kernel by kernel, which is
    logged once.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._shape: torch.Size | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input = self._output = torch.empty(0)

    def __call__(self, maps: Tensor) -> Tensor:
        """Return the features of maps [n, ...] on the GPU, in memory that belongs to the caller."""
        if self._shape is None:
            self._record(maps)
        if self._graph is None or maps.shape != self._shape:
            features: Tensor = self.network(maps)
            return features
        # A graph holds addresses: it reads and writes the very tensors that it was recorded with. Maps are copied in
        # and features out, before the next replay overwrites them. Only the first shape is recorded: a graph keeps the
        # memory of all its maps, and all batches but the last of an extraction have that shape.
        self._input.copy_(maps)
        self._graph.replay()
        return self._output.clone()

    def _record(self, maps: Tensor) -> None:
        """Record the network for this shape. Where memory runs out nothing is kept, and the next shape is recorded."""
        static = maps.clone()
        # Compiling a kernel, and cuDNN's search for an algorithm, wait for the GPU, which a recording forbids.
        for _ in range(WARM_UP):
            self.network(static)
        torch.cuda.synchronize(maps.device)
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads go on, which read images and pin memory, and would break a global recording.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = self.network(static)
        except torch.cuda.OutOfMemoryError:
            # A RuntimeError too, but the network can be recorded: the caller comes again with a smaller batch.
            raise
        except RuntimeError as error:
            log.warning("this network cannot be recorded as a CUDA graph, and runs kernel by kernel: %s", error)
        else:
            self._graph, self._input, self._output = graph, static, output
        self._shape = maps.shape
