"""Figures drawn by matplotlib's own objects: no window, no global state, the same bytes for the same drawing."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOLUTION = 110
"""Pixels an inch."""


def png(draw: Callable[[Figure], None], size: tuple[float, float]) -> bytes:
    """Return the PNG file of what `draw` draws on a figure of `size` inches (width, height)."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}):
        figure = Figure(figsize=size, dpi=RESOLUTION, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        # The version of matplotlib, which it would write into the file, stands in the study's page.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
