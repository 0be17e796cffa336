"""A published table measured again: its cells run as those of any comparison, next to the published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from featbench.comparison import Comparison, Workbench
from featbench.errors import PluginError, UnknownNameError, UsageError
from featbench.evaluation.metrics import Metric
from featbench.evaluation.published import PublishedRow, PublishedTable
from featbench.execution.rows import make_cells_frame
from featbench.experiment.baselines import is_baseline
from featbench.experiment.cell import Cell
from featbench.experiment.request import Request
from featbench.experiment.variations import list_requested_variations, list_row_columns
from featbench.reproduction.claims import judge_claims
from featbench.statistics.summary import summarise


@dataclass(frozen=True)
class Reproduction:
    """A published table, measured again.

    metric: what its protocol scores by. rows: a row for each number of the table, baselines first, with the columns of
    a comparison and: row, column, published, published_std, difference (measured less published), tolerance, verdict.
    claims: a row for each contrast of a claim, as `judge_claims` returns them.
    """

    table: PublishedTable
    metric: Metric
    comparison: Comparison
    rows: pd.DataFrame
    claims: pd.DataFrame


def reproduce(
    workbench: Workbench,
    name: str,
    request: Request,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    retry: bool = False,
    track: str | bool = True,
) -> Reproduction:
    """Measure a published table, or some `rows` and `columns` of it.

    The table decides all of the `request` but what `list_requested_variations` names. Cells that are in the store are
    not computed again.
    """
    table = workbench.registry.table(name)
    metric = workbench.registry.metric(workbench.registry.protocol(table.protocol).metric)
    plan = plan_table(workbench, table, request, rows, columns)
    variations = {name: getattr(request, name) for name in list_requested_variations()}
    asked = {"reproduce": name, "rows": rows, "columns": columns, **variations}
    comparison = workbench.run(list(plan), asked, retry=retry, track=track)
    places = list(plan.values())
    frame = make_cells_frame(comparison.runs, workbench.registry)
    frame["row"], frame["column"] = [row for row, _ in places], [column for _, column in places]
    measured = _make_rows(table, frame)
    ratio = _compute_test_over_train(workbench, next(iter(plan)))
    claims = judge_claims(table.claims, table, measured, ratio, metric)
    return Reproduction(table, metric, comparison, measured, claims)


def plan_table(
    workbench: Workbench,
    table: PublishedTable,
    request: Request,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> dict[Cell, tuple[str, str]]:
    """Return the cells of a table, each with its row and column: baselines first, whose column is "".

    Raises `PluginError` for a table that contradicts itself, `UnknownNameError` for a row or a column that it lacks,
    and `UsageError` where no number is left to measure.
    """
    _require_sound(table, [learner for learner, _ in workbench.list_baselines(table.protocol)])
    wanted = _choose("row", rows, [row.name for row in table.rows])
    shown = _choose("column", columns, table.columns)
    plan: dict[Cell, tuple[str, str]] = {}
    for row in table.rows:
        for column in shown:
            if row.name in wanted and column in row.values:
                for cell, place in _place_cells(workbench, table, request, row, column):
                    # Every number brings the baselines along, which are one and the same cells. Two numbers that run
                    # the same cells are a mistake: the table could not say which of them was measured.
                    if plan.setdefault(cell, place) != place:
                        raise PluginError(
                            f"table {table.name}: {' '.join(place)} runs what {' '.join(plan[cell])} does"
                        )
    if not plan:
        raise UsageError(f"{table.name} has no numbers for rows {', '.join(wanted)} in columns {', '.join(shown)}")
    return plan


def _require_sound(table: PublishedTable, baselines: Sequence[str]) -> None:
    """Raise a `PluginError` for what a table declares wrongly, before anything is computed."""
    names = [row.name for row in table.rows]
    cells = {(row.name, column) for row in table.rows for column in row.values}
    used = {column for _, column in cells}
    claimed = {(row, column) for claim in table.claims for line in claim.contrasts for _, row, column in line.terms}
    problems = [
        *(f"two rows are named {name}" for name in sorted({name for name in names if names.count(name) > 1})),
        *(f"a row is named {name}, as a baseline is" for name in names if name in baselines),
        *(f"there are numbers for {column}, which is not a column" for column in sorted(used - set(table.columns))),
        *(f"column {column} has no tolerance" for column in sorted(used - set(table.tolerance))),
        *(f"a claim names {row} {column}, which has no number" for row, column in sorted(claimed - cells)),
    ]
    if problems:
        raise PluginError(f"table {table.name}: {'; '.join(problems)}")


def _choose(what: str, asked: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    for name in asked or ():
        if name not in known:
            raise UnknownNameError(what, name, known)
    return list(dict.fromkeys(asked or known))


def _place_cells(
    workbench: Workbench, table: PublishedTable, request: Request, row: PublishedRow, column: str
) -> list[tuple[Cell, tuple[str, str]]]:
    """Return the cells that one number of the table needs, those of baselines too, each with its row and column."""
    cells = _plan_cells(workbench, table, request, row, column)
    places = [
        (str(cell.learner), "") if is_baseline(cell, workbench.registry) else (row.name, column) for cell in cells
    ]
    if (row.name, column) not in places:
        raise PluginError(f"table {table.name}: row {row.name} measures a baseline")
    return list(zip(cells, places, strict=True))


def _plan_cells(
    workbench: Workbench, table: PublishedTable, request: Request, row: PublishedRow, column: str
) -> list[Cell]:
    asked = replace(
        request,
        protocol=table.protocol,
        features=[row.learner],
        regimes=[row.regime],
        classifiers=[row.classifier],
        stages=f"{row.stages}:{column}" if row.stages else None,
        train_per_class=None,
    )
    return workbench.plan(asked)


def _make_rows(table: PublishedTable, frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each number of the table: the mean over draws, beside what was published."""
    published = {row.name: row for row in table.rows}
    rows = []
    for (row, column), cells in frame.groupby(["row", "column"], sort=False):
        measured = summarise(cells, list_row_columns()).iloc[0].to_dict()
        source = published.get(str(row))
        value = None if source is None else source.values[str(column)]
        deviation = None if source is None else source.deviations.get(str(column))
        tolerance = None if source is None else table.tolerance[str(column)]
        mean = measured["mean"]
        difference = None if value is None or pd.isna(mean) else mean - value
        rows.append(
            {
                "row": row,
                "column": column,
                "published": value,
                "published_std": deviation,
                **measured,
                "difference": difference,
                "tolerance": tolerance,
                "verdict": _judge(difference, tolerance, str(measured["status"])),
            }
        )
    return pd.DataFrame(rows)


def _judge(difference: float | None, tolerance: float | None, status: str) -> str:
    if status != "ok":
        return status
    if difference is None or tolerance is None:
        return ""
    return "within" if abs(difference) <= tolerance else "above" if difference > 0 else "below"


def _compute_test_over_train(workbench: Workbench, cell: Cell) -> float:
    """Return the number of test images over the number of training images."""
    census = workbench.steps.survey(cell.dataset, cell.preprocessing).census
    # From the census alone: nothing has to be drawn or read for it.
    own = census.own_test if cell.test == "fixed" else (0,) * len(census.images)
    rest = [count - test for count, test in zip(census.images, own, strict=True)]
    trained = [count if cell.train_per_class is None else cell.train_per_class for count in rest]
    left = own if cell.test == "fixed" else [count - used for count, used in zip(rest, trained, strict=True)]
    tested = [count if cell.test_per_class is None else min(count, cell.test_per_class) for count in left]
    return sum(tested) / sum(trained)
