"""Study of the shape of learned filters: how localised, oriented and band-pass they are, and how smooth their map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featbench.studies.study import Findings, Study, StudySettings, Table, Value, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featbench.comparison import Workbench

SOURCE = (
    "Kavukcuoglu, Ranzato, LeCun 2008, figure 2 (localised, oriented, band-pass filters) and Kavukcuoglu, Ranzato, "
    "Fergus, LeCun 2009, section 3.1 (map of 20×20, 12×12 patches, λ = 3): pictures, without numbers."
)

HELD = 0.9
"""Fraction of a filter's energy that the measure of its area has to hold."""

Weight = NDArray[np.float64]


@dataclass(frozen=True)
class FiltersSettings(StudySettings):
    """Settings of the study of filters."""

    unlabelled: str = option("berkeley", "folder of images, or data set, to learn from")
    learners: tuple[str, ...] = option(("random", "pca", "psd(lam=2)", "conv-psd", "ipsd"), "learners, as psd(lam=2)")
    filters: int = option(100, "maps that each learner gives; ipsd has four filters for each map", least=1)
    size: int = option(12, "side of a filter, in pixels", least=3)


def run(settings: FiltersSettings, workbench: Workbench) -> Findings:
    """Learn each learner's filters on natural images, and measure the shape of encoder and decoder."""
    from featbench.studies import natural

    tables: list[dict[str, Value]] = []
    pictures: dict[str, Weight] = {}
    for number, text in enumerate(settings.learners):
        workbench.listener.step(f"filters of {text}", number, len(settings.learners))
        for part, weight, grid in _learn_parts(settings, workbench, text):
            tables.append(
                {"learner": text, "part": part, **_measure_shape(weight), **_measure_neighbours(weight, grid)}
            )
            pictures[f"{text}, {part}"] = weight
    shown = {"area": ".2f", "orientation": ".2f", "bandwidth": ".2f", "neighbours": ".2f", "random pairs": ".2f"}
    return Findings(
        title="The shape of learned filters",
        source=SOURCE,
        tables=[Table("", tables, shown)],
        notes=[
            f"{settings.size}×{settings.size} filters learned on contrast-normalised images, means over filters.",
            f"area: least part of the pixels that holds {HELD:.0%} of a filter's energy (localised: small).",
            "orientation: |Σ P f² exp(2iθ)| / Σ P f² of the power spectrum P at frequency f and angle θ: 1 for a "
            "grating, 0 for what has no direction.",
            "bandwidth: full width at half height, in octaves, of a Gaussian with the spectrum's variance in log₂ f.",
            "neighbours, random pairs: mean |cosine| between filters that touch on the map, and between any two.",
        ],
        draw=lambda figure: _draw(figure, pictures),
        size=(9.0, 4.5 * ((len(pictures) + 1) // 2)),
        data=natural.read_fingerprint(workbench, settings.unlabelled),
    )


def _learn_parts(
    settings: FiltersSettings, workbench: Workbench, text: str
) -> list[tuple[str, Weight, tuple[int, int] | None]]:
    """Learn filters; return the encoder's and the decoder's [filters, size, size], each with the map they lie on."""
    from torch import nn

    from featbench.learning.banks import fill_bank
    from featbench.learning.patches import MapSource, PatchSource
    from featbench.stages.filters import Bank
    from featbench.studies import natural
    from featbench.system.seeds import derive_seed, seeded

    learner = natural.create_learner(workbench, text)
    bank = Bank(settings.filters, settings.size, 1)
    maps = workbench.steps.load_pool(settings.unlabelled, natural.make_preprocessing(1.0))
    source = PatchSource(MapSource(maps, nn.Identity(), natural.CPU), bank.size, derive_seed(settings.seed, "patches"))
    with seeded(derive_seed(settings.seed, "filters")):
        filters = fill_bank(learner, bank, source, derive_seed(settings.seed, "filters"))
    parts = {"encoder": filters.weight, "decoder": filters.extras.get("decoder")}
    grid = learner.grid(bank)
    return [(part, t[:, 0].double().numpy(), grid) for part, t in parts.items() if t is not None]


def _measure_shape(weight: Weight) -> dict[str, Value]:
    """Return the mean area, orientation and bandwidth of filters [n, size, size]; the study's notes define them."""
    energy = np.sort((weight**2).reshape(len(weight), -1), axis=1)[:, ::-1]
    held = np.cumsum(energy, axis=1) / energy.sum(axis=1, keepdims=True)
    area = ((held < HELD).sum(axis=1) + 1) / energy.shape[1]
    # Padded with zeros to eight times its size, a filter has a spectrum fine enough for moments over frequencies.
    points = 8 * weight.shape[1]
    power = np.abs(np.fft.fft2(weight, s=(points, points))) ** 2
    frequencies = np.fft.fftfreq(points)
    down, right = frequencies[:, None], frequencies[None, :]
    radius = np.hypot(down, right)
    # f² exp(2iθ) is the square of a complex number. A frequency and its opposite, which have the same power in a real
    # filter, have the same square: they add up where exp(iθ) would cancel.
    turning = power * (right + 1j * down) ** 2
    orientation = np.abs(turning.sum(axis=(1, 2))) / (power * radius**2).sum(axis=(1, 2))
    octaves = np.log2(np.where(radius > 0, radius, 1))
    # In octaves each ring is as wide as it is far from the centre: the density there is power over radius squared.
    density = np.where(radius > 0, power, 0)
    total = density.sum(axis=(1, 2))
    mean = (density * octaves).sum(axis=(1, 2)) / total
    spread = (density * (octaves - mean[:, None, None]) ** 2).sum(axis=(1, 2)) / total
    # Full width at half height of a Gaussian of variance s²: 2 √(2 ln 2 s²).
    bandwidth = 2 * np.sqrt(2 * np.log(2) * spread)
    return {
        "area": float(area.mean()),
        "orientation": float(orientation.mean()),
        "bandwidth": float(bandwidth.mean()),
    }


def _measure_neighbours(weight: Weight, grid: tuple[int, int] | None) -> dict[str, Value]:
    """Return the mean |cosine| of filters that are neighbours on a map, and of all pairs.

    Opposite borders of the map touch, as in invariant PSD (Kavukcuoglu et al. 2009): `np.roll` gives the neighbours.
    """
    # A filter and its negative detect the same structure: hence magnitudes of cosines.
    rows = weight.reshape(len(weight), -1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = np.abs(unit @ unit.T)
    pairs = float(cosines[~np.eye(len(rows), dtype=bool)].mean())
    if grid is None:
        return {"neighbours": None, "random pairs": pairs}
    place = np.arange(len(rows)).reshape(grid)
    touching = [cosines[place, np.roll(place, -1, axis=axis)].mean() for axis in (0, 1)]
    return {"neighbours": float(np.mean(touching)), "random pairs": pairs}


def _draw(figure: Figure, pictures: dict[str, Weight]) -> None:
    from featbench.report.filters import draw_filters

    axes = figure.subplots((len(pictures) + 1) // 2, 2, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, (name, weight) in zip(axes, pictures.items(), strict=False):
        axis.imshow(np.asarray(draw_filters(weight[:, None])), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(name)


STUDY = Study("filters", FiltersSettings, run)
