"""Images prepared once, before any normalisation: grey or RGB, at the protocol's size, packed into one array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featbench.data.image_files import ImageFiles
from featbench.data.image_opening import BAND
from featbench.data.image_reader import ReadImage
from featbench.data.inspection import Traits, describe_traits, find_traits
from featbench.data.numbers import read_numbers, rescale
from featbench.data.parallel import map_images
from featbench.errors import DataError, FeatbenchError
from featbench.system.printable import make_printable
from featbench.types import Images, IntArray, Pixels

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue: ITU-R BT.601, as Pillow's conversion to "L"; the papers do not give theirs."""

Progress = Callable[[str, int, int], None]
"""Receives what is being done, how many images are finished, and out of how many."""


class PackedImages(Sequence[Pixels]):
    """Images of any sizes in one flat array, as the store keeps them; image i is a view of its part of the array.

    flat: the values of all images, one image after another, uint8 or float64. shapes: [n, 2], height and width of
    each. channels: 1 for grey images [height, width], 3 for RGB [height, width, 3].
    """

    def __init__(self, flat: Pixels, shapes: IntArray, channels: int = 1) -> None:
        self.flat, self.shapes, self.channels = flat, shapes, channels
        # Where each image ends in the flat array. One array can be a memory map, of which nothing is read until an
        # image is asked for; a list of n arrays would be n objects to make and n files to open.
        self._ends = np.cumsum(shapes.prod(axis=1)) * channels

    @classmethod
    def pack(cls, images: Sequence[Pixels]) -> PackedImages:
        """Pack images, all [height, width] or all [height, width, 3]; bytes and floats together become floats."""
        flat = np.concatenate([image.ravel() for image in images])
        shapes = np.array([image.shape for image in images], dtype=np.int64)
        return cls(flat, shapes[:, :2], 1 if shapes.shape[1] == 2 else int(shapes[0, 2]))

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Pixels:  # type: ignore[override]
        height, width = self.shapes[index]
        end = self._ends[index]
        values = self.flat[end - height * width * self.channels : end]
        return values.reshape(height, width) if self.channels == 1 else values.reshape(height, width, self.channels)


@dataclass(frozen=True)
class PreparedImages:
    """Labelled images after `prepare`: all grey or all RGB, at the protocol's size, packed into one array.

    labels, classes and test are those of the raw `Images`, for the images that could be used. positions: [n], where
    each of them stands among the raw images. left_out: one line for each image that could not be used, as
    `--skip-bad-images` allows. warnings: one line for each thing that is strange about images from files, as copies.
    """

    pixels: PackedImages
    labels: IntArray
    classes: tuple[str, ...]
    positions: IntArray
    test: NDArray[np.bool_] | None = None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Prepared:
    """One image prepared, and what is remembered of its file if it has one."""

    pixels: Pixels
    traits: Traits | None


def prepare(
    images: Images,
    size: int | None,
    *,
    channels: int = 1,
    least: int = 1,
    skip_bad: bool | None = False,
    progress: Progress | None = None,
) -> PreparedImages:
    """Read all images, and return them with their longest side `size` pixels (None: as it is), uint8 or float64.

    channels: 1 makes every image grey, 3 makes every image RGB; a grey image then gets three equal channels. Images are
    read by several threads, and the result does not depend on how many. Every image that cannot be read, or has a side
    shorter than `least` in the end, is found before anything is raised: then a `DataError` names them all, or with
    `skip_bad` they are left out and described in `left_out`. skip_bad None: there is no asking to leave them out.
    """
    count = len(images.pixels)
    if count == 0:
        raise DataError("there are no images to preprocess")
    prepared = map_images(
        lambda index: _prepare_image(images.pixels, index, size, channels, least),
        count,
        None if progress is None else partial(progress, "reading images"),
    )
    bad = [str(error) for error in prepared if isinstance(error, DataError)]
    if len(bad) == count or (bad and not skip_bad):
        raise DataError(_describe_bad_images(bad, count, skippable=skip_bad is not None))
    good = [image for image in prepared if isinstance(image, _Prepared)]
    positions = np.flatnonzero([isinstance(image, _Prepared) for image in prepared])
    return PreparedImages(
        pixels=PackedImages.pack([image.pixels for image in good]),
        labels=images.labels[positions],
        classes=images.classes,
        positions=positions,
        test=None if images.test is None else images.test[positions],
        left_out=tuple(bad),
        warnings=find_warnings(images, positions, [image.traits for image in good if image.traits is not None]),
    )


def find_warnings(images: Images, positions: IntArray, traits: Sequence[Traits]) -> tuple[str, ...]:
    """Return what is strange about images from files; others have no names by which a user could find them."""
    if not isinstance(images.pixels, ImageFiles):
        return ()
    names = [make_printable(path) for path in images.pixels.paths] if images.names is None else images.names
    return tuple(describe_traits(traits, images.labels[positions], [names[position] for position in positions]))


