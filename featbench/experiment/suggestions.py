"""What to ask for instead of what makes no sense."""

from __future__ import annotations

from collections.abc import Iterable

from featbench.evaluation.regimes import REGIMES
from featbench.experiment.cell import Cell
from featbench.experiment.refusals import refuse_pair
from featbench.registry import Registry


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
