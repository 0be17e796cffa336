"""Study of stability: how often a unit of a sparse code changes its sign from one video frame to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featbench.errors import DataError, UsageError
from featbench.studies.study import Findings, Study, StudySettings, Table, Value, option
from featbench.system.user_files import expand_user
from featbench.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from featbench.comparison import Workbench

SOURCE = (
    "Kavukcuoglu, Ranzato, LeCun 2008, Fast inference in sparse coding algorithms, section 3.3 and figure 4: 400 "
    "frames of the video foreman, 784 patches each, 128 units of 9×9."
)

STATES = ("-", "0", "+")

FS, PSD, RANDOM, FS_RANDOM = "optimal", "predicted", "predicted, random pairs", "optimal, random pairs"

PUBLISHED = {
    FS: ((0.60, 0.40, 0.00), (0.01, 0.99, 0.01), (0.00, 0.41, 0.59)),
    PSD: ((0.94, 0.06, 0.00), (0.00, 1.00, 0.00), (0.00, 0.05, 0.95)),
    RANDOM: ((0.54, 0.45, 0.01), (0.00, 0.98, 0.01), (0.01, 0.41, 0.59)),
}
"""Published P(next | now): a row for each state now (-, 0, +), a column for each state in the next frame."""

TRIAL = 4000
"""Number of patches on which λ is searched."""


@dataclass(frozen=True)
class StabilitySettings(StudySettings):
    """Settings of the study of stability."""

    frames: str = option("", "folder of frames in the order of their names; by default video/carphone of the data sets")
    learner: str = option("psd(lam=3,alpha=5)", "learner with a dictionary and an encoder")
    unlabelled: str = option("berkeley", "folder of images, or data set, to learn from")
    filters: int = option(128, "units", least=1)
    size: int = option(9, "side of a patch, in pixels", least=2)
    patches: int = option(50_000, "patches to learn from", least=1)
    lcn: float = option(0.0, "constant of local contrast normalisation of images and frames; 0: none", least=0)
    side: int = option(28, "number of patches along each side of the grid on a frame", least=1)
    nonzero: float = option(0.04, "fraction of the optimal codes that is not zero, which decides their λ", above=0)
    lam: float | None = option(None, "λ of the optimal codes in place of --nonzero, ½‖y - Dz‖² + λ‖z‖₁", above=0)


def run(settings: StabilitySettings, workbench: Workbench) -> Findings:
    """Learn a dictionary, compute optimal and predicted codes of every patch, and count transitions of their signs."""
    from featbench.studies import coding, natural

    tell = workbench.listener.step
    if settings.nonzero >= 1:
        raise UsageError(f"--nonzero is {settings.nonzero:g}: it must be below 1")
    folder = find_frames_folder(settings, workbench)
    video = cut_frame_patches(workbench, folder, settings)
    learner = natural.create_learner(workbench, settings.learner)
    tell("learning the dictionary", 0, 3)
    sampled = natural.sample_patches(
        workbench, settings.unlabelled, settings.size, settings.patches, settings.seed, settings.lcn
    )
    rows = natural.centre_patches(sampled)
    # One scale for the photographs and the frames: λ then means the same for both.
    scale = float(rows.square().mean().sqrt())
    filters = natural.learn_filters(learner, rows / scale, settings.size, settings.filters, settings.seed)
    atoms = natural.find_atoms(learner, filters)
    frames, places, _ = video.shape
    seen = natural.centre_patches(video.flatten(0, 1)) / scale
    tell("choosing λ", 1, 3)
    generator = np.random.default_rng(settings.seed)
    lam = settings.lam or coding.find_lam(_draw_some(seen, generator), atoms, settings.nonzero)
    optimal = coding.find_optimal_codes(seen, atoms, lam, lambda done, total: tell("optimal codes", done, total))
    part = coding.compute_density(optimal)
    if part == 0:
        raise UsageError(f"all codes are zero at λ = {lam:.3g}: lower --lam")
    encoder = natural.make_encoder(learner, filters)
    # Predicted codes are hardly ever exactly zero. Both kinds need the same density before their signs can be compared.
    predicted = coding.keep_largest(natural.predict_codes(encoder, seen, settings.size), part)
    signs = {name: _compute_signs(codes, frames, places) for name, codes in ((FS, optimal), (PSD, predicted))}
    now = np.arange(frames - 1)
    other = draw_random_pairs(frames, generator)
    measured = {
        FS: compute_transitions(signs[FS], now, now + 1),
        PSD: compute_transitions(signs[PSD], now, now + 1),
        RANDOM: compute_transitions(signs[PSD], other[0], other[1]),
        FS_RANDOM: compute_transitions(signs[FS], other[0], other[1]),
    }
    return Findings(
        title="Stability of predicted and optimal sparse codes",
        source=SOURCE,
        tables=[_make_table(measured)],
        notes=_write_notes(settings, frames, places, lam, part, coding.compute_density(predicted), measured),
        draw=lambda figure: _draw(figure, measured),
        size=(9.0, 5.0),
        data={
            **natural.read_fingerprint(workbench, settings.unlabelled),
            **natural.read_fingerprint(workbench, str(folder)),
        },
    )


def find_frames_folder(settings: StabilitySettings, workbench: Workbench) -> Path:
    """Return the folder of frames. Raises `DataError`, which says how to name one, if there is none."""
    if settings.frames:
        return expand_user(settings.frames)
    if workbench.data_dir is None:
        raise DataError(
            "there is no video: name a folder of frames with --frames, or set FEATBENCH_DATA or --data-dir to the "
            "folder of your data sets, with video/carphone in it"
        )
    return workbench.data_dir / "video" / "carphone"


def cut_frame_patches(workbench: Workbench, folder: Path, settings: StabilitySettings) -> Tensor:
    """Return patches on a uniform grid of side × side positions in each frame: [frames, side², size²].

    Frames are preprocessed like the images. Raises `DataError` for a single frame, for frames of several sizes, and for
    frames smaller than a patch.
    """
    from featbench.studies.natural import make_preprocessing

    size, side = settings.size, settings.side
    maps = workbench.steps.load_pool(str(folder), make_preprocessing(settings.lcn))
    if len(maps) < 2:
        raise DataError(f"{folder} holds a single image: a video has two frames at least")
    if len(maps.sizes) > 1:
        shown = ", ".join(f"{height}×{width}" for height, width in sorted(maps.sizes)[:4])
        raise DataError(f"the frames in {folder} come to maps of {len(maps.sizes)} sizes ({shown}): a video's have one")
    (height, width) = next(iter(maps.sizes))
    if min(height, width) < size:
        raise DataError(f"the frames in {folder} come to {height}×{width} maps, smaller than patches of {size}×{size}")
    windows = maps[:][:, 0].unfold(1, size, 1).unfold(2, size, 1)
    tops, lefts = (np.linspace(0, room - size, side).round().astype(int) for room in (height, width))
    return windows[:, tops][:, :, lefts].reshape(len(maps), side * side, size * size)


def compute_transitions(signs: NDArray[np.int8], now: NDArray[np.int64], following: NDArray[np.int64]) -> FloatArray:
    """Return P(next | now) of the states -, 0, +, [now, next], over pairs of frames.

    `signs` [frames, …] holds -1, 0 and 1. The row of a state that never occurs is NaN.
    """
    counts = np.zeros((3, 3))
    for first, second in zip(now, following, strict=True):
        # A pair of states as one number from 0 to 8, so that one bincount counts all nine.
        pair = 3 * (signs[first].astype(np.int64) + 1) + signs[second] + 1
        counts += np.bincount(pair.ravel(), minlength=9).reshape(3, 3)
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def draw_random_pairs(frames: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw as many random pairs of two different frames as there are consecutive ones."""
    # A distance of 1 to frames - 1, modulo their number, never leads back to the same frame.
    first = generator.integers(frames, size=frames - 1)
    return first, (first + generator.integers(1, frames, size=frames - 1)) % frames


