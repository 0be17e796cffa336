"""One image file becomes pixels, as a viewer shows it: `docs/data.md` has the rules."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from featbench.arguments import read_path
from featbench.data.image_formats import HEAD, READ, find_format, name_other_format
from featbench.data.image_opening import open_image, read_array
from featbench.data.image_samples import (
    Samples,
    describe_samples,
    reduce_floats,
    reduce_integers,
    require_bright_colours,
)
from featbench.data.orientation import read_orientation, turn
from featbench.errors import DataError
from featbench.system.printable import make_printable
from featbench.types import Pixels

SEVERAL_FRAMES = "several frames or pages, of which the first is read"


@dataclass(frozen=True)
class ReadImage:
    """An image, and what a user should know of how it was read: phrases that other images may share."""

    pixels: Pixels
    remarks: tuple[str, ...] = ()


def read_image(path: Path | str) -> Pixels:
    """Read one image file, as a viewer shows it.

    JPEG, PNG, PBM, PGM, PPM, BMP, GIF, WebP and TIFF are read, and told by their content, whatever the name. The
    orientation that a camera wrote is applied. What is transparent becomes white. Palettes and CMYK become RGB. Of
    several frames or pages, the first is read. Colour profiles are ignored.

    Parameters
    ----------
    path : Path or str
        The file; a leading ~ is the home folder.

    Returns
    -------
    ndarray of uint8
        [height, width] of a grey image, [height, width, 3] RGB of any other.

    Raises
    ------
    DataError
        If the file cannot be read, is damaged, too large or of another format, or holds values that no rule makes
        bytes of. The message names the file.
    """
    return read_with_remarks(read_path("path", path)).pixels


def read_with_remarks(path: Path) -> ReadImage:
    """Read one image file, and say what a user should know of it; raises as `read_image` does."""
    name = make_printable(path)
    try:
        # Looked at before it is opened: a FIFO would be waited for, and a device may have no end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{name} cannot be read as an image: it is no regular file")
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error
    with file:
        try:
            return _read(file)
        except DataError as error:
            raise DataError(f"{name} cannot be read as an image: {error}") from error
        except (
            Exception
        ) as error:  # a damaged file makes decoders raise anything: RuntimeError, MemoryError, zlib.error
            reason = str(error) or type(error).__name__
            raise DataError(
                f"{name} cannot be read as an image ({reason}): it is damaged, or not what its name says"
            ) from error


def _read(file: IO[bytes]) -> ReadImage:
    head = file.read(HEAD)
    kind = find_format(head)
    if kind is None:
        raise _explain_refusal(head)
    file.seek(0)
    image = open_image(file, kind)
    remarks = [SEVERAL_FRAMES] if getattr(image, "is_animated", False) else []
    samples = describe_samples(image, kind, head)
    if image.mode == "F":
        pixels = reduce_floats(image, samples)
    elif image.mode.startswith("I"):
        pixels, remark = reduce_integers(image, samples)
        remarks += [remark] if remark else []
    else:
        if samples.bits > 8:
            require_bright_colours(image, samples)
        pixels = _convert(image, samples)
    return ReadImage(turn(pixels, read_orientation(image)), tuple(remarks))


def _explain_refusal(head: bytes) -> Exception:
    """Return the error of a file that is in no format that is read."""
    other = name_other_format(head)
    if other is not None:
        return DataError(f"it is {other}, and not {', '.join(READ.values())}: convert it")
    return ValueError("no image that featbench reads" if head else "an empty file")


def _convert(image: ImageFile, samples: Samples) -> NDArray[np.uint8]:
    """Return the pixels of an image whose values are bytes."""
    key = image.info.get("transparency")
    if image.mode in ("1", "L"):
        grey = read_array(image if image.mode == "L" else image.convert("L"))
        if key is None:
            return grey
        # Of 2 or 4 bits Pillow makes 8, but not of the transparent value.
        scale = 255 // (2**samples.bits - 1) if image.mode == "L" else 255
        return np.where(grey == key * scale, np.uint8(255), grey)
    if image.mode == "RGB" and key is None:
        return read_array(image)
    if image.mode == "RGB" and samples.bits > 8:
        raise DataError("one of its colours, of 16 bits a value, is transparent: convert it")
    transparent = key is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or _has_clear_palette(image)
    pixels = read_array(image, _lay_on_white if transparent else _to_rgb)
    return np.ascontiguousarray(pixels[:, :, 0]) if samples.grey or image.mode in ("LA", "La") else pixels


def _has_clear_palette(image: Image.Image) -> bool:
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _to_rgb(band: Image.Image) -> Image.Image:
    return band.convert("RGB")


def _lay_on_white(band: Image.Image) -> Image.Image:
    """Return a band of an image with transparency as it looks on a white ground."""
    ground = Image.new("RGBA", band.size, "white")
    # Pillow knows no direct way from premultiplied grey.
    ground.alpha_composite((band.convert("LA") if band.mode == "La" else band).convert("RGBA"))
    return ground.convert("RGB")
