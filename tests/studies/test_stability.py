import numpy as np
import pytest
import torch
from PIL import Image

from featbench.comparison import Workbench
from featbench.errors import DataError, UsageError
from featbench.studies import coding, stability
from featbench.studies.stability import StabilitySettings, compute_transitions, cut_frame_patches, draw_random_pairs

SMALL = {"filters": 6, "size": 3, "patches": 60, "side": 3, "nonzero": 0.2, "learner": "psd(updates=3,patches=60)"}


@pytest.fixture
def frames(tmp_path):
    """Frames that drift to the right by a pixel each."""
    folder = tmp_path / "frames"
    folder.mkdir()
    scene = np.random.default_rng(0).integers(0, 256, (20, 40), dtype=np.uint8)
    for number in range(5):
        Image.fromarray(scene[:, 5 - number : 30 - number]).save(folder / f"frame_{number:04}.png")
    return folder


@pytest.fixture
def settings(unlabelled, frames):
    return lambda **changes: StabilitySettings(
        **{**SMALL, "unlabelled": str(unlabelled), "frames": str(frames), **changes}
    )


def test_transitions_are_counted_over_all_units_and_pairs():
    signs = np.array([[1, 1, 0, -1], [1, 0, 0, -1], [-1, 0, 1, 0]], dtype=np.int8)
    found = compute_transitions(signs, np.array([0, 1]), np.array([1, 2]))
    # Pairs: ++ +0 00 -- from the first frame to the second, +- 00 0+ -0 from that to the third.
    assert found.tolist() == [[1 / 2, 1 / 2, 0], [0, 2 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]]


def test_frames_that_stand_still_never_change_sign():
    signs = np.tile(np.array([[1, 0, -1, 0, 1]], dtype=np.int8), (4, 1))
    assert np.array_equal(compute_transitions(signs, np.arange(3), np.arange(1, 4)), np.eye(3))


def test_random_pairs_are_of_different_frames():
    first, second = draw_random_pairs(5, np.random.default_rng(0))
    assert len(first) == len(second) == 4
    assert (first != second).all()
    assert set(first) | set(second) <= set(range(5))


def test_patches_lie_on_a_uniform_grid(settings, frames):
    given = settings(side=3, size=5)
    patches = cut_frame_patches(Workbench(), frames, given)
    assert patches.shape == (5, 9, 25)
    grey = np.asarray(Image.open(frames / "frame_0000.png")).astype(np.float64)
    normal = (grey - grey.mean()) / grey.std()
    for row, top in enumerate((0, 8, 15)):
        for column, left in enumerate((0, 10, 20)):
            expected = normal[top : top + 5, left : left + 5].ravel()
            assert patches[0, 3 * row + column].numpy() == pytest.approx(expected, abs=1e-4)


def test_the_study_measures_what_its_table_says(settings):
    found = stability.run(settings(), Workbench())
    (table,) = found.tables
    rows = {row["P(next given now)"]: row for row in table.rows}
    assert len(rows) == 9
    for now in "-0+":
        for name in (stability.FS, stability.PSD, stability.RANDOM, stability.FS_RANDOM):
            assert sum(rows[f"{after} given {now}"][name] for after in "-0+") == pytest.approx(1)
    assert rows["+ given +"]["predicted, published"] == 0.95
    assert rows["0 given -"]["optimal, published"] == 0.40
    assert any("5 frames, 9 patches each, 6 units of 3×3" in note for note in found.notes)
    assert set(found.data) == {"unlabelled", "frames"}