def _draw_some(rows: Tensor, generator: np.random.Generator) -> Tensor:
    import torch

    return rows[torch.from_numpy(generator.permutation(len(rows))[:TRIAL])]


def _compute_signs(codes: Tensor, frames: int, places: int) -> NDArray[np.int8]:
    signs: NDArray[np.int8] = np.sign(codes.numpy()).astype(np.int8)
    return signs.reshape(frames, places, -1)


def _make_table(measured: dict[str, FloatArray]) -> Table:
    rows: list[dict[str, Value]] = []
    for after, now in ((2, 2), (0, 0), (1, 1), (1, 2), (1, 0), (2, 1), (0, 1), (2, 0), (0, 2)):
        row: dict[str, Value] = {"P(next given now)": f"{STATES[after]} given {STATES[now]}"}
        for name, matrix in measured.items():
            if name in PUBLISHED:
                row[f"{name}, published"] = PUBLISHED[name][now][after]
            row[name] = float(matrix[now, after])
        rows.append(row)
    return Table("", rows, dict.fromkeys(measured, ".3f"))


def _write_notes(
    settings: StabilitySettings,
    frames: int,
    places: int,
    lam: float,
    part: float,
    part_predicted: float,
    measured: dict[str, FloatArray],
) -> list[str]:
    stay, gain = measured[PSD][2, 2], measured[PSD][2, 2] - measured[FS][2, 2]
    return [
        f"{frames} frames, {places} patches each, {settings.filters} units of {settings.size}×{settings.size} learned "
        f"by {settings.learner}; the published video is another one.",
        f"Optimal codes: λ = {lam:.3g} for patches of unit mean square, {100 * part:.2f} % not zero; predicted codes: "
        f"all but the largest {100 * part_predicted:.2f} % set to zero, by one threshold.",
        f"P(+ given +) of predicted codes {stay:.3f}, {gain:+.3f} against optimal ones (published 0.95, +0.36).",
        "Random pairs: as many pairs of two different frames, drawn at random.",
    ]


def _draw(figure: Figure, measured: dict[str, FloatArray]) -> None:
    shown = list(PUBLISHED)
    axes = figure.subplots(2, len(shown))
    for column, name in enumerate(shown):
        for axis, matrix, kind in zip(
            axes[:, column], (np.array(PUBLISHED[name]), measured[name]), ("published", "measured"), strict=True
        ):
            axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
            for now in range(3):
                for after in range(3):
                    value = matrix[now, after]
                    axis.text(after, now, f"{value:.2f}", ha="center", va="center", color="w" if value > 0.5 else "k")
            axis.set(title=f"{name}: {kind}", xticks=range(3), yticks=range(3), xticklabels=STATES, yticklabels=STATES)
            axis.set(xlabel="next frame", ylabel="this frame")


STUDY = Study("stability", StabilitySettings, run)