def _describe_bad_images(bad: Sequence[str], count: int, *, skippable: bool) -> str:
    if len(bad) == count:
        return f"none of the {count} images can be used; the first: {bad[0]}"
    listed = "".join(f"\n  {line}" for line in bad[:20]) + ("\n  …" if len(bad) > 20 else "")
    one = len(bad) == 1
    advice = "mend or remove it" if one else "mend or remove them"
    if skippable:
        advice += f", or leave {'it' if one else 'them'} out with --skip-bad-images"
    return f"{bad[0]}; {advice}" if one else f"{len(bad)} of {count} images cannot be used: {advice}{listed}"


def _prepare_image(
    pixels: Sequence[Pixels] | Pixels, index: int, size: int | None, channels: int, least: int
) -> _Prepared | DataError:
    """Return one image prepared, or the error that says why it cannot be: errors are collected, not raised."""
    try:
        read = pixels.read(index) if isinstance(pixels, ImageFiles) else ReadImage(read_array(pixels, index))
        # Grey first, then resized, and resized before three channels are made of one: they are resized alike.
        convert = convert_to_grey if channels == 1 or read.pixels.ndim == 2 else convert_to_rgb
        image = convert(read.pixels, index)
        resized = image if size is None else resize(image, size)
        if channels == 3:
            resized = convert_to_rgb(resized, index)
        height, width = resized.shape[:2]
        if min(height, width) < least:
            name = make_printable(pixels.paths[index]) if isinstance(pixels, ImageFiles) else f"image {index}"
            return DataError(f"{name} comes to {height}×{width} pixels, but {least}×{least} are needed at least")
        traits = find_traits(resized, read.pixels, read.remarks) if isinstance(pixels, ImageFiles) else None
        return _Prepared(resized, traits)
    except DataError as error:
        return error


def read_array(pixels: Sequence[Pixels] | Pixels, index: int) -> Pixels:
    """Return one image of a data set as an array; whatever the data set's own code raises becomes a `DataError`."""
    try:
        image = pixels[index]
        if np.ma.is_masked(image):
            raise DataError(f"image {index} has masked values, which are no numbers: fill them")
        return np.asarray(image)
    except FeatbenchError:
        raise
    except Exception as error:  # a plugin's images may be read by any code
        raise DataError(f"image {index} cannot be read: {type(error).__name__}: {error}") from error


def convert_to_grey(image: Pixels, index: int = 0) -> Pixels:
    """Return [height, width] of a grey or RGB image, uint8 if it is, else float64; `index` names it in errors."""
    _check_shape(image, index)
    if image.dtype == np.uint8:
        # Pillow weighs bytes in whole numbers, (19595 R + 38470 G + 7471 B + 2^15) >> 16. The factors add up to 2^16:
        # three equal channels keep their value.
        return image if image.ndim == 2 else _weigh_bytes(image)
    values = read_numbers(image, index)
    if values.ndim == 2:
        return values
    # Summed term by term, not as a product of matrices, which may round the same three values in two ways.
    red, green, blue = (weight * values[:, :, band] for band, weight in enumerate(GREY_WEIGHTS))
    grey: NDArray[np.float64] = red + green + blue
    return grey


def _weigh_bytes(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return RGB bytes as grey, some rows of a large image at a time: Pillow's own copy has 4 bytes a pixel."""
    height, width, _ = image.shape
    grey = np.empty((height, width), dtype=np.uint8)
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        grey[top : top + rows] = np.asarray(Image.fromarray(image[top : top + rows]).convert("L"))
    return grey


def convert_to_rgb(image: Pixels, index: int = 0) -> Pixels:
    """Return [height, width, 3] of a grey or RGB image, uint8 if it is, else float64; `index` names it in errors."""
    _check_shape(image, index)
    values = image if image.dtype == np.uint8 else read_numbers(image, index)
    if values.ndim == 3:
        return values
    repeated: NDArray[Any] = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    return repeated


def _check_shape(image: Pixels, index: int) -> None:
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise DataError(
            f"image {index} has shape {list(image.shape)}; expected [height, width] grey or [height, width, 3] RGB"
        )


def resize(image: Pixels, longest: int) -> Pixels:
    """Resize an image so that its longest side is `longest` pixels: Pillow's bicubic filter, antialiased.

    image [height, width] or [height, width, 3], uint8 or floating point; the result is uint8 or float64.
    """
    height, width = image.shape[:2]
    # The ratio of the sides is kept but for rounding; the shorter side of a very long image does not vanish.
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return image
    if image.ndim == 3 and image.dtype != np.uint8:
        # Pillow has no mode of three floats a pixel; it resizes each band by itself in RGB as well.
        stacked: NDArray[Any] = np.stack([_resample(image[:, :, band], size) for band in range(3)], axis=2)
        return stacked
    return _resample(image, size)


def _resample(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize to (width, height).

    Where the image shrinks, Pillow widens the filter by the factor: it averages what the smaller image cannot show.
    """
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    # Of numbers, Pillow resizes those of single precision alone: they are given without their offset, and in its range.
    (scaled,), least, exponents = rescale(image.astype(np.float64)[np.newaxis])
    resized = np.array(Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    restored: NDArray[np.float64] = np.ldexp(resized + least[0], exponents[0])
    return restored
