"""Images made ready once: grey, at the protocol's size, as bytes where they came as bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featbench.data.image_files import ImageFiles
from featbench.errors import DataError
from featbench.types import Images, IntArray, Pixels

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Red, green, blue: ITU-R 601, as Pillow's conversion to "L"; the paper does not say."""

BLOCK = 64
"""Images that one thread makes ready at a time."""

Progress = Callable[[str, int, int], None]


class PackedImages(Sequence[Pixels]):
    """Grey images of any sizes in one flat array, as the store keeps them. shapes: [n, 2], height and width."""

    def __init__(self, flat: Pixels, shapes: IntArray) -> None:
        self.flat, self.shapes = flat, shapes
        self._ends = np.cumsum(shapes.prod(axis=1))

    @classmethod
    def pack(cls, images: Sequence[Pixels]) -> PackedImages:
        """Pack images [height, width]."""
        shapes = np.array([image.shape for image in images], dtype=np.int64).reshape(-1, 2)
        return cls(np.concatenate([image.ravel() for image in images]), shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Pixels:  # type: ignore[override]
        height, width = self.shapes[index]
        return self.flat[self._ends[index] - height * width : self._ends[index]].reshape(height, width)


@dataclass(frozen=True)
class PreparedImages:
    """Labelled images after `prepare`: grey, at the protocol's size, packed into one array.

    labels, classes and test are those of the raw `Images`, for the images that could be used. left_out: one line for
    each image that could not, as `--skip-bad-images` allows.
    """

    pixels: PackedImages
    labels: IntArray
    classes: tuple[str, ...]
    test: NDArray[np.bool_] | None = None
    left_out: tuple[str, ...] = ()


def prepare(
    images: Images,
    size: int | None,
    *,
    least: int = 1,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> PreparedImages:
    """Return the images grey, their longest side `size` pixels (None: as it is), `PackedImages` of uint8 or float32.

    Images are read in parallel; the result does not depend on it. Those that cannot be read, or have a side shorter
    than `least` in the end, are all found first: then a `DataError` names them, or with `skip_bad` they are left out
    and named in `left_out`.
    """
    starts = range(0, len(images.pixels), BLOCK)
    made: list[Pixels | DataError] = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for block in pool.map(lambda start: _make_block(images.pixels, start, size, least), starts):
            made += block
            if progress is not None:
                progress("reading images", len(made), len(images.pixels))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the images that are left
    bad = [str(error) for error in made if isinstance(error, DataError)]
    if len(bad) == len(made) or (bad and not skip_bad):
        raise DataError(_complaint(bad, len(made)))
    kept = np.array([not isinstance(image, DataError) for image in made])
    pixels = PackedImages.pack([image for image in made if not isinstance(image, DataError)])
    test = None if images.test is None else images.test[kept]
    return PreparedImages(pixels, images.labels[kept], images.classes, test, left_out=tuple(bad))


def _complaint(bad: Sequence[str], count: int) -> str:
    if len(bad) == count:
        return f"none of the {count} images can be used; the first: {bad[0]}"
    listed = "".join(f"\n  {line}" for line in bad[:20]) + ("\n  …" if len(bad) > 20 else "")
    if len(bad) == 1:
        return f"{bad[0]}; mend or remove it, or leave it out with --skip-bad-images"
    advice = "mend or remove them, or leave them out with --skip-bad-images"
    return f"{len(bad)} of {count} images cannot be used: {advice}{listed}"


def _make_block(
    pixels: Sequence[Pixels] | Pixels, start: int, size: int | None, least: int
) -> list[Pixels | DataError]:
    return [_make(pixels, index, size, least) for index in range(start, min(start + BLOCK, len(pixels)))]


def _make(pixels: Sequence[Pixels] | Pixels, index: int, size: int | None, least: int) -> Pixels | DataError:
    try:
        grey = to_grey(np.asarray(pixels[index]), index)
        made = grey if size is None else resize(grey, size)
        if min(made.shape) < least:
            name = pixels.paths[index] if isinstance(pixels, ImageFiles) else f"image {index}"
            height, width = made.shape
            return DataError(f"{name} comes to {height}×{width} pixels, but {least}×{least} are needed at least")
        return made
    except DataError as error:
        return error


def to_grey(image: Pixels, index: int = 0) -> Pixels:
    """Return [height, width] of a grey or RGB image, uint8 if it is, else float32; `index` names it in errors."""
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise DataError(
            f"image {index} has shape {list(image.shape)}; expected [height, width] grey or [height, width, 3] RGB"
        )
    if image.dtype == np.uint8:
        return image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))
    grey = image.astype(np.float32)
    if grey.ndim == 3:
        grey = (grey @ np.array(GREY_WEIGHTS, dtype=np.float32)).astype(np.float32)
    if not np.isfinite(grey).all():
        raise DataError(f"image {index} holds values that are not finite")
    return grey


def resize(grey: Pixels, longest: int) -> Pixels:
    """Resize [height, width] so that its longest side is `longest` pixels: bicubic, antialiased (Pillow's)."""
    height, width = grey.shape
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return grey
    resized: NDArray[np.uint8] | NDArray[np.float32] = np.array(
        Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
    )
    return resized
