"""What is fuzzed: a reader with a sound file, and what another program finds in a file; here of images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import Mutation, mutate, mutate_png
from numpy.typing import NDArray
from PIL import Image, ImageOps

import featbench

Content = list[Any]
"""What a reader gives: arrays, or names and bytes."""

RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Target:
    """A reader with a sound file.

    name: reader and format. files: all files of a sound copy, by their paths; the first is the one that is damaged.
    read: gives what is in a folder of these files. decode: gives what another program finds in the damaged file, in the
    same form; None where nothing but the sound content will do. protected: whether a checksum covers the content.
    mutations: how the file is damaged; all but the first leave checksums right, so that what is read may be another
    content. missing: read gives None for what it sets aside.
    """

    name: str
    files: dict[str, bytes]
    read: Callable[[Path], Content | None]
    decode: Callable[[Path], Content] | None = None
    protected: bool = False
    mutations: tuple[Mutation, ...] = (mutate,)


def draw_picture(*shape: int) -> NDArray[np.uint8]:
    """Return smooth pixels with some noise: compressed, they take more than a few bytes."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = np.sin(y / 5) * np.cos(x / 4)
    grey = waves if len(shape) == 2 else np.stack([np.roll(waves, 3 * band) for band in range(shape[2])], axis=-1)
    return (127 + 110 * grey + RANDOM.integers(-9, 10, shape)).astype(np.uint8)


def decode_by_pillow(path: Path) -> Content:
    """Return what Pillow finds in a file, by the rules of docs/data.md, written once more."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened) or opened
        if image.mode == "F":
            return [np.rint(255 * np.asarray(image)).astype(np.uint8)]
        if image.mode.startswith("I"):
            return [(np.asarray(image) >> 8).astype(np.uint8)]
        if image.mode in ("1", "L") and "transparency" not in image.info:
            return [np.asarray(image.convert("L"))]
        if image.has_transparency_data:
            grey = image.mode in ("L", "LA")
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            return [np.asarray(Image.alpha_composite(white, layer).convert("RGB"))[..., 0 if grey else slice(None)]]
        return [np.asarray(image.convert("RGB"))]


def make_image_target(name: str, ending: str, image: Image.Image, **options: Any) -> Target:
    """Return the target of `read_image` with one image, saved by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    file = f"image.{ending}"
    png = ending == "png"
    return Target(
        f"image {name}",
        {file: buffer.getvalue()},
        lambda folder: [featbench.read_image(folder / file)],
        decode_by_pillow,
        protected=png,
        mutations=(mutate, mutate_png) if png else (mutate,),
    )


def list_image_targets() -> Iterator[Target]:
    """Yield a target for each format and kind of image."""
    grey, rgb, rgba = (Image.fromarray(draw_picture(*shape)) for shape in ((23, 18), (23, 18, 3), (23, 18, 4)))
    deep = Image.fromarray(draw_picture(23, 18).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    yield make_image_target("jpg", "jpg", rgb, format="JPEG")
    yield make_image_target("jpeg grey progressive", "jpeg", grey, format="JPEG", progressive=True)
    yield make_image_target("jpg turned by EXIF", "jpg", rgb, format="JPEG", exif=turned)
    yield make_image_target("jpg CMYK", "jpg", rgb.convert("CMYK"), format="JPEG")
    yield make_image_target("png", "png", rgb, format="PNG")
    yield make_image_target("png palette", "png", rgb.quantize(16), format="PNG")
    yield make_image_target("png transparent", "png", rgba, format="PNG")
    yield make_image_target("png grey transparent", "png", rgba.convert("LA"), format="PNG")
    yield make_image_target("png 16 bits", "png", deep, format="PNG")
    yield make_image_target("png 1 bit", "png", grey.convert("1"), format="PNG")
    yield make_image_target("pgm", "pgm", grey, format="PPM")
    yield make_image_target("ppm", "ppm", rgb, format="PPM")
    yield make_image_target("pbm", "pbm", grey.convert("1"), format="PPM")
    yield make_image_target("pgm 16 bits", "pgm", deep, format="PPM")
    yield make_image_target("bmp", "bmp", rgb, format="BMP")
    yield make_image_target("bmp palette", "bmp", grey, format="BMP")
    yield make_image_target("webp", "webp", rgb, format="WEBP")
    yield make_image_target("webp lossless", "webp", rgba, format="WEBP", lossless=True)
    yield make_image_target("tif", "tif", rgb, format="TIFF")
    yield make_image_target("tif deflated", "tif", rgb, format="TIFF", compression="tiff_deflate")
    yield make_image_target("tif LZW 16 bits", "tif", deep, format="TIFF", compression="tiff_lzw")
    fractions = Image.fromarray(draw_picture(23, 18).astype(np.float32) / 255)
    yield make_image_target("tif floats", "tif", fractions, format="TIFF")
    yield make_image_target("gif", "gif", rgb.quantize(64), format="GIF")
    frames = [grey.quantize(32), ImageOps.flip(grey).quantize(32)]
    yield make_image_target("gif animated", "gif", frames[0], format="GIF", save_all=True, append_images=frames[1:])
