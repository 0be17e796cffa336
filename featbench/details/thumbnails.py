"""Small pictures of a data set's images, as the images are: in colour, whatever the protocol makes of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featbench.data.parallel import map_images
from featbench.report.contact_sheet import SIDE
from featbench.types import Images, Pixels

SMALL = 64
"""Images of at most so many pixels a side are enlarged by whole pixels."""

QUALITY = 82
"""Of a photograph as JPEG."""


@dataclass(frozen=True)
class Thumbnail:
    """An image at most `SIDE` pixels wide and high, or, if it is smaller, as it is."""

    image: Image.Image

    @property
    def is_small(self) -> bool:
        """Whether its pixels are to be seen one by one."""
        return max(self.image.size) <= SMALL

    def encode(self) -> tuple[bytes, str]:
        """Return a file's content, and its format: png of a small image, whose pixels stay as they are, else jpeg."""
        form = "png" if self.is_small else "jpeg"
        buffer = io.BytesIO()
        self.image.save(buffer, format=form, quality=QUALITY, optimize=True)
        return buffer.getvalue(), form

    def enlarge(self) -> Image.Image:
        """Return the image at the size of a contact sheet."""
        if not self.is_small:
            return self.image
        factor = SIDE // max(self.image.size)
        return self.image.resize((self.image.width * factor, self.image.height * factor), Image.Resampling.NEAREST)


def make_thumbnails(images: Images, positions: Sequence[int]) -> list[Thumbnail]:
    """Return the thumbnails of the images at these positions of a data set.

    Bytes of a file are shown as they are. Other values have a range of their own, which is stretched over all such
    images: black is the least value among them, white the greatest.
    """
    found = map_images(lambda number: np.asarray(images.pixels[positions[number]]), len(positions))
    others = [pixels for pixels in found if images.names is None or pixels.dtype != np.uint8]
    least = min((float(pixels.min()) for pixels in others), default=0.0)
    greatest = max((float(pixels.max()) for pixels in others), default=0.0)

    def shade(pixels: Pixels) -> NDArray[np.uint8]:
        if images.names is not None and pixels.dtype == np.uint8:
            return np.asarray(pixels, dtype=np.uint8)
        scaled = (pixels.astype(np.float64) - least) * (255 / (greatest - least) if greatest > least else 0.0)
        return np.rint(scaled).astype(np.uint8)

    return [_shrink(shade(pixels)) for pixels in found]


def _shrink(pixels: NDArray[np.uint8]) -> Thumbnail:
    image = Image.fromarray(pixels)
    if max(image.size) > SIDE:
        scale = SIDE / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return Thumbnail(image.convert("RGB"))