def test_a_video_that_stands_still_has_codes_that_do(settings, tmp_path):
    still = tmp_path / "still"
    still.mkdir()
    scene = np.random.default_rng(1).integers(0, 256, (20, 25), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(scene).save(still / f"{number}.png")
    (table,) = stability.run(settings(frames=str(still)), Workbench()).tables
    stay = [row for row in table.rows if row["P(next given now)"] in ("+ given +", "0 given 0", "- given -")]
    assert all(row[name] == 1 for row in stay for name in (stability.FS, stability.PSD, stability.RANDOM))


def test_frames_are_looked_for_below_the_data_folder(settings, tmp_path, frames):
    place = tmp_path / "data" / "video"
    place.mkdir(parents=True)
    frames.rename(place / "carphone")
    assert stability.find_frames_folder(settings(frames=""), Workbench(data_dir=tmp_path / "data")).name == "carphone"


def test_a_missing_video_is_reported(settings, monkeypatch):
    monkeypatch.delenv("FEATBENCH_DATA", raising=False)
    with pytest.raises(DataError, match="name a folder of frames with --frames, or set FEATBENCH_DATA"):
        stability.run(settings(frames=""), Workbench())


def test_a_folder_without_frames_is_reported(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        stability.run(settings(frames=str(tmp_path / "empty")), Workbench())


def test_a_single_frame_is_not_a_video(settings, frames):
    for path in sorted(frames.iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="holds a single image"):
        stability.run(settings(), Workbench())


def test_frames_of_several_sizes_are_refused(settings, frames):
    Image.new("L", (21, 22)).save(frames / "odd.png")
    with pytest.raises(DataError, match=r"2 sizes \(20×25, 22×21\)"):
        stability.run(settings(), Workbench())


def test_frames_smaller_than_patches_are_refused(settings):
    with pytest.raises(DataError, match="smaller than patches of 21×21"):
        stability.run(settings(size=21), Workbench())


def test_a_damaged_frame_is_named(settings, frames):
    (frames / "frame_0002.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"frame_0002\.png cannot be read as an image"):
        stability.run(settings(), Workbench())


@pytest.mark.parametrize("changes, message", [({"nonzero": 1.0}, "below 1"), ({"lam": 1e6}, "all codes are zero")])
def test_settings_that_leave_nothing_to_count_are_refused(settings, changes, message):
    with pytest.raises(UsageError, match=message):
        stability.run(settings(**changes), Workbench())


def test_a_learner_without_a_dictionary_is_refused(settings):
    with pytest.raises(UsageError, match="random keeps no dictionary"):
        stability.run(settings(learner="random"), Workbench())
    with pytest.raises(UsageError, match="learns no filters"):
        stability.run(settings(learner="chance"), Workbench())


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(9, 14, generator=generator)
    return torch.randn(200, 9, generator=generator), atoms / atoms.norm(dim=0)


def test_optimal_codes_meet_the_conditions_of_the_lasso(problem):
    rows, atoms = problem
    codes = coding.find_optimal_codes(rows, atoms, 0.3)
    gradient = (rows - codes @ atoms.T) @ atoms
    assert (gradient.abs() <= 0.3 + 2e-3).all()
    used = codes.abs() > 1e-3
    assert torch.allclose(gradient[used], 0.3 * codes[used].sign(), atol=2e-3)


def test_codes_near_a_prediction_meet_theirs(problem):
    rows, atoms = problem
    prediction = torch.randn(200, 14, generator=torch.Generator().manual_seed(1))
    codes = coding.find_codes_near(rows, atoms, 0.3, prediction, alpha=2.0)
    gradient = (rows - codes @ atoms.T) @ atoms - 2 * (codes - prediction)
    assert (gradient.abs() <= 0.3 + 1e-4).all()
    used = codes.abs() > 1e-4
    assert torch.allclose(gradient[used], 0.3 * codes[used].sign(), atol=1e-4)


@pytest.mark.parametrize("wanted", [0.05, 0.2, 0.4])
def test_the_penalty_is_found_that_leaves_so_many_codes(problem, wanted):
    rows, atoms = problem
    lam = coding.find_lam(rows, atoms, wanted)
    assert coding.compute_density(coding.find_optimal_codes(rows, atoms, lam)) == pytest.approx(wanted, abs=0.01)


def test_more_codes_than_the_patches_can_use_are_refused(problem):
    with pytest.raises(UsageError, match="use at most so many of 14 atoms"):
        coding.find_lam(*problem, 0.95)


def test_blank_patches_have_no_penalty(problem):
    with pytest.raises(UsageError, match="blank"):
        coding.find_lam(torch.zeros(3, 9), problem[1], 0.1)


def test_the_largest_codes_are_kept():
    codes = torch.tensor([[0.1, -3.0, 2.0], [-0.5, 0.2, 1.0]])
    kept = coding.keep_largest(codes, 0.5)
    assert kept.tolist() == [[0, -3, 2], [0, 0, 1]]
    assert not coding.keep_largest(codes, 0.0).any()
    assert torch.equal(coding.keep_largest(codes, 1.0), codes)
