import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from featbench.comparison import Workbench
from featbench.data.maps import Preprocessing
from featbench.data.prepare import PackedImages, PreparedImages
from featbench.evaluation.regimes import REGIMES
from featbench.evaluation.split import Census, Survey
from featbench.experiment.artifacts import Artifacts
from featbench.experiment.request import Request
from featbench.features.extraction import FeatureBlock
from featbench.learning.networks import StageFilters
from featbench.stages.filters import Filters
from featbench.system.hashing import content_hash


@pytest.fixture
def bench(tiny):
    return Workbench(plugins=[tiny])


@pytest.fixture
def kept(bench):
    """The artifacts of the store."""
    return bench.artifacts


@pytest.fixture
def cell(bench):
    """A cell of random filters under R."""
    return bench.plan(Request("tiny", features=["random"], regimes=["R"], draws=1, device="cpu"))[-1]


def again(tiny):
    """Return the artifacts as a new process finds them."""
    return Workbench(plugins=[tiny]).artifacts


STAGES = [
    StageFilters(Filters(torch.arange(18.0).reshape(2, 1, 3, 3), bias=torch.tensor([1.0, -1.0])), np.array([[0]])),
    StageFilters(Filters(torch.arange(16.0).reshape(4, 1, 2, 2)), np.array([[0], [1]])),
]


def test_what_the_store_does_not_hold_is_none(kept, cell):
    assert kept.read_survey("tiny", Preprocessing(size=9)) is None  # planning the cell surveyed it at its own size
    assert kept.read_images("tiny", Preprocessing(size=9)) is None
    assert kept.read_filters(cell) is kept.read_network(cell) is kept.read_refined(cell) is None
    assert kept.checkpoint(cell).read() is kept.read_first_filters(cell) is None
    assert [kept.read_features(cell, part) for part in ("all", "train", "test")] == [None] * 3


def test_a_survey_comes_back(kept, tiny):
    survey = Survey((1, 5, 6), False, Census(("a", "b"), (3, 4), (0, 1), has_test=True))
    kept.write_survey("tiny", Preprocessing(), survey, ("x.png is damaged",), ("a = b",))
    assert again(tiny).read_survey("tiny", Preprocessing()) == (survey, ["x.png is damaged"], ["a = b"])
    assert again(tiny).read_survey("tiny", Preprocessing(standardise=False)) is None


@pytest.mark.parametrize("test", [None, np.array([True, False])])
def test_prepared_images_come_back(kept, tiny, test):
    pixels = PackedImages.pack([np.arange(6, dtype=np.uint8).reshape(2, 3), np.arange(4, dtype=np.uint8).reshape(2, 2)])
    images = PreparedImages(pixels, np.array([1, 0]), ("a", "b"), np.array([0, 2]), test, ("one was damaged",))
    kept.write_images("tiny", Preprocessing(), images)
    found = again(tiny).read_images("tiny", Preprocessing())
    assert all(np.array_equal(one, other) for one, other in zip(found.pixels, pixels, strict=True))
    assert (found.pixels.channels, found.classes, found.left_out) == (1, ("a", "b"), ("one was damaged",))
    assert np.array_equal(found.labels, images.labels)
    assert np.array_equal(found.positions, [0, 2])
    assert found.test is None if test is None else np.array_equal(found.test, test)


def test_filters_of_every_stage_come_back_with_their_seconds(kept, cell, tiny):
    kept.write_filters(cell, STAGES, 1.5)
    stages, seconds = again(tiny).read_filters(cell)
    assert seconds == 1.5
    for found, stage in zip(stages, STAGES, strict=True):
        tensors = stage.filters.tensors()
        assert found.filters.tensors().keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.filters.tensors().items())
        assert np.array_equal(found.table, stage.table)
    assert np.array_equal(kept.read_first_filters(cell), STAGES[0].filters.weight)
    # R and R+ start from the same filters.
    assert kept.read_filters(dataclasses.replace(cell, regime=REGIMES["R+"])) is not None
    assert kept.read_filters(dataclasses.replace(cell, seed=1)) is None


