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
from featbench.system.threads import use_threads
from featbench.types import IntArray

BATCH = 32
"""Images of one size whose maps are computed and held at once while patches are cut."""

FLAT = 0.1
"""A patch is left out if its standard deviation is below this part of the root mean square of all: blank background
teaches nothing."""

TRIES = 4
"""Positions drawn for each patch that is asked for, so that enough remain without the flat ones."""


class MapSource:
    """Maps that enter a stage's filter bank, computed a few images at a time: those of all would fill the memory.

    images: maps [n, maps, height, width], or `Maps`, joined or not, of one size or of several. network: all that lies
    between them and the bank. device: where the network runs and the maps come out.
    """

    def __init__(self, images: Tensor | Maps | JoinedMaps, network: nn.Module, device: torch.device) -> None:
        self.images, self.device = images, device
        # Images pass through the network with all threads, however few the learner that asks for them has.
        self._threads = torch.get_num_threads()
        self._extractor = Batches(network, device)

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def batches(self, indices: IntArray) -> Iterator[tuple[IntArray, Tensor]]:
        """Yield the images `indices` with their maps [b, maps, height, width], some at a time, in order."""
        # Images of several sizes have maps of several sizes, which make no tensor: they come one by one.
        step = BATCH if isinstance(self.images, Tensor) or len(self.images.sizes) == 1 else 1
        for start in range(0, len(indices), step):
            chosen = indices[start : start + step]
            with use_threads(self._threads):
                maps = self._extractor.launch(self.images[chosen])().to(self.device)
            yield chosen, maps


class PatchSource:
    """What an unsupervised learner sees: patches of the maps that its filters will be applied to.

    maps: where the patches are cut. size: side of a patch. seed: decides images and positions. columns: which of the
    maps the filters see, all if left out.
    """

    def __init__(self, maps: MapSource, size: int, seed: int, columns: NDArray[np.int64] | None = None) -> None:
        self.maps, self.size, self.seed, self.columns = maps, size, seed, columns
        # Patches of all maps by (count, size): the groups of a connection table look at the same ones, cut once.
        self._samples: dict[tuple[int, int], Tensor] = {}

    @property
    def device(self) -> torch.device:
        """The device that patches come out on."""
        return self.maps.device

    def of(self, columns: NDArray[np.int64]) -> PatchSource:
        """Return the source of the same patches, restricted to the maps `columns`: a row of a connection table."""
        group = PatchSource(self.maps, self.size, self.seed, columns)
        group._samples = self._samples
        return group

    def sample(self, count: int, size: int | None = None) -> Tensor:
        """Return patches [count, fan_in, size, size] at random positions of random images.

        Flat patches are left out; if too few others are found, these are repeated. The same seed, count and size give
        the same patches. size: of larger windows, for learners that see more than one position of a filter. Raises
        `LearningError` if all patches are flat, maps are not finite, or an image is smaller than a patch.
        """
        key = (count, size or self.size)
        if key not in self._samples:
            self._samples[key] = self._cut(*key)
        patches = self._samples[key]
        return patches if self.columns is None else patches[:, torch.from_numpy(self.columns).to(patches.device)]

    def _cut(self, count: int, size: int) -> Tensor:
        """Cut patches in two passes: the first finds the flat ones, so that TRIES times as many are never held."""
        generator = np.random.default_rng(self.seed)
        # More than are asked for: which patches are flat is known only once all contrasts are measured.
        drawn = count * TRIES
        # Sorted, so that the maps of an image are computed once and all its patches are cut together.
        images = np.sort(generator.integers(len(self.maps), size=drawn))
        # Positions are relative, in [0, 1): images may differ in size, and their maps are not known yet.
        positions = generator.random((drawn, 2))
        contrast = _measure_contrasts(self._cut_patches(images, positions, size))
        kept = np.flatnonzero(contrast > FLAT * np.sqrt((contrast**2).mean()))
        if len(kept) == 0:
            raise LearningError("every patch of the training images is constant: there is nothing to learn from")
        # Small sets have fewer distinct patches than a learner asks for: they are then seen more than once.
        order = np.resize(generator.permutation(kept), count)
        distinct, inverse = np.unique(order, return_inverse=True)
        patches = torch.cat(list(self._cut_patches(images[distinct], positions[distinct], size)))
        return patches[torch.from_numpy(inverse).to(patches.device)]

    def _cut_patches(self, images: IntArray, positions: NDArray[np.float64], size: int) -> Iterator[Tensor]:
        """Yield the patches [b, maps, size, size] at relative `positions` of sorted `images`, image by image."""
        for indices, maps in self.maps.batches(np.unique(images)):
            for index, image in zip(indices, maps, strict=True):
                of_image = slice(*np.searchsorted(images, [index, index + 1]))
                yield _cut_image(image, positions[of_image], size, int(index))


def _cut_image(image: Tensor, positions: NDArray[np.float64], size: int, index: int) -> Tensor:
    """Return the patches [b, maps, size, size] at relative positions [b, 2] of the maps of one image."""
    room = np.array(image.shape[1:]) - size + 1
    if room.min() < 1:
        raise LearningError(
            f"image {index} is too small to learn from: its maps are {image.shape[1]}×{image.shape[2]}, "
            f"patches are {size}×{size}"
        )
    tops, lefts = torch.from_numpy((positions * room).astype(np.int64)).to(image.device).unbind(dim=1)
    # A view of all windows, which copies nothing: only those that are indexed are.
    windows = image.unfold(1, size, 1).unfold(2, size, 1)
    return windows[:, tops, lefts].transpose(0, 1)


def _measure_contrasts(blocks: Iterator[Tensor]) -> NDArray[np.float64]:
    """Return the standard deviation of each patch; for patches of one value, its distance from the mean of all."""
    found = []
    for patches in blocks:
        if not bool(torch.isfinite(patches).all()):
            raise LearningError("the maps of the training images are not finite: check the filters of the stages below")
        single = patches[0].numel() == 1
        found.append(patches.flatten() if single else patches.std(dim=(1, 2, 3)))
    values = torch.cat(found).double().cpu().numpy()
    return np.abs(values - values.mean()) if single else values
