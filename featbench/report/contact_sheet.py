"""A contact sheet: thumbnails in rows, each with lines of text below it, as one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from featbench.report.names import shorten
from featbench.system.printable import make_printable

SIDE = 144
"""Side of the square that a thumbnail lies in, in pixels."""

GAP = 12
COLUMNS = 8
SIZE = 12
"""Size of the letters, in pixels."""

LINE = 15
"""Height of a line of text, in pixels."""

BACKGROUND, FRAME = (255, 255, 255), (236, 236, 236)
BLACK = (20, 20, 20)


@dataclass(frozen=True)
class Tile:
    """A picture of a contact sheet, at most `SIDE` pixels wide and high, and the lines below it with their colours."""

    picture: Image.Image
    lines: Sequence[tuple[str, tuple[int, int, int]]]


def draw_contact_sheet_png(title: str, tiles: Sequence[Tile]) -> bytes:
    """Return the PNG file of a contact sheet; a line too long for its tile loses its middle."""
    font = _load_font()
    columns = min(COLUMNS, max(len(tiles), 4))
    rows = -(-len(tiles) // columns)
    height = SIDE + LINE * max((len(tile.lines) for tile in tiles), default=0)
    top = 2 * GAP + LINE
    canvas = Image.new("RGB", (GAP + columns * (SIDE + GAP), top + rows * (height + GAP)), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), _fit(title, font, canvas.width - 2 * GAP), BLACK, font)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, upper = GAP + column * (SIDE + GAP), top + row * (height + GAP)
        draw.rectangle((left, upper, left + SIDE - 1, upper + SIDE - 1), FRAME)
        offset = (SIDE - tile.picture.width) // 2, (SIDE - tile.picture.height) // 2
        canvas.paste(tile.picture, (left + offset[0], upper + offset[1]))
        for line, (text, colour) in enumerate(tile.lines):
            draw.text((left, upper + SIDE + 2 + line * LINE), _fit(text, font, SIDE), colour, font)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def _load_font() -> ImageFont.FreeTypeFont:
    """Return the font that matplotlib brings: it has more scripts than Pillow's own."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), SIZE)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return a text that is at most so many pixels wide, its middle left out if need be."""
    shown = make_printable(text)
    length = len(shown)
    while length > 3 and font.getlength(shorten(shown, length)) > width:
        length -= 1
    return shorten(shown, length)
