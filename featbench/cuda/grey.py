"""Grey images that are copied to a GPU as bytes and become maps there.

Bytes are a quarter of float32 maps to copy, and the CPU is left to read the next images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from featbench.data.maps import Maps, Preprocessing
from featbench.data.prepare import PackedImages
from featbench.types import IntArray


class GreyImages:
    """Some images whose maps come out in one size; a slice of them is again `GreyImages`.

    shape: that of their maps, (n, 1, height, width), so that they can take the place of a tensor of maps.
    """

    def __init__(self, images: PackedImages, preprocessing: Preprocessing, size: tuple[int, int]) -> None:
        self._images, self._preprocessing, self._size = images, preprocessing, size
        self.shape = (len(images), 1, *size)

    @classmethod
    def from_maps(cls, maps: Maps, chosen: IntArray) -> GreyImages:
        """Return the chosen images of `maps`, whose maps have to come out in one size."""
        height, width = maps.image_sizes[chosen[0]]
        images = PackedImages.pack([maps.pixels[int(index)] for index in maps.chosen[chosen]])
        return cls(images, maps.preprocessing, (int(height), int(width)))

    @staticmethod
    def can_hold(maps: Tensor | Maps) -> bool:
        """Whether maps are made of bytes, one channel an image: those of colour images are made on the CPU."""
        return isinstance(maps, Maps) and maps.pixels.channels == 1 and maps.pixels.flat.dtype == np.uint8

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> GreyImages:
        chosen = [self._images[index] for index in range(len(self))[part]]
        return GreyImages(PackedImages.pack(chosen), self._preprocessing, self._size)

    def make_maps(self, device: torch.device) -> Tensor:
        """Return the maps [n, 1, height, width], float32, on a device; the copy does not wait for what runs there."""
        # Triton is imported where it is needed: a CPU does without it.
        from featbench.cuda.image_kernels import normalise_images

        # One copy for all images, whatever their sizes.
        flat, shapes = torch.from_numpy(np.ascontiguousarray(self._images.flat)), self._images.shapes
        there = flat.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else flat
        pixels = shapes.prod(axis=1)
        wanted = self._preprocessing
        return normalise_images(
            there, np.cumsum(pixels) - pixels, shapes, self._size, standardise=wanted.standardise, lcn=wanted.lcn
        )
