"""Patches for learning without labels, cut from the maps that enter a filter bank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.data.maps import JoinedMaps, Maps
from featbench.devices.batches import Batches
from featbench.errors import LearningError
from featbench.types import IntArray

BATCH = 32
"""Images whose maps are computed at once while patches are cut."""

FLAT = 0.1
"""A patch is left out if its standard deviation is below this part of what they have in root mean square: blank
background teaches nothing."""

TRIES = 4
"""Positions drawn for each patch asked for, so that enough are left when flat ones are out."""


class MapSource:
    """Maps that enter a stage's filter bank, computed image by image from the images' own maps.

    `images` are maps [n, maps, height, width], or `Maps`, joined or not, of one size or of several; `network` holds all
    that lies between them and the bank.
    """

    def __init__(self, images: Tensor | Maps | JoinedMaps, network: nn.Module, device: torch.device) -> None:
        self.images, self.device = images, device
        self._through = Batches(network, device)

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def batches(self, indices: IntArray) -> Iterator[tuple[IntArray, Tensor]]:
        """Yield some of `indices` with their maps [b, maps, height, width]."""
        step = BATCH if isinstance(self.images, Tensor) or len(self.images.sizes) == 1 else 1
        for start in range(0, len(indices), step):
            chosen = indices[start : start + step]
            yield chosen, self._through.launch(self.images[chosen])().to(self.device)


class PatchSource:
    """What an unsupervised learner sees: patches of the maps that its filters will see.

    `sample(count)` returns [count, fan_in, size, size], the same for the same seed and count; `sample(count, size)`
    cuts windows of another size, for learners that see more than one position of a filter.
    """

    def __init__(self, maps: MapSource, size: int, seed: int, columns: NDArray[np.int64] | None = None) -> None:
        self.maps, self.size, self.seed, self.columns = maps, size, seed, columns
        self._stacks: dict[tuple[int, int], Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where patches come out."""
        return self.maps.device

    def of(self, columns: NDArray[np.int64]) -> PatchSource:
        """Return the source of the same patches for the maps named by `columns`, as a connection table gives them."""
        group = PatchSource(self.maps, self.size, self.seed, columns)
        group._stacks = self._stacks
        return group

    def sample(self, count: int, size: int | None = None) -> Tensor:
        """Return `count` patches at random positions of random images, flat ones left out (repeated if too few)."""
        key = (count, size or self.size)
        if key not in self._stacks:
            self._stacks[key] = self._cut(*key)
        stack = self._stacks[key]
        return stack if self.columns is None else stack[:, torch.from_numpy(self.columns).to(stack.device)]

    def _cut(self, count: int, size: int) -> Tensor:
        """Go through the images twice, so that flat patches are known before any is kept in memory."""
        generator = np.random.default_rng(self.seed)
        drawn = count * TRIES
        owners = np.sort(generator.integers(len(self.maps), size=drawn))
        places = generator.random((drawn, 2))
        contrast = _contrasts(self._patches(owners, places, size))
        kept = np.flatnonzero(contrast > FLAT * np.sqrt((contrast**2).mean()))
        if len(kept) == 0:
            raise LearningError("every patch of the training images is constant: there is nothing to learn from")
        # Small sets have fewer distinct patches than a learner asks for: they are then seen more than once.
        order = np.resize(generator.permutation(kept), count)
        cut, position = np.unique(order, return_inverse=True)
        stack = torch.cat(list(self._patches(owners[cut], places[cut], size)))
        return stack[torch.from_numpy(position).to(stack.device)]

    def _patches(self, owners: IntArray, places: NDArray[np.float64], size: int) -> Iterator[Tensor]:
        """Yield the patches [b, maps, size, size] at relative `places` of the images `owners`, image by image."""
        for indices, maps in self.maps.batches(np.unique(owners)):
            for index, image in zip(indices, maps, strict=True):
                here = slice(*np.searchsorted(owners, [index, index + 1]))
                yield _cut_image(image, places[here], size, int(index))


def _cut_image(image: Tensor, places: NDArray[np.float64], size: int, index: int) -> Tensor:
    room = np.array(image.shape[1:]) - size + 1
    if room.min() < 1:
        raise LearningError(
            f"image {index} is too small to learn from: its maps are {image.shape[1]}×{image.shape[2]}, "
            f"patches are {size}×{size}"
        )
    tops, lefts = torch.from_numpy((places * room).astype(np.int64)).to(image.device).unbind(dim=1)
    windows = image.unfold(1, size, 1).unfold(2, size, 1)
    return windows[:, tops, lefts].transpose(0, 1)


def _contrasts(blocks: Iterator[Tensor]) -> NDArray[np.float64]:
    """Return the standard deviation of each patch; of patches of one value, how far it lies from all others."""
    found = []
    for patches in blocks:
        if not bool(torch.isfinite(patches).all()):
            raise LearningError("the maps of the training images are not finite: check the filters of the stages below")
        single = patches[0].numel() == 1
        found.append(patches.flatten() if single else patches.std(dim=(1, 2, 3)))
    values = torch.cat(found).double().cpu().numpy()
    return np.abs(values - values.mean()) if single else values
