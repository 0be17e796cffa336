"""The gradient of a batch, in parts that threads compute side by side: the same bits however many threads there are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from featbench.devices.failures import is_out_of_memory
from featbench.devices.selection import select_operations
from featbench.errors import DeviceError, LearningError
from featbench.operations.fused_network import FusedNetwork
from featbench.operations.precision import Precision
from featbench.refinement.augmentation import Augmentation
from featbench.refinement.classifier_layer import ClassifierLayer
from featbench.refinement.random_numbers import drawing_from
from featbench.refinement.trained_network import TrainedNetwork
from featbench.system.memory import require_memory
from featbench.system.seeds import derive_seed, seeded
from featbench.system.threads import Workers
from featbench.types import IntArray

log = logging.getLogger("featbench")

PART_VALUES = 2**21
"""Values of the largest maps of a part, at most, if it has more than an image: 8 MB, which stay in a CPU's cache."""

PARTS = 4
"""Parts of a batch, at least, where it has so many images: threads have something to share."""

MAPS_KEPT = 2
"""How often, about, the largest maps of an image are held in memory until its gradient is computed."""

FLOAT32_BYTES = 4

T = TypeVar("T")
Item = TypeVar("Item")

ParameterGradients = Sequence[Tensor | None]
"""The gradient by each parameter, None where the loss does not depend on it."""


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


class _LayerGradients(NamedTuple):
    """The mean log-loss of a batch, and its gradients by the features [n, d] and by the classifier layer."""

    loss: float
    by_features: Tensor
    by_parameters: ParameterGradients


class _LossGradients(NamedTuple):
    """The mean log-loss of a batch, and its gradients by the filters, then by the classifier layer."""

    loss: float
    by_parameters: ParameterGradients


