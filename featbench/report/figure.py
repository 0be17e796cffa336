"""Figures by matplotlib: without a window or global state, and with the same bytes for the same drawing."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOLUTION = 110
"""Pixels per inch."""


def draw_png(draw: Callable[[Figure], None], size: tuple[float, float]) -> bytes:
    """Return the bytes of a PNG file: what `draw` draws on a figure of `size` (width, height) in inches."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    # Not pyplot: it would keep the figure, and look for a display.
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}):
        figure = Figure(figsize=size, dpi=RESOLUTION, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        # matplotlib would write its version into the file, and another one other bytes; the study's page has it.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
