import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from featbench.comparison import Workbench
from featbench.errors import DataError, UsageError
from featbench.studies import invariance
from featbench.studies.invariance import (
    ANGLE,
    PUBLISHED,
    InvarianceSettings,
    compute_distances,
    cut_shifted_patches,
    rotate_windows,
)

SMALL = {"learners": "psd(updates=3,patches=60)", "numbers": 5, "patches": 60, "measured": 12}


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 85), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_patches_move_to_the_right_of_the_centre():
    windows = np.arange(64 * 64, dtype=np.float64).reshape(1, 64, 64)
    patches = cut_shifted_patches(windows)
    assert len(patches) == 17
    assert np.array_equal(patches[0], windows[:, 24:40, 24:40])
    assert np.array_equal(patches[5], windows[:, 24:40, 29:45])
    assert np.array_equal(patches[16], windows[:, 24:40, 40:56])


def test_turning_keeps_the_centre_and_turns_the_gradient():
    y, x = np.mgrid[:64, :64] - 31.5
    (found,) = rotate_windows((x * 1.0)[None], 25.0)
    # Where the turned window has (x, y), the first had that point turned back; which way is a matter of convention.
    inner = np.s_[12:52, 12:52]
    angle = np.deg2rad(25)
    either = [np.cos(angle) * x + sign * np.sin(angle) * y for sign in (-1, 1)]
    assert min(np.abs(found - expected)[inner].max() for expected in either) < 0.05
    window = np.random.default_rng(0).normal(size=(1, 64, 64))
    assert rotate_windows(window, 0.0) is window


def test_distances_are_relative_to_the_largest_shift():
    origin = np.array([[0.0, 0.0], [1.0, 1.0]])
    moved = [origin, origin + np.array([[0.0, 1.0], [0.0, 0.0]]), origin + 2]
    assert compute_distances("x", origin, moved).tolist() == [0, 1 / 16, 1]


def test_a_descriptor_that_is_always_the_same_is_refused():
    with pytest.raises(UsageError, match="flat gives every patch the same descriptor"):
        compute_distances("flat", np.ones((3, 2)), [np.ones((3, 2))] * 2)


def test_published_curves_run_over_all_shifts_and_end_at_one():
    assert {len(curve) for curve in PUBLISHED.values()} == {17}
    assert {curve[-1] for curve in PUBLISHED.values()} == {1}


def test_the_study_measures_every_descriptor_at_both_angles(photographs):
    found = invariance.run(InvarianceSettings(**SMALL, unlabelled=str(photographs)), Workbench())
    name = SMALL["learners"]
    assert [table.title for table in found.tables] == ["Shifted", "Turned by 25°, then shifted"]
    for table, angle in zip(found.tables, (0.0, ANGLE), strict=True):
        assert [row["shift"] for row in table.rows] == [*map(str, range(17)), "mean"]
        assert table.columns == [
            "shift",
            "pixels",
            "sift",
            "sift, published",
            name,
            f"{name}, published",
            f"{name}, signed",
        ]
        for column in ("pixels", "sift", name, f"{name}, signed"):
            assert table.rows[16][column] == pytest.approx(1)
            assert (table.rows[0][column] == 0) == (angle == 0)
        assert table.rows[3]["sift, published"] == PUBLISHED["sift", angle][3]
    figure = Figure()
    found.draw(figure)
    assert len(figure.axes) == 2
    assert len(figure.axes[0].lines) == 4 + 2


def test_images_too_small_for_a_window_are_reported(unlabelled):
    with pytest.raises(DataError, match="comes to 9×7 pixels"):
        invariance.run(InvarianceSettings(**SMALL, unlabelled=str(unlabelled)), Workbench())


def test_pooled_codes_have_no_sign(photographs):
    learner = "ipsd(updates=2,patches=80,pool=4)"
    given = {**SMALL, "learners": learner, "numbers": 16, "patches": 100}
    (table, _) = invariance.run(InvarianceSettings(**given, unlabelled=str(photographs)), Workbench()).tables
    assert table.columns[-2:] == [learner, f"{learner}, published"]
    assert table.rows[0][f"{learner}, published"] == 0
