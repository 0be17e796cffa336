"""Patches for learning without labels, cut from the maps that enter a filter bank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.errors import LearningError

BATCH = 32
"""Images whose maps are computed at once while patches are cut."""

FLAT = 0.1
"""A patch is left out if its standard deviation is below this part of what they have in root mean square: blank
background teaches nothing."""

TRIES = 4
"""Positions drawn for each patch asked for, so that enough are left when flat ones are out."""


class MapSource:
    """Maps that enter a stage's filter bank, computed image by image from the images' own maps.

    `images` is one tensor [n, maps, height, width] or, for images of several sizes, a list of [1, maps, h, w];
    `network` holds all that lies between them and the bank.
    """

    def __init__(self, images: Tensor | Sequence[Tensor], network: nn.Module, device: torch.device) -> None:
        self.images, self.network, self.device = images, network, device

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def batches(self, indices: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield some of `indices` with their maps [b, maps, height, width]."""
        step = BATCH if isinstance(self.images, Tensor) else 1
        for start in range(0, len(indices), step):
            chosen = indices[start : start + step]
            images = self.images[chosen] if isinstance(self.images, Tensor) else self.images[int(chosen[0])]
            yield chosen, self.network(images.to(self.device))


class PatchSource:
    """What an unsupervised learner sees: patches of the maps that its filters will see.

    `sample(count)` returns [count, fan_in, size, size], the same for the same seed and count.
    """

    def __init__(self, maps: MapSource, size: int, seed: int, columns: NDArray[np.int64] | None = None) -> None:
        self.maps, self.size, self.seed, self.columns = maps, size, seed, columns
        self._stacks: dict[int, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where patches come out."""
        return self.maps.device

    def of(self, columns: NDArray[np.int64]) -> PatchSource:
        """Return the source of the same patches for the maps named by `columns`, as a connection table gives them."""
        group = PatchSource(self.maps, self.size, self.seed, columns)
        group._stacks = self._stacks
        return group

    def sample(self, count: int) -> Tensor:
        """Return `count` patches at random positions of random images, flat ones left out (repeated if too few)."""
        if count not in self._stacks:
            self._stacks[count] = self._cut(count)
        stack = self._stacks[count]
        return stack if self.columns is None else stack[:, torch.from_numpy(self.columns).to(stack.device)]

    def _cut(self, count: int) -> Tensor:
        generator = np.random.default_rng(self.seed)
        drawn = count * TRIES
        owners = np.sort(generator.integers(len(self.maps), size=drawn))
        rows, columns = generator.random(drawn), generator.random(drawn)
        used = np.unique(owners)
        patches: list[Tensor] = []
        for indices, maps in self.maps.batches(used):
            for index, image in zip(indices, maps, strict=True):
                here = slice(*np.searchsorted(owners, [index, index + 1]))
                patches.append(self._cut_image(image, rows[here], columns[here], int(index)))
        stack = torch.cat(patches)
        if not bool(torch.isfinite(stack).all()):
            raise LearningError("the maps of the training images are not finite: check the filters of the stages below")
        # A patch of one value has no contrast of its own; what it says is its difference from the others.
        contrast = stack.std(dim=(1, 2, 3)) if stack[0].numel() > 1 else (stack - stack.mean()).abs().flatten()
        kept = stack[contrast > FLAT * contrast.square().mean().sqrt()]
        if len(kept) == 0:
            raise LearningError("every patch of the training images is constant: there is nothing to learn from")
        order = torch.from_numpy(generator.permutation(len(kept))).to(kept.device)
        # Small sets have fewer distinct patches than a learner asks for: they are then seen more than once.
        return kept[order.repeat(-(-count // len(kept)))[:count]]

    def _cut_image(self, image: Tensor, rows: NDArray[np.float64], columns: NDArray[np.float64], index: int) -> Tensor:
        height, width = image.shape[1] - self.size + 1, image.shape[2] - self.size + 1
        if min(height, width) < 1:
            raise LearningError(
                f"image {index} is too small to learn from: its maps are {image.shape[1]}×{image.shape[2]}, "
                f"patches are {self.size}×{self.size}"
            )
        tops = torch.from_numpy((rows * height).astype(np.int64)).to(image.device)
        lefts = torch.from_numpy((columns * width).astype(np.int64)).to(image.device)
        windows = image.unfold(1, self.size, 1).unfold(2, self.size, 1)
        return windows[:, tops, lefts].transpose(0, 1)
