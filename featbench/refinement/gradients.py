"""The gradient of a batch, in parts that threads compute side by side: the same bits however many threads there are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.devices.failures import is_out_of_memory
from featbench.devices.selection import select
from featbench.errors import DeviceError
from featbench.operations.fused_network import FusedNetwork
from featbench.operations.host import LARGE
from featbench.operations.precision import Precision
from featbench.refinement.augmentation import Augmentation
from featbench.refinement.classifier_layer import Head
from featbench.refinement.random_numbers import drawing_from
from featbench.refinement.trained_network import TrainedNetwork
from featbench.system.memory import available_memory
from featbench.system.seeds import derive_seed, seeded
from featbench.system.threads import Workers
from featbench.types import IntArray

log = logging.getLogger("featbench")

PART_VALUES = 2**21
"""Values of the largest maps of a part, at most, if it has more than an image: 8 MB, which stay in a CPU's cache."""

PARTS = 4
"""Parts of a batch, at least, where it has so many images: threads have something to share."""

MAPS_KEPT = 2
"""Times the largest maps that are kept of an image until its gradient is computed, about."""

T = TypeVar("T")
Item = TypeVar("Item")


class DivergedError(Exception):
    """The loss or its gradient is no longer finite."""


@dataclass(frozen=True)
class Examples:
    """Maps [n, ...] of images with their labels [n], on a CPU."""

    maps: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Tensor) -> Examples:
        return Examples(self.maps[chosen], self.labels[chosen])


class Gradients:
    """Sets the gradients of a network and its head to those of the mean log-loss of a batch.

    On a CPU, a network that treats each image by itself is run on parts of the batch, each by one thread; parts depend
    on the network and the batch alone, and their gradients are added in order. Where memory runs out the batch is
    halved, and halved again: the gradients of its pieces are added up, which is the same but for rounding.
    """

    def __init__(
        self,
        network: nn.Module,
        head: Head,
        device: torch.device,
        precision: Precision = "float32",
        augmentation: Augmentation | None = None,
    ) -> None:
        self.network, self.head, self.device = network, head, device
        self.augmentation = augmentation or Augmentation()
        self.trained = TrainedNetwork(network, device, precision)
        self.pieces = 1
        self._operations = select(device.type)  # on a CPU it has the allocator keep its memory
        self._filters = [p for p in network.parameters() if p.requires_grad]
        self._largest: int | None = None
        threads = torch.get_num_threads()
        self._apart = device.type == "cpu" and self.trained.by_image
        self._workers = Workers(threads) if self._apart and threads > 1 else None

    def __call__(self, batch: Examples, images: IntArray, seed: int, scale: float = 1.0) -> float:
        """Set the gradients, times `scale`; return the mean log-loss. `images` [n] and the seed decide distortions.

        Raises `DivergedError` if the loss is not finite.
        """
        while True:
            try:
                with self.trained.arithmetic():
                    return self._accumulate(batch, images, seed, scale)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failed = str(error)
            self._halve(len(batch), failed)

    def _halve(self, count: int, failed: str) -> None:
        if self.trained.sees_batch:
            raise DeviceError(
                f"a batch of {count} images does not fit into the memory of {self.device.type}, and batch "
                "normalisation needs it whole: take a smaller one, as in --refine batch=8"
            )
        if self.pieces >= count:
            raise DeviceError(
                f"one image does not fit into the memory of {self.device.type} in training: make images smaller, or "
                f"use fewer filters ({failed.strip().partition(chr(10))[0]})"
            )
        self.pieces *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "a batch of %d images does not fit into the memory of %s: it goes on in %d pieces, whose gradients are "
            "added up",
            *(count, self.device.type, min(self.pieces, count)),
        )

    def _accumulate(self, batch: Examples, images: IntArray, seed: int, scale: float) -> float:
        parameters = [*self._filters, *self.head.parameters()]
        for parameter in parameters:
            parameter.grad = None
        loss = 0.0
        for piece in _split(torch.arange(len(batch)), min(self.pieces, len(batch))):
            share = len(piece) / len(batch)
            found, gradients = self._piece(batch[piece], images[piece.numpy()], seed, share * scale)
            loss += share * found
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    # Of two parameters it may be one tensor, which must not be added to for both.
                    parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)
        return loss

    def _piece(self, batch: Examples, images: IntArray, seed: int, scale: float) -> tuple[float, list[Tensor | None]]:
        """Return the mean loss and the gradients, times `scale`, by filters and head."""
        parts = _split(torch.arange(len(batch)), self._parts(batch))

        def forward(part: Tensor) -> Tensor:
            maps = self.augmentation.distort(batch.maps[part], images[part.numpy()], derive_seed(seed, "distort"))
            with torch.enable_grad(), self._drawing(derive_seed(seed, *images[part.numpy()][:1])):
                return self.trained(maps.to(self.device))

        features = self._each(forward, parts)
        (loss, by_features, by_head), *_ = self._each(
            lambda given: self._head(given, batch.labels.to(self.device), scale), [features]
        )
        by_part = torch.split(by_features, [len(part) for part in parts])

        def backward(pair: tuple[Tensor, Tensor]) -> list[Tensor | None]:
            return list(torch.autograd.grad(pair[0], self._filters, pair[1], allow_unused=True))

        total: list[Tensor | None] = [None] * len(self._filters)
        for gradients in self._each(backward, zip(features, by_part, strict=True)):
            total = [_plus(one, other) for one, other in zip(total, gradients, strict=True)]
        return loss, [*total, *by_head]

    def _head(self, features: list[Tensor], labels: Tensor, scale: float) -> tuple[float, Tensor, list[Tensor]]:
        """Return the loss, its gradient by the features [n, d], and those by the head."""
        with torch.enable_grad():
            joined = torch.cat([one.detach() for one in features]).requires_grad_()
            loss = functional.cross_entropy(self.head(joined), labels)
            found = loss.item()
            if not torch.isfinite(loss):
                raise DivergedError
            by_features, *by_head = torch.autograd.grad(loss * scale, [joined, *self.head.parameters()])
        return found, by_features, by_head

    def _each(self, make: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        return list(self._workers.ahead(make, items) if self._workers else map(make, items))

    def _drawing(self, seed: int) -> AbstractContextManager[None]:
        """Make what modules draw the same in each run, whichever thread runs them."""
        return drawing_from(seed) if self.trained.by_image else seeded(seed)

    def _parts(self, batch: Examples) -> int:
        """Return into how many parts a batch is divided."""
        if not self._apart:
            return 1
        if self._largest is None:
            training = self.network.training
            with torch.no_grad():
                self._largest = FusedNetwork(self.network.eval(), self._operations).largest(batch.maps[:1])
            self.network.train(training)
        _require_room(len(batch), self._largest, self.device)
        fitting = max(1, PART_VALUES // self._largest)
        return min(len(batch), max(PARTS, -(-len(batch) // fitting)))


def _require_room(images: int, values: int, device: torch.device) -> None:
    """Raise `MemoryError` if the maps cannot fit: systems that promise more than they have kill who takes it."""
    needed = MAPS_KEPT * 4 * values * images
    if needed > LARGE and needed > available_memory(device):
        raise MemoryError(f"{needed / 2**30:.1f} GiB are needed for the maps of {images} images")


def _split(indices: Tensor, parts: int) -> list[Tensor]:
    return list(indices.tensor_split(parts))


def _plus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
