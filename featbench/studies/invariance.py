"""Study of invariance: how far the descriptor of a patch moves when the patch is shifted, and rotated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featbench.errors import UsageError
from featbench.studies.study import Findings, Study, StudySettings, Table, Value, option
from featbench.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from featbench.comparison import Workbench

SOURCE = (
    "Kavukcuoglu, Ranzato, Fergus, LeCun 2009, Learning invariant features through topographic filter maps, section "
    "3.2 and figure 5 (read off the figure): 100 patches, descriptors of 128 numbers."
)

SIZE, SHIFTS, ANGLE = 16, 16, 25.0
"""Side of a patch; the largest shift, to the right, in pixels; the angle in degrees."""

WINDOW = 64
"""Side of the window around a patch: after a rotation it still holds the patch that is shifted farthest."""

SIGNED = ", signed"
"""Ends the name of a descriptor that keeps the signs of its codes."""

PUBLISHED: dict[tuple[str, float], tuple[float, ...]] = {
    ("sift", 0.0): (0, 0.09, 0.27, 0.46, 0.62, 0.72, 0.77, 0.80, 0.83, 0.85, 0.88, 0.91, 0.92, 0.94, 0.96, 0.98, 1),
    ("psd", 0.0): (0, 0.37, 0.88, 1.03, 0.95, 0.90, 0.90, 0.90, 0.92, 0.94, 0.97, 0.98, 0.97, 0.97, 0.97, 0.99, 1),
    ("ipsd", 0.0): (0, 0.18, 0.24, 0.30, 0.37, 0.45, 0.53, 0.59, 0.65, 0.73, 0.77, 0.78, 0.83, 0.88, 0.92, 0.97, 1),
    ("sift", ANGLE): (0.45, 0.46, 0.52, 0.61, 0.70, 0.78, 0.85, 0.89, 0.91, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99, 1, 1),
    ("psd", ANGLE): (0.94, 0.95, 0.92, 0.92, 0.98, 1.04, 1.04, 1.03, 1.03, 1.02, 1, 0.99, 0.99, 1, 0.99, 0.99, 1),
    ("ipsd", ANGLE): (
        0.55,
        0.54,
        0.57,
        0.57,
        0.59,
        0.61,
        0.65,
        0.69,
        0.70,
        0.75,
        0.80,
        0.84,
        0.86,
        0.91,
        0.92,
        0.98,
        1,
    ),
}
"""Normalised distance at each shift from 0 to 16, by descriptor and angle; SIFT keeps its upright frame."""

Descriptor = Callable[[FloatArray], FloatArray]
"""A function from patches [n, 16, 16] to descriptors [n, numbers]."""


@dataclass(frozen=True)
class InvarianceSettings(StudySettings):
    """Settings of the study of invariance."""

    learners: str = option("psd,ipsd", "learners whose codes are measured, such as psd(lam=2),ipsd")
    unlabelled: str = option("berkeley", "folder of images, or data set, to learn from and to measure on")
    numbers: int = option(128, "numbers in a learned descriptor", least=1)
    patches: int = option(50_000, "patches to learn from", least=1)
    measured: int = option(1000, "patches that are shifted and rotated", least=2)


def run(settings: InvarianceSettings, workbench: Workbench) -> Findings:
    """Learn the descriptors, and compare those of patches with those of the same patches shifted and rotated."""
    from featbench.studies import natural

    # Another seed than that of the patches to learn from.
    windows = natural.sample_patches(workbench, settings.unlabelled, WINDOW, settings.measured, settings.seed + 1)
    views = {angle: cut_shifted_patches(rotate_windows(windows.numpy(), angle)) for angle in (0.0, ANGLE)}
    descriptors = _make_descriptors(settings, workbench)
    curves: dict[tuple[str, float], FloatArray] = {}
    for number, (name, describe) in enumerate(descriptors.items()):
        workbench.listener.step(f"describing with {name}", number, len(descriptors))
        origin = describe(views[0.0][0])
        for angle, patches in views.items():
            curves[name, angle] = compute_distances(name, origin, [describe(patch) for patch in patches])
    return Findings(
        title="Invariance of descriptors of 16×16 patches to shift and rotation",
        source=SOURCE,
        tables=[_make_table(curves, angle) for angle in views],
        notes=(
            "Mean squared distance between the descriptor of a patch and that of the patch shifted to the right (and "
            f"turned by {ANGLE:g}° about its centre before), over {settings.measured} patches; 1 is the value at a "
            "shift of 16.",
            "All descriptors see the same patches of images that are locally contrast-normalised. pixels: the patch "
            "itself; sift: 4×4 cells of 8 orientations, which do not turn with the patch; of the others the magnitudes "
            f"of their {settings.numbers} codes, or the codes themselves (signed).",
        ),
        draw=lambda figure: _draw(figure, curves),
        size=(10.0, 4.5),
        data=natural.read_fingerprint(workbench, settings.unlabelled),
    )


def rotate_windows(windows: FloatArray, angle: float) -> FloatArray:
    """Rotate windows [n, side, side] about their centres by an angle in degrees, with cubic interpolation."""
    from scipy.ndimage import rotate

    # Interpolation would change even windows that are not rotated.
    if angle == 0:
        return windows
    return np.asarray(rotate(windows, angle, axes=(2, 1), reshape=False, order=3, mode="reflect"))


def cut_shifted_patches(windows: FloatArray) -> list[FloatArray]:
    """Cut the patch [n, 16, 16] at the centre of each window, and those 1 to 16 pixels right of it."""
    top = (windows.shape[1] - SIZE) // 2
    return [windows[:, top : top + SIZE, top + shift : top + shift + SIZE] for shift in range(SHIFTS + 1)]


def compute_distances(name: str, origin: FloatArray, moved: list[FloatArray]) -> FloatArray:
    """Return the mean squared distance of descriptors [n, d] from `origin` at each shift, divided by that of the last.

    Raises `UsageError` for a descriptor that is the same for every patch.
    """
    distances = np.array([((descriptors - origin) ** 2).sum(axis=1).mean() for descriptors in moved])
    if not distances[-1] > 0:
        raise UsageError(f"{name} gives every patch the same descriptor: it cannot be measured")
    return np.asarray(distances / distances[-1])


def _make_descriptors(settings: InvarianceSettings, workbench: Workbench) -> dict[str, Descriptor]:
    """Return every descriptor by its name: pixels, SIFT, and those that the learners of the settings learn here."""
    import torch

    from featbench.experiment.request import split_list
    from featbench.features.descriptors import dense_sift
    from featbench.stages.filters import Bank
    from featbench.studies import natural

    def sift(patches: FloatArray) -> FloatArray:
        return dense_sift(torch.from_numpy(np.ascontiguousarray(patches)), SIZE).flatten(1).numpy()

    found: dict[str, Descriptor] = {"pixels": lambda patches: patches.reshape(len(patches), -1), "sift": sift}
    texts = split_list(settings.learners)
    learners = [natural.create_learner(workbench, text) for text in texts]
    sampled = natural.sample_patches(workbench, settings.unlabelled, SIZE, settings.patches, settings.seed)
    rows = natural.centre_patches(sampled)
    # Learners expect patches of unit mean square; the same scale is applied to the patches that are measured.
    scale = float(rows.square().mean().sqrt())
    for number, (text, learner) in enumerate(zip(texts, learners, strict=True)):
        workbench.listener.step(f"learning {text}", number, len(texts))
        filters = natural.learn_filters(learner, rows / scale, SIZE, settings.numbers, settings.seed)
        codes = _make_coder(natural.make_encoder(learner, filters), scale)
        found[text] = _take_magnitudes(codes)
        if learner.units(Bank(settings.numbers, SIZE, 1)) == settings.numbers:
            # One filter for each code: it is not pooled. Pooled codes, ipsd's, are magnitudes already.
            found[text + SIGNED] = codes
    return found


def _take_magnitudes(codes: Descriptor) -> Descriptor:
    return lambda patches: np.abs(codes(patches))


def _make_coder(encoder: nn.Module, scale: float) -> Descriptor:
    import torch

    from featbench.studies import natural

    def codes(patches: FloatArray) -> FloatArray:
        rows = natural.centre_patches(torch.from_numpy(np.ascontiguousarray(patches))) / scale
        return natural.predict_codes(encoder, rows, SIZE).numpy()

    return codes


def _find_published(name: str, angle: float) -> tuple[float, ...] | None:
    kind = name.partition("(")[0]
    return None if name.endswith(SIGNED) else PUBLISHED.get((kind, angle))


def _make_table(curves: dict[tuple[str, float], FloatArray], angle: float) -> Table:
    named = {name: curve for (name, turned_by), curve in curves.items() if turned_by == angle}
    rows: list[dict[str, Value]] = []
    for shift in [*range(SHIFTS + 1), None]:
        row: dict[str, Value] = {"shift": "mean" if shift is None else str(shift)}
        for name, curve in named.items():
            published = _find_published(name, angle)
            row[name] = float(curve.mean() if shift is None else curve[shift])
            if published is not None:
                row[f"{name}, published"] = float(np.mean(published) if shift is None else published[shift])
        rows.append(row)
    title = f"Turned by {angle:g}°, then shifted" if angle else "Shifted"
    return Table(title, rows, dict.fromkeys(rows[0], ".2f"))


def _draw(figure: Figure, curves: dict[tuple[str, float], FloatArray]) -> None:
    names = list(dict.fromkeys(name for name, _ in curves))
    for axis, angle in zip(figure.subplots(1, 2, sharey=True), (0.0, ANGLE), strict=True):
        for number, name in enumerate(names):
            axis.plot(curves[name, angle], f"C{number}", marker="o", markersize=3, label=name)
            published = _find_published(name, angle)
            if published is not None:
                axis.plot(published, f"C{number}", linestyle="--", label=f"{name}, published")
        axis.set(title=f"rotation {angle:g}°", xlabel="shift to the right, pixels", ylim=(0, None))
    axis.legend(loc="lower right")
    figure.axes[0].set_ylabel("normalised squared distance")


STUDY = Study("invariance", InvarianceSettings, run)
