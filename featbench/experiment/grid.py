"""A request becomes cells: nothing that was asked for is missing, and what makes no sense is kept with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featbench.data.maps import Preprocessing
from featbench.errors import UsageError
from featbench.evaluation.regimes import Regime
from featbench.evaluation.split import Survey
from featbench.experiment.cell import Cell
from featbench.experiment.refusals import refuse_shape, refuse_sizes
from featbench.experiment.request import Request
from featbench.experiment.resolution import ResolvedRequest, resolve_request
from featbench.experiment.unlabelled import find_unlabelled_images, get_pool_name
from featbench.learning.learner import FilterLearner
from featbench.parameters import Choice
from featbench.registry import Registry

Surveyor = Callable[[str, Preprocessing], Survey]
"""Returns the sizes of a data set's maps and how many images it has."""


def enumerate_cells(request: Request, registry: Registry, survey: Surveyor, data_dir: Path | None = None) -> list[Cell]:
    """Return every cell of the request, baselines first; those with `skip` set make no sense and say why.

    Raises before anything is computed if a name is unknown, the architecture does not fit the images, a class has too
    few images, or the device, the precision or the unlabelled images are not there.
    """
    resolved = resolve_request(request, registry)
    _require_unlabelled(resolved, registry, data_dir)
    surveyed = survey(resolved.dataset, resolved.preprocessing)
    _require_fit(resolved, registry, surveyed, architecture_named=request.stages is not None)
    rows = _list_rows(resolved, registry, surveyed)
    return [_make_cell(resolved, row, draw, registry) for row in rows for draw in range(resolved.draws)]


@dataclass(frozen=True)
class _Row:
    """What the draws of one row of the table share besides the request; skip: why it makes no sense, or ""."""

    learner: Choice
    regime: Regime
    classifier: str
    skip: str


def _require_unlabelled(resolved: ResolvedRequest, registry: Registry, data_dir: Path | None) -> None:
    """Raise if the unlabelled images that were asked for are not there."""
    if resolved.unlabelled is None:
        return
    name = get_pool_name(resolved.unlabelled)
    if not name:
        raise UsageError(f"--unlabelled {resolved.unlabelled} names no images: add a folder or a data set after the +")
    find_unlabelled_images(name, registry, data_dir)


def _require_fit(resolved: ResolvedRequest, registry: Registry, survey: Survey, *, architecture_named: bool) -> None:
    """Raise if the images are too small for the architecture, or too few for the draws."""
    filled = any(_takes_architecture(one.learner, registry) for one in resolved.combinations)
    # The protocol's own architecture need not fit where nothing is put into it; one that the user wrote is checked.
    if filled or architecture_named:
        resolved.architecture.shapes(survey.least)
    survey.census.require(resolved.train_per_class, resolved.protocol.test)


def _list_rows(resolved: ResolvedRequest, registry: Registry, survey: Survey) -> list[_Row]:
    """Return the rows of the table in their order, each once."""
    architecture = resolved.architecture
    rows = []
    for one in resolved.combinations:
        skip = one.skip or refuse_shape(one.learner, one.regime, registry, architecture, survey.least)
        for classifier in one.classifiers:
            reason = skip or refuse_sizes(one.learner, one.regime, classifier, registry, survey, architecture)
            rows.append(_Row(one.learner, one.regime, classifier, reason))
    return list(dict.fromkeys(rows))


def _make_cell(resolved: ResolvedRequest, row: _Row, draw: int, registry: Registry) -> Cell:
    protocol, learner = resolved.protocol, registry.learner(row.learner.name)
    return Cell(
        protocol=protocol.name,
        dataset=resolved.dataset,
        preprocessing=resolved.preprocessing,
        architecture=str(resolved.architecture) if _takes_architecture(row.learner, registry) else "",
        learner=row.learner,
        regime=row.regime,
        classifier=row.classifier,
        train_per_class=resolved.train_per_class,
        test_per_class=resolved.test_per_class,
        validation_fraction=protocol.validation_fraction,
        test=protocol.test,
        metric=protocol.metric,
        task=protocol.task,
        seed=resolved.seed,
        draw=draw,
        device=resolved.device,
        # Whatever does not decide a score is left out of its cell, so that its result is found whatever was asked.
        unlabelled=resolved.unlabelled if learner.looks() else None,
        precision=resolved.precision,
        refinement=resolved.refinement if row.regime.refined else None,
        skip=row.skip,
    )


def _takes_architecture(choice: Choice, registry: Registry) -> bool:
    """Whether a learner fills the stages of an architecture; others give the whole extractor."""
    return issubclass(registry.learner(choice.name), FilterLearner)
