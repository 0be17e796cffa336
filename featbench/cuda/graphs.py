"""CUDA graphs: the kernels of a network are recorded once for a shape, and launched together."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

log = logging.getLogger("featbench")

WARM_UP = 3
"""Runs before recording: kernels are compiled, and cuDNN chooses its algorithms."""


class Graphed:
    """Runs a network on a GPU; batches of the shape that came first as a graph, others kernel by kernel.

    A network that cannot be recorded (it waits for the GPU, as a plugin may) runs kernel by kernel, which is said once.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._shape: torch.Size | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input = self._output = torch.empty(0)

    def __call__(self, maps: Tensor) -> Tensor:
        """Return the features of maps [n, ...] on the GPU; the memory is the caller's."""
        if self._shape is None:
            self._record(maps)
        if self._graph is None or maps.shape != self._shape:
            features: Tensor = self.network(maps)
            return features
        self._input.copy_(maps)
        self._graph.replay()
        return self._output.clone()

    def _record(self, maps: Tensor) -> None:
        """Record the network for this shape; where memory runs out, the next shape is tried."""
        static = maps.clone()
        for _ in range(WARM_UP):
            self.network(static)
        torch.cuda.synchronize(maps.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = self.network(static)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("this network cannot be recorded as a CUDA graph, and runs kernel by kernel: %s", error)
        else:
            self._graph, self._input, self._output = graph, static, output
        self._shape = maps.shape
