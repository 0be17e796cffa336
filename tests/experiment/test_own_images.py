"""A folder of one's own images: which protocol it gets, how many labels, and what is said of it."""

import numpy as np
import pytest
from PIL import Image

from featbench.comparison import Workbench
from featbench.data.look import look_at_folder
from featbench.errors import DataError, SplitError, UsageError
from featbench.execution.listeners import Listener
from featbench.experiment.own_images import choose_labels, settle_request
from featbench.experiment.request import Request
from featbench.registry import Registry

REGISTRY = Registry()


def fill(root, classes, size=(12, 12), mode="L", seed=0):
    """Make a folder of class folders, classes: how many images each has; size: width and height."""
    generator = np.random.default_rng(seed)
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            pixels = generator.integers(0, 256, size=shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def settle(root, **asked):
    return settle_request(Request(dataset=f"folder:{root}", **asked), REGISTRY)


@pytest.mark.parametrize(
    ("size", "protocol"),
    [
        ((8, 8), "small-images"),
        ((28, 28), "small-images"),
        ((32, 32), "small-images"),
        ((63, 40), "small-images"),
        ((40, 63), "small-images"),
        ((64, 40), "photos"),
        ((40, 64), "photos"),
        ((300, 200), "photos"),
    ],
)
def test_the_protocol_suits_the_size_of_the_images(size, protocol, tmp_path):
    settled = settle(fill(tmp_path / "a", {"x": 6, "y": 6}, size))
    assert settled.request.protocol == protocol
    assert any(line.startswith(f"protocol: {protocol}, as ") for line in settled.remarks)


def test_one_large_image_among_small_ones_makes_no_photographs(tmp_path):
    root = fill(tmp_path / "a", {"x": 6, "y": 6})
    Image.new("L", (2000, 1500)).save(root / "x" / "large.png")
    assert settle(root).request.protocol == "small-images"


@pytest.mark.parametrize(
    ("smallest", "labels"), [(4, 2), (6, 2), (9, 3), (14, 4), (29, 9), (30, 10), (40, 10), (5000, 10)]
)
def test_labels_are_sized_to_the_smallest_class(smallest, labels):
    assert choose_labels(smallest) == labels


def test_what_is_asked_for_stays(tmp_path):
    root = fill(tmp_path / "a", {"x": 12, "y": 12})
    assert settle(root, train_per_class=6).request.train_per_class == 6
    settled = settle(root, protocol="digits", train_per_class=None)
    assert (settled.request.protocol, settled.request.train_per_class) == ("digits", None)
    request = Request(dataset="mnist")
    assert settle_request(request, REGISTRY).request is request


@pytest.mark.parametrize("channels, lost", [(None, True), ("grey", False), ("rgb", False), ("opponent", False)])
def test_that_colours_are_lost_is_said_where_nobody_asked_for_it(channels, lost, tmp_path):
    settled = settle(fill(tmp_path / "a", {"x": 6, "y": 6}, mode="RGB"), channels=channels)
    assert settled.loses_colour is lost
    assert any("loses the colours" in line for line in settled.remarks) is lost


def test_grey_images_stored_in_colour_lose_nothing(tmp_path):
    root = fill(tmp_path / "a", {"x": 6, "y": 6})
    for path in root.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert not settle(root).loses_colour


def test_a_look_counts_all_images_and_measures_a_sample(tmp_path):
    root = fill(tmp_path / "a", {"x": 50, "y": 7}, (20, 10))
    look = look_at_folder(root)
    assert str(look) == "57 images in 2 classes of 7 to 50, grey, about 20×10 pixels"


def test_images_of_the_sample_that_cannot_be_read_are_passed_over(tmp_path):
    root = fill(tmp_path / "a", {"x": 6, "y": 6}, (20, 10))
    (root / "x" / "0.png").write_bytes(b"no image")
    assert look_at_folder(root).width == 20
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image of .* can be read: `featbench data verify folder:"):
        look_at_folder(root)


class Remarks(Listener):
    def __init__(self):
        self.told_lines = []

    def told(self, remark):
        self.told_lines.append(remark)


@pytest.fixture
def workbench(tmp_path):
    return Workbench(home=tmp_path / "store", listener=Remarks())


def test_filters_are_learned_once_for_all_draws_and_features_extracted_once(workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 12, "y": 12}, (16, 16))
    cells = workbench.plan(Request(dataset=f"folder:{root}", features=["psd(updates=2)"], regimes=["U"]))
    cells = [cell for cell in cells if cell.learner.name == "psd"]
    assert len(cells) == 10
    assert len({workbench.keys.for_cell(cell).learned.hash for cell in cells}) == 1
    assert len({workbench.keys.for_cell(cell).features["all"].hash for cell in cells}) == 1
    assert len({workbench.keys.for_cell(cell).result.hash for cell in cells}) == 10
    assert workbench.listener.told_lines[0] == f"folder:{root}: 24 images in 2 classes of 12, grey, about 16×16 pixels"


def test_more_labels_that_leave_the_images_held_out_share_no_filters_with_other_splits(workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 12, "y": 12}, (16, 16))
    hashes = set()
    for train_per_class, seed in ((3, 0), (4, 0), (3, 1)):
        asked = Request(
            dataset=f"folder:{root}", features=["kmeans"], regimes=["U"], train_per_class=train_per_class, seed=seed
        )
        hashes |= {workbench.keys.for_cell(cell).learned.hash for cell in workbench.plan(asked) if cell.architecture}
    assert len(hashes) == 3


def test_the_first_table_pairs_sift_with_a_pmk_svm_and_the_others_with_logistic_regression(workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 12, "y": 12}, (80, 60))
    cells = workbench.plan(Request(dataset=f"folder:{root}", draws=1))
    rows = {(cell.learner.name, cell.regime.name): cell.classifier for cell in cells if not cell.skip}
    assert rows == {
        ("chance", "fixed"): "guess",
        ("raw-pixels", "fixed"): "logistic",
        ("random", "R"): "logistic",
        ("gabor", "fixed"): "logistic",
        ("sift", "fixed"): "pmk-svm",
        ("kmeans", "U"): "logistic",
        ("psd", "U"): "logistic",
    }
    named = workbench.plan(Request(dataset=f"folder:{root}", draws=1, classifiers=["linear-svm"]))
    assert {cell.classifier for cell in named if cell.learner.name == "sift"} == {"linear-svm"}


def test_no_row_of_the_first_table_fails_on_few_small_images(workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 4, "y": 4})
    quick = ["random", "gabor", "sift(size=12,step=4)", "kmeans", "psd(updates=5)"]
    names = [name for name in REGISTRY.protocol("small-images").features if name != "psd"]
    assert set(names) <= set(quick)
    rows = workbench.compare(Request(dataset=f"folder:{root}", features=quick, draws=2), track=False).rows
    assert set(rows["status"]) == {"ok"}
    assert set(rows[rows["learner"].str.startswith("sift")]["classifier"]) == {"pmk-svm(codebook=50)"}


def test_a_thorough_comparison_holds_the_first_table_and_more(workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 12, "y": 12}, (80, 60))
    first, thorough = (
        {str(cell) for cell in workbench.plan(Request(dataset=f"folder:{root}", draws=1, thorough=more))}
        for more in (False, True)
    )
    assert first < thorough
    added = {text.rsplit(" ", 3)[0] for text in thorough - first}
    assert added == {"random R+", "kmeans U+", "psd U+", "sparse-coding U", "ica U", "ica U+"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"protocol": "digits", "thorough": True}, "adds nothing to protocol digits"),
        ({"thorough": True, "features": ["psd"], "regimes": ["U"]}, "leave out one of them"),
        ({"channels": "purple"}, "takes grey, rgb, opponent, not 'purple'"),
    ],
)
def test_what_makes_no_sense_is_refused(asked, message, workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 12, "y": 12})
    with pytest.raises(UsageError, match=message):
        workbench.plan(Request(dataset=f"folder:{root}", **asked))


def test_a_class_that_is_too_small_is_named(workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 12, "few": 3})
    with pytest.raises(SplitError, match="class 'few' has 3 images, but 2 are asked for training and at least 2"):
        workbench.plan(Request(dataset=f"folder:{root}"))


def test_channels_are_a_column_and_decide_the_result(workbench, tmp_path):
    root = fill(tmp_path / "a", {"x": 8, "y": 8}, mode="RGB")
    keys = {}
    for channels in ("grey", "rgb", "opponent"):
        asked = Request(dataset=f"folder:{root}", channels=channels, features=["random"], regimes=["R"], draws=1)
        comparison = workbench.compare(asked, track=False)
        assert set(comparison.rows["channels"]) == {channels}
        assert set(comparison.rows["status"]) == {"ok"}
        keys[channels] = comparison.key
    assert len(set(keys.values())) == 3
