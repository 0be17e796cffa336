"""Runs of cells as a data frame, one line for each cell: what the rows of a table are summed up from."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from featbench.execution.runner import Run
from featbench.experiment.cell import Cell
from featbench.experiment.variations import describe_row
from featbench.registry import Registry
from featbench.stages.architecture import Architecture


def make_cells_frame(runs: Sequence[Run], registry: Registry) -> pd.DataFrame:
    """Return one row for each cell, with the columns that `summarise` needs."""
    rows = []
    for cell, result in ((run.cell, run.result) for run in runs):
        row = {
            **describe_row(cell),
            "label": format_regime(cell, registry),
            "draw": cell.draw,
            "images_left_out": result.report.get("images_left_out", 0),
            "status": result.status,
            "score": None if result.score is None else result.score.value,
            "unit": registry.metric(cell.metric).unit,
            "fit_seconds": result.seconds.fit,
            "extract_seconds": result.seconds.extract,
            "message": result.message,
        }
        # A data frame holds UTF-8, and names of folders may hold bytes that are none.
        rows.append({name: _to_utf8(value) if isinstance(value, str) else value for name, value in row.items()})
    return pd.DataFrame(rows)


def _to_utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def format_regime(cell: Cell, registry: Registry) -> str:
    """Return a cell's regime as tables print it: RR for two stages of R, G for Gabor, `fixed` without such a letter."""
    stages = len(Architecture.parse(cell.architecture).stages) if cell.architecture else 1
    return cell.regime.label(stages, registry.learner(cell.learner.name).initial or "fixed")
