"""Study of energy surfaces: which points of the plane a learner reconstructs well, and whether those are the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featbench.studies.study import Findings, Study, StudySettings, Table, option
from featbench.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featbench.comparison import Workbench
    from featbench.studies.surfaces import Energy

SOURCE = (
    "Ranzato 2009 (thesis), shown in LeCun's talks: the same two kinds of data, learners and numbers of units; the "
    "scale and the number of the points are not published."
)

NOTES = (
    "F(y) = ‖y - reconstruction of y‖²; black is low, white is the 95th percentile over the square; dots: "
    "training points.",
    "Energies are means over held-out points of the data, and over points spread evenly over the square [-1, 1]².",
    "AUC: how often a point of the square has a higher energy than a point of the data. 0.5: the energy tells nothing; "
    "less than 1 is left even to a perfect learner, since the square's points also fall on the data.",
    "The auto-encoder of the clusters is trained by maximum likelihood (its partition function is summed over the "
    "square), that of the spiral on its reconstruction alone: one sigmoid unit with a linear decoder traces a "
    "straight segment.",
    "Sparse coding's atoms have a third, constant coordinate, without which an atom is a direction and not a place.",
)

TRAINED, HELD_OUT = "training", "held out"


@dataclass(frozen=True)
class EnergySettings(StudySettings):
    """Settings of the study of energy surfaces."""

    points: int = option(500, "training points of each toy", least=20)
    test_points: int = option(2000, "held-out points, and points of the square", least=10)
    lam: float = option(0.2, "λ of sparse coding, ½‖y - Dz‖² + λ‖z‖₁", above=0)
    constant: float = option(0.5, "the coordinate that sparse coding's points share", above=0)
    sharpness: float = option(20.0, "β of the auto-encoder's likelihood, exp(-β F)", above=0)
    grid: int = option(101, "points along a side of the picture's panels", least=2)


@dataclass(frozen=True)
class Panel:
    """A panel of the picture: the energy of a learner that was fitted to a toy's points [n, 2]."""

    toy: str
    method: str
    units: int
    energy: Energy
    points: FloatArray


def run(settings: EnergySettings, workbench: Workbench) -> Findings:
    """Fit each learner to each toy, and measure how well its energy separates data from the rest of the square."""
    from featbench.studies.toys import draw_cauchy_clusters, draw_spiral

    # All points come from one generator: the order of these draws is part of what a seed means.
    generator = np.random.default_rng(settings.seed)
    square = generator.uniform(-1, 1, (settings.test_points, 2))
    panels, rows = [], []
    for toy, draw, units in (("Cauchy clusters", draw_cauchy_clusters, 3), ("spiral", draw_spiral, 20)):
        points, held_out = draw(settings.points, generator), draw(settings.test_points, generator)
        fitted = _fit(toy, points, units, settings, workbench)
        rows += [_make_row(panel, held_out, square) for panel in fitted]
        panels += fitted
    drawn = [panel for panel in panels if panel.method != PLAIN]
    return Findings(
        title="Energy surfaces of four learners",
        source=SOURCE,
        tables=[Table("", rows, {"AUC": ".3f", "ratio": ".2f"})],
        notes=NOTES,
        draw=lambda figure: _draw(figure, drawn, settings.grid),
        size=(10.0, 5.4),
    )


PLAIN = "sparse coding, no constant"


def _fit(toy: str, points: FloatArray, units: int, settings: EnergySettings, workbench: Workbench) -> list[Panel]:
    """Fit each learner to the points of a toy; `units` is the number of units of sparse coding and of K-means."""
    from featbench.studies import surfaces

    clusters, seed = units == 3, settings.seed
    # The auto-encoder's partition function is summed over this grid.
    side = np.linspace(-1, 1, 41)
    square = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    fits: dict[tuple[str, int], Callable[[], Energy]] = {
        ("PCA", 1): lambda: surfaces.fit_pca(points, 1),
        ("auto-encoder", 3 if clusters else 1): lambda: surfaces.fit_autoencoder(
            points,
            3 if clusters else 1,
            seed,
            background=square if clusters else None,
            sharpness=settings.sharpness,
        ),
        ("sparse coding", units): lambda: surfaces.fit_sparse_coding(
            points, units, seed, lam=settings.lam, constant=settings.constant
        ),
        ("K-means", units): lambda: surfaces.fit_kmeans(points, units, seed),
        (PLAIN, units): lambda: surfaces.fit_sparse_coding(points, units, seed, lam=settings.lam, constant=0.0),
    }
    # Fitted one after the other below, so that progress can be shown between them.
    panels = []
    for done, ((method, count), fit) in enumerate(fits.items()):
        workbench.listener.step(f"{toy}: {method}", done, len(fits))
        panels.append(Panel(toy, method, count, fit(), points))
    return panels


def _make_row(panel: Panel, held_out: FloatArray, square: FloatArray) -> dict[str, str | int | float | None]:
    data, elsewhere = panel.energy(held_out), panel.energy(square)
    return {
        "data": panel.toy,
        "learner": panel.method,
        "units": panel.units,
        "energy of data": float(data.mean()),
        "of the square": float(elsewhere.mean()),
        "ratio": float(elsewhere.mean() / data.mean()),
        "AUC": compute_auc(data, elsewhere),
    }


def compute_auc(data: FloatArray, elsewhere: FloatArray) -> float:
    """Return the area under the ROC curve: the probability that a number of `elsewhere` exceeds one of `data`.

    Ties count half (Mann and Whitney's U). Sorting makes it n log n, where comparing all pairs would take n².
    """
    ordered = np.sort(data)
    below = np.searchsorted(ordered, elsewhere, side="left") + np.searchsorted(ordered, elsewhere, side="right")
    return float(below.mean() / (2 * len(data)))


def _draw(figure: Figure, panels: list[Panel], grid: int) -> None:
    toys = list(dict.fromkeys(panel.toy for panel in panels))
    axes = figure.subplots(len(toys), len(panels) // len(toys), squeeze=False)
    side = np.linspace(-1, 1, grid)
    square = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    for axis, panel in zip(axes.flat, panels, strict=True):
        energies = panel.energy(square).reshape(grid, grid)
        # The 95th percentile: a few far corners would otherwise take all the grey levels.
        shades = {"vmin": energies.min(), "vmax": np.percentile(energies, 95)}
        axis.imshow(energies, cmap="gray", extent=(-1, 1, -1, 1), origin="lower", **shades)
        axis.plot(*panel.points[:300].T, ".", color="tab:orange", markersize=1.5)
        axis.set(title=f"{panel.method}, {panel.units} unit{'s' * (panel.units > 1)}", xlim=(-1, 1), ylim=(-1, 1))
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for row, toy in zip(axes, toys, strict=True):
        row[0].set_ylabel(toy)


STUDY = Study("energy", EnergySettings, run)
