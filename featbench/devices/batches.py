"""Batches of images through a network: as many at once as the caches or the memory like, fewer where it runs out."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from threading import Lock

import torch
from torch import Tensor, nn

from featbench.cuda.grey import GreyImages
from featbench.devices.failures import is_out_of_memory
from featbench.devices.selection import select_operations
from featbench.errors import DeviceError
from featbench.operations.fused_network import FusedNetwork
from featbench.operations.precision import Precision
from featbench.system.threads import Workers

BLOCK_VALUES = {"cpu": 2**21, "cuda": 2**28}
"""Values of the largest maps that are computed at once: on a CPU 8 MB, which stay in its cache; on a GPU 1 GB."""

BatchInput = Tensor | GreyImages
"""Maps [n, ...] on the CPU, or the bytes of which they are made on the device."""

Wait = Callable[[], Tensor]
"""Waits for features that were asked for, and returns them on the CPU."""


class Batches:
    """Takes maps [n, ...] on the CPU to features [n, ...] on the CPU, on a device, without gradients.

    A batch that does not fit into the memory is split, and those after it are smaller from the start.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision = "float32") -> None:
        self.device = device
        self.fused = FusedNetwork(network.to(device).eval(), select_operations(device, precision))
        self.batch_limit: int | None = None
        self._growth: float | None = None
        self._measuring = Lock()
        self._workers: Workers | None = None
        self._run = self._on_cpu if device.type == "cpu" else self._streamed()

    @property
    def workers(self) -> Workers | None:
        """Threads that compute a batch each, on a CPU where they may share the network; a thread of one has none."""
        threads = torch.get_num_threads()
        if self.device.type != "cpu" or threads == 1 or not self.fused.is_reentrant:
            return None
        if self._workers is None or self._workers.count != threads:
            self._workers = Workers(threads)
        return self._workers

    def images_at_once(self, one: BatchInput) -> int:
        """Return how many images such as the first of `one` [1, ...] are computed together."""
        values = prod(one.shape[1:])
        with self._measuring:  # one thread alone, since it watches the modules that others would run
            if self._growth is None:
                self._growth = self._guarded(one) / max(1, values)
        fitting = int(BLOCK_VALUES[self.device.type] / max(1.0, self._growth * values))
        return max(1, min(fitting, self.batch_limit or fitting))

    def launch(self, maps: BatchInput) -> Wait:
        """Begin with the features of maps [n, ...]; n may be 0. `DeviceError` if one image alone is too large."""
        if len(maps) == 0:
            return lambda: self.launch(torch.zeros(1, *maps.shape[1:]))()[:0]
        parts = _split(maps, self.images_at_once(maps[:1]))
        workers = self.workers if len(parts) > 1 else None
        return _join(list(workers.map(self._launch, parts) if workers else map(self._launch, parts)))

    def _guarded(self, one: BatchInput) -> int:
        try:
            return self.fused.find_largest_maps(
                one.to(self.device) if isinstance(one, Tensor) else one.make_maps(self.device)
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_large(one)

    def _launch(self, maps: BatchInput) -> Wait:
        try:
            return self._run(maps)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler, whose traceback would keep the maps that were made.
        if len(maps) == 1:
            raise self._too_large(maps)
        self.batch_limit = len(maps) // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return _join([self._launch(part) for part in _split(maps, self.batch_limit)])

    def _too_large(self, maps: BatchInput) -> DeviceError:
        size = "×".join(str(side) for side in maps.shape[1:])
        return DeviceError(
            f"the maps of one image of {size} do not fit into the memory of {self.device.type}: make images smaller "
            "(Preprocessing(size=…)), or use fewer filters"
        )

    def _on_cpu(self, maps: BatchInput) -> Wait:
        features = self.fused(maps if isinstance(maps, Tensor) else maps.make_maps(self.device))
        return lambda: features

    def _streamed(self) -> Callable[[BatchInput], Wait]:
        from featbench.cuda.streams import Streamed

        return Streamed(self.fused, self.device).launch


def _split(maps: BatchInput, size: int) -> list[BatchInput]:
    return [maps[start : start + size] for start in range(0, len(maps), size)]


def _join(waits: list[Wait]) -> Wait:
    return waits[0] if len(waits) == 1 else lambda: torch.cat([wait() for wait in waits])
