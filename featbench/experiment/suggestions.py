"""What to ask for instead of what makes no sense."""

from __future__ import annotations

from collections.abc import Iterable

from featbench.evaluation.regimes import REGIMES
from featbench.experiment.baselines import is_baseline
from featbench.experiment.cell import Cell
from featbench.experiment.refusals import refuse_pair
from featbench.experiment.request import Request, parse_choice
from featbench.registry import Registry


def list_asked_cells(cells: Iterable[Cell], request: Request, registry: Registry) -> list[Cell]:
    """Return the cells that a request asks for; those of a baseline are only where it names the baseline's learner."""
    named = {parse_choice(text, registry).name for text in request.features or ()}
    return [cell for cell in cells if cell.learner.name in named or not is_baseline(cell, registry)]


def suggest_regimes(cells: Iterable[Cell], registry: Registry) -> list[str]:
    """Return the regimes of each learner that cannot have the one that its cells ask for, as `sift under fixed`."""
    suggestions = {}
    for cell in cells:
        learner = registry.learner(cell.learner.name)
        if refuse_pair(learner, cell.regime, cell.device):
            fitting = [name for name, regime in REGIMES.items() if not refuse_pair(learner, regime, cell.device)]
            if fitting:
                suggestions[learner.name] = f"{learner.name} under {' or '.join(fitting)}"
    return list(suggestions.values())
