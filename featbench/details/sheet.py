"""The contact sheet of the images that a row got wrong."""

from __future__ import annotations

from featbench.details.collect import RowDetails
from featbench.details.mistakes import describe_frequency
from featbench.report.contact_sheet import Tile, draw_contact_sheet_png

RIGHT, WRONG, PLAIN = (31, 111, 180), (179, 70, 11), (91, 98, 107)
"""Colours of the true class, the predicted class, and all else, as on the page."""


def draw_sheet_png(details: RowDetails) -> bytes:
    """Return the PNG file of the contact sheet; its title says how many images there are beyond those shown."""
    classes, total, shown = details.predictions.classes, len(details.mistakes), details.shown
    tiles = [
        Tile(
            thumbnail.enlarge(),
            (
                (classes[mistake.truth], RIGHT),
                (f"→ {classes[mistake.taken_for]}", WRONG),
                (details.name_image(mistake.index), PLAIN),
                (describe_frequency(mistake), PLAIN),
            ),
        )
        for mistake, thumbnail in zip(shown, details.thumbnails, strict=True)
    ]
    title = f"{details.row.name}: {total} wrong images" if total else f"{details.row.name}: no wrong image"
    return draw_contact_sheet_png(title + (f", the first {len(shown)}" if total > len(shown) else ""), tiles)
