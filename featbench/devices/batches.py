"""Batches of images through a network, each as large as suits the device, and smaller where memory runs out.

On a CPU a batch is one or a few images, whose maps stay in the cache, and each thread takes a batch of its own. Threads
that share every operation wait for one another at the end of each, and on a busy machine one of them is always late: 8
to 28 ms an image where threads with an image each took 3 to 7.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from threading import Lock

import torch
from torch import Tensor, nn

from featbench.cuda.grey import GreyImages
from featbench.devices.failures import is_out_of_memory
from featbench.devices.selection import select_operations
from featbench.errors import DeviceError, PluginError
from featbench.operations.fused_network import FusedNetwork
from featbench.operations.precision import Precision
from featbench.system.threads import Workers

BLOCK_VALUES = {"cpu": 2**21, "cuda": 2**28}
"""Values of the largest maps that are computed at once: on a CPU 8 MB, which stay in the cache; on a GPU 1 GB, which
occupies all of it."""

FEWEST = 8
"""Images in a batch on a CPU, at least, where so many fit: fewer are filled up with copies of the last.

For a single image torch and its matrix products take other instructions than for several. Without this, the last digits
of an image's features would depend on how many images are left for the last batch.
"""

BatchInput = Tensor | GreyImages
"""Maps [n, ...] on the CPU, or the bytes from which they are made on the device."""

Wait = Callable[[], Tensor]
"""Waits for the features of a batch that was launched, and returns them on the CPU."""


class Batches:
    """Takes maps [n, ...] on the CPU to features [n, ...] on the CPU, on a device, without gradients.

    A batch that does not fit into the memory is halved, and those after it are as small from the start. On a CPU the
    features of an image are the same bits however its batch is divided, and whichever thread computes it.
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
        """Threads that compute a batch each, on a CPU where they may share the network; else None."""
        # Asked for each time: the caller may have changed it, and has one thread where it is a worker itself.
        threads = torch.get_num_threads()
        if self.device.type != "cpu" or threads == 1 or not self.fused.is_reentrant:
            return None
        if self._workers is None or self._workers.count != threads:
            self._workers = Workers(threads)
        return self._workers

    def images_at_once(self, one: BatchInput) -> int:
        """Return how many images such as the first of `one` [1, ...] are computed together."""
        values = prod(one.shape[1:])
        # One thread alone measures: its hooks would also see what other threads compute with the same modules.
        with self._measuring:
            if self._growth is None:
                # Maps grow in proportion to the image, about: one measurement serves images of all sizes.
                self._growth = self._measure_largest(one) / max(1, values)
        fitting = int(BLOCK_VALUES[self.device.type] / max(1.0, self._growth * values))
        return max(1, min(fitting, self.batch_limit or fitting))

    def launch(self, maps: BatchInput) -> Wait:
        """Start computing the features of maps [n, ...]; n may be 0. `DeviceError` if one image alone is too large."""
        if len(maps) == 0:
            # One blank image tells the shape of features.
            return lambda: self.launch(torch.zeros(1, *maps.shape[1:]))()[:0]
        parts = _split(maps, self.images_at_once(maps[:1]))
        # A single part has all threads for its operations.
        workers = self.workers if len(parts) > 1 else None
        return _join(list(workers.map(self._launch, parts) if workers else map(self._launch, parts)))

    def _measure_largest(self, one: BatchInput) -> int:
        """Return how many values the largest maps of one image hold; `DeviceError` if they do not fit."""
        try:
            return self.fused.find_largest_maps(
                one.to(self.device) if isinstance(one, Tensor) else one.make_maps(self.device)
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        raise self._too_large(one)

    def _launch(self, maps: BatchInput) -> Wait:
        """Start computing a batch, in halves of halves where it does not fit."""
        try:
            return self._run(maps)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler: as long as the error lives, its traceback keeps the very maps that filled the memory.
        if len(maps) + self._count_missing(maps) == 1:
            raise self._too_large(maps)
        self.batch_limit = max(1, len(maps) // 2)
        if self.device.type == "cuda":
            # torch keeps freed blocks of the old batch's sizes, which the smaller ones need not fit.
            torch.cuda.empty_cache()
        return _join([self._launch(part) for part in _split(maps, self.batch_limit)])

    def _too_large(self, maps: BatchInput) -> DeviceError:
        size = "×".join(str(side) for side in maps.shape[1:])
        return DeviceError(
            f"the maps of one image of {size} do not fit into the memory of {self.device.type}: make images smaller "
            "(Preprocessing(size=…)), or use fewer filters"
        )

    def _on_cpu(self, maps: BatchInput) -> Wait:
        images = maps if isinstance(maps, Tensor) else maps.make_maps(self.device)
        missing = self._count_missing(images)
        if missing:
            images = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
        features = self.fused(images)
        if len(features) != len(images):
            raise PluginError(f"the network gives features of {len(features)} images for {len(images)}")
        return lambda: features[: len(maps)]

    def _count_missing(self, images: BatchInput) -> int:
        """Return how many copies of an image a batch is filled up with."""
        if self.device.type != "cpu":
            return 0
        return max(0, min(FEWEST, self.images_at_once(images[:1])) - len(images))

    def _streamed(self) -> Callable[[BatchInput], Wait]:
        from featbench.cuda.streams import Streamed

        return Streamed(self.fused, self.device).launch


def _split(maps: BatchInput, size: int) -> list[BatchInput]:
    return [maps[start : start + size] for start in range(0, len(maps), size)]


def _join(waits: list[Wait]) -> Wait:
    return waits[0] if len(waits) == 1 else lambda: torch.cat([wait() for wait in waits])