class Gradients:
    """Sets the gradients of a network and its classifier layer to those of the mean log-loss of a batch.

    On a CPU, a network that treats each image by itself is run on parts of the batch, each by one thread. The parts
    depend on the network and the batch alone, and their gradients are added in order, so that the sum has the same bits
    whatever the number of threads. Threads that share one operation would round by their number, and wait for each
    other at its end.

    Where memory runs out the batch is divided into 2, 4, … `pieces` that are computed one after another. Their
    gradients, weighted by their share of the images, are added up: the same but for rounding.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: ClassifierLayer,
        device: torch.device,
        precision: Precision = "float32",
        augmentation: Augmentation | None = None,
    ) -> None:
        self.network, self.layer, self.device = network, layer, device
        self.augmentation = augmentation or Augmentation()
        self.trained = TrainedNetwork(network, device, precision)
        self.pieces = 1
        # Only sizes are asked of these operations. But selecting them has the allocator of a CPU keep what is freed,
        # without which each part would get the memory of its maps from the system, page fault by page fault.
        self._operations = select_operations(device.type)
        self._filters = [p for p in network.parameters() if p.requires_grad]
        self._largest_maps: int | None = None
        threads = torch.get_num_threads()
        self._is_divided = device.type == "cpu" and self.trained.is_per_image
        # Kept for all batches: torch's libraries compile their kernels again for each new thread.
        self._workers = Workers(threads) if self._is_divided and threads > 1 else None

    def __call__(self, batch: Examples, images: IntArray, seed: int, scale: float = 1.0) -> float:
        """Set the gradients, times `scale`; return the mean log-loss.

        images: [n], the number of each image; with `seed` it decides on its distortion. Raises `DivergedError` if the
        loss is not finite, `DeviceError` if one image does not fit into the memory.
        """
        while True:
            try:
                with self.trained.set_precision():
                    return self._accumulate(batch, images, seed, scale)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            # Out of the handler, whose traceback would keep the maps of the failed attempt.
            self._halve(len(batch), reason)

    def _halve(self, count: int, reason: str) -> None:
        """Divide batches into twice as many pieces, or raise a `DeviceError` if that cannot help."""
        if self.trained.has_batch_statistics:
            raise DeviceError(
                f"a batch of {count} images does not fit into the memory of {self.device.type}, and batch "
                "normalisation needs it whole: take a smaller one, as in --refine batch=8"
            )
        if self.pieces >= count:
            raise DeviceError(
                f"one image does not fit into the memory of {self.device.type} in training: make images smaller, or "
                f"use fewer filters ({reason.strip().partition(chr(10))[0]})"
            )
        self.pieces *= 2
        if self.device.type == "cuda":
            # What torch keeps for itself is cut to the sizes of the batch that failed.
            torch.cuda.empty_cache()
        log.warning(
            "a batch of %d images does not fit into the memory of %s: it is computed in %d pieces, whose gradients are "
            "added up",
            *(count, self.device.type, min(self.pieces, count)),
        )

    def _accumulate(self, batch: Examples, images: IntArray, seed: int, scale: float) -> float:
        """Add up the gradients of the pieces; return the mean loss."""
        parameters = [*self._filters, *self.layer.parameters()]
        for parameter in parameters:
            parameter.grad = None
        loss = 0.0
        for piece in _split(torch.arange(len(batch)), min(self.pieces, len(batch))):
            # A piece's mean loss counts by its share of the images, so that the sum is the mean over the batch.
            share = len(piece) / len(batch)
            found = self._differentiate(batch[piece], images[piece.numpy()], seed, share * scale)
            loss += share * found.loss
            for parameter, gradient in zip(parameters, found.by_parameters, strict=True):
                if gradient is not None:
                    # Cloned: autograd may give two parameters one tensor, or a view that repeats one number, and
                    # neither may be added to in place.
                    parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)
        return loss

    def _differentiate(self, batch: Examples, images: IntArray, seed: int, scale: float) -> _LossGradients:
        """Return the mean loss and the gradients, times `scale`.

        Autograd is cut at the features: parts go forward, the layer sees the features of all at once, and parts go
        back. So the loss is that of the whole batch, and only the extractor, which costs the time, is divided.
        """
        parts = _split(torch.arange(len(batch)), self._count_parts(batch))

        def forward(part: Tensor) -> Tensor:
            numbers = images[part.numpy()]
            maps = self.augmentation.distort(batch.maps[part], numbers, derive_seed(seed, "distort"))
            # A part draws by its first image, so that which thread computes it, and when, does not matter.
            with torch.enable_grad(), self._seeded_draws(derive_seed(seed, *numbers[:1])):
                return self.trained(maps.to(self.device))

        features = self._map(forward, parts)
        # In a worker too, though it is one call: torch's own threads would round by their number.
        (at_layer,) = self._map(lambda given: self._differentiate_layer(given, batch.labels, scale), [features])
        by_part = torch.split(at_layer.by_features, [len(part) for part in parts])

        def backward(pair: tuple[Tensor, Tensor]) -> ParameterGradients:
            return torch.autograd.grad(pair[0], self._filters, pair[1], allow_unused=True)

        total: list[Tensor | None] = [None] * len(self._filters)
        # `_map` returns results in the order of the parts, whichever is ready first: sums of floats depend on it.
        for gradients in self._map(backward, zip(features, by_part, strict=True)):
            total = [_add(one, other) for one, other in zip(total, gradients, strict=True)]
        return _LossGradients(at_layer.loss, [*total, *at_layer.by_parameters])

    def _differentiate_layer(self, features: list[Tensor], labels: Tensor, scale: float) -> _LayerGradients:
        """Return the loss of a batch, and its gradients by the features and by the layer, times `scale`."""
        with torch.enable_grad():
            # Detached: the gradient stops at the features, from where each part takes it on by itself.
            joined = torch.cat([part.detach() for part in features]).requires_grad_()
            loss = functional.cross_entropy(self.layer(joined), labels.to(self.device))
            value = loss.item()
            if not torch.isfinite(loss):
                raise DivergedError
            by_features, *by_layer = torch.autograd.grad(loss * scale, [joined, *self.layer.parameters()])
        return _LayerGradients(value, by_features, by_layer)

    def _map(self, make: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        return list(self._workers.map(make, items) if self._workers else map(make, items))

    def _seeded_draws(self, seed: int) -> AbstractContextManager[None]:
        """Make what modules draw depend on the seed alone.

        Modules of ours ask `generator` of `random_numbers`, which is the thread's own. Others draw from the generators
        of the process: these are seeded, which is safe since such a network is not run in parts.
        """
        return drawing_from(seed) if self.trained.is_per_image else seeded(seed)

    def _count_parts(self, batch: Examples) -> int:
        """Return into how many parts a batch is divided; `MemoryError` if its maps cannot fit."""
        if not self._is_divided:
            return 1
        if self._largest_maps is None:
            # In evaluation mode, and back: in training mode the image would change the statistics of batch
            # normalisation, and consume random numbers.
            training = self.network.training
            with torch.no_grad():
                fused = FusedNetwork(self.network.eval(), self._operations)
                self._largest_maps = fused.find_largest_maps(batch.maps[:1])
            self.network.train(training)
        # Of the whole batch: all parts keep their maps until the layer has seen the features of the last one.
        needed = MAPS_KEPT * FLOAT32_BYTES * self._largest_maps * len(batch)
        require_memory(needed, self.device, f"the maps of {len(batch)} images")
        # Nothing here depends on the number of threads: other parts would be added up with other rounding.
        fitting = max(1, PART_VALUES // self._largest_maps)
        return min(len(batch), max(PARTS, -(-len(batch) // fitting)))


def require_gradients(network: nn.Module, maps: Tensor) -> None:
    """Raise a `LearningError` if the network has no parameter that learns from maps [n, ...]."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise LearningError("the extractor has no parameters to refine")
    training = network.training
    with torch.enable_grad(), seeded(0):
        features = network.eval()(maps)
        is_reached = features.requires_grad
        if is_reached:
            found = torch.autograd.grad(features.float().square().sum(), parameters, allow_unused=True)
            is_reached = any(gradient is not None for gradient in found)
    network.train(training)
    if not is_reached:
        raise LearningError(
            "the extractor cannot be refined: no gradient reaches its parameters (a step of it is not differentiable)"
        )


def _split(indices: Tensor, parts: int) -> list[Tensor]:
    return list(indices.tensor_split(parts))


def _add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