def test_a_network_and_what_labels_made_of_it_are_two_things(kept, cell, tiny):
    refined = dataclasses.replace(cell, regime=REGIMES["R+"])
    plain, trained = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    kept.write_network(refined, plain, 2.0)
    assert kept.read_refined(refined) is None
    kept.write_refined(refined, trained, {"epochs": 3}, 7.0)
    weights, seconds = again(tiny).read_network(refined)
    assert seconds == 2.0
    assert all(torch.equal(weights[name], tensor) for name, tensor in plain.state_dict().items())
    weights, report, seconds = again(tiny).read_refined(refined)
    assert (report, seconds) == ({"epochs": 3}, 7.0)
    assert all(torch.equal(weights[name], tensor) for name, tensor in trained.state_dict().items())
    assert np.array_equal(kept.read_first_filters(refined), trained.weight.detach())


def test_a_checkpoint_lasts_until_the_refined_network_is_kept(kept, cell, tiny):
    refined = dataclasses.replace(cell, regime=REGIMES["R+"])
    kept.checkpoint(refined).write({"weight": np.arange(3.0)}, {"epoch": 1})
    kept.checkpoint(refined).write({"weight": np.arange(4.0)}, {"epoch": 2})
    arrays, document = again(tiny).checkpoint(refined).read()
    assert (arrays["weight"].tolist(), document) == ([0, 1, 2, 3], {"epoch": 2})
    kept.write_refined(refined, nn.Conv2d(1, 2, 3), {}, 1.0)
    assert again(tiny).checkpoint(refined).read() is None


BLOCKS = [np.arange(12, dtype=np.float16).reshape(2, 3, 2), np.arange(6, dtype=np.float16).reshape(1, 3, 2)]


@pytest.mark.parametrize("stored", [True, False])
def test_blocks_of_features_become_one_array_and_last_until_it_is_kept(kept, cell, stored):
    artifacts, taken = (kept if stored else Artifacts()), []

    def blocks():
        for block in BLOCKS:
            taken.append(len(block))
            yield FeatureBlock(block)

    def seconds():
        assert taken == [2, 1]
        return 4.5

    extracted, found = artifacts.write_features(cell, "all", blocks(), seconds)
    assert (found, extracted.grids) == (4.5, None)
    assert np.array_equal(extracted.array, np.concatenate(BLOCKS))
    assert extracted.array.dtype == np.float16
    assert isinstance(extracted.array, np.memmap) == stored


@pytest.mark.parametrize("stored", [True, False])
def test_local_vectors_keep_the_grids_of_their_images(kept, cell, stored):
    artifacts = kept if stored else Artifacts()
    vectors = np.arange(30, dtype=np.float32).reshape(10, 3)
    blocks = [FeatureBlock(vectors[:8], ((2, 3), (1, 2))), FeatureBlock(vectors[8:], ((2, 1),))]
    extracted, _ = artifacts.write_features(cell, "train", iter(blocks), lambda: 0.0)
    assert extracted.grids.tolist() == [[2, 3], [1, 2], [2, 1]]
    (block,) = extracted.take(np.array([2, 0])).blocks()
    assert np.array_equal(block.vectors, np.concatenate([vectors[8:], vectors[:6]]))


def test_features_are_read_by_the_part_of_the_draw(kept, cell, tiny):
    for part, block in zip(("all", "test"), BLOCKS, strict=True):
        kept.write_features(cell, part, iter([FeatureBlock(block)]), lambda: 1.0)
    found = again(tiny)
    assert [len(found.read_features(cell, part)[0].array) for part in ("all", "test")] == [2, 1]
    assert found.read_features(cell, "train") is None


def test_features_that_break_off_leave_nothing(kept, cell, home):
    def blocks():
        yield FeatureBlock(BLOCKS[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.write_features(cell, "all", blocks(), lambda: 1.0)
    assert kept.read_features(cell, "all") is None
    assert list((home / "artifacts" / "features").iterdir()) == []


def test_everything_that_is_kept_says_what_it_was_made_from(bench, kept, cell):
    refined = dataclasses.replace(cell, regime=REGIMES["R+"])
    kept.write_filters(cell, STAGES, 1.0)
    kept.write_refined(refined, nn.Conv2d(1, 2, 3), {}, 1.0)
    kept.write_features(cell, "all", iter([FeatureBlock(BLOCKS[0])]), lambda: 1.0)
    for kind, key in (
        ("filters", bench.keys.for_cell(cell).learned),
        ("networks", bench.keys.for_cell(refined).network),
        ("features", bench.keys.for_cell(cell).features["all"]),
    ):
        ((name, record),) = bench.store.records(f"artifacts/{kind}")
        assert name == key.hash == content_hash(record["about"]["made_from"])
        assert record["about"]["made_from"] == key.document
