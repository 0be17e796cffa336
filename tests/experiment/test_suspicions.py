"""Filters that are zero and features that are constant are said, whether a result is computed or read."""

import numpy as np
import pytest
import torch
from torch import nn

from featbench.experiment.suspicions import find_suspicions
from featbench.features.rows import PackedMaps, Rows

CONSTANT = "the features of all training images are the same, which tells no class from another"


def rows(array):
    array = np.asarray(array, dtype=np.float32)
    return Rows(array, np.arange(len(array)), (array.shape[1], 1, 1))


def several_sizes(*vectors):
    grids = np.array([[len(one), 1] for one in vectors])
    return PackedMaps.of(np.concatenate([np.asarray(one, dtype=np.float32) for one in vectors]), grids)


NOISE = np.random.default_rng(0).normal(size=(50, 7))
LAST = np.zeros((50, 7))
LAST[-1, -1] = 1
BETWEEN = np.zeros((50, 7))
BETWEEN[1, 0] = 1  # not among the images that are looked at first

FEATURES = {
    "noise": (rows(NOISE), False),
    "zero": (rows(np.zeros((50, 7))), True),
    "one": (rows(np.ones((50, 7))), True),
    "one row": (rows(np.tile(NOISE[:1], (50, 1))), True),
    "one value": (rows(np.zeros((50, 1))), True),
    "another last value": (rows(LAST), False),
    "another value between": (rows(BETWEEN), False),
    "two rows": (rows(np.tile(NOISE[:2], (25, 1))), False),
    "two images": (rows(np.zeros((2, 3))), True),
    "one image": (rows(np.zeros((1, 3))), False),
    "other rows of the array": (Rows(LAST.astype(np.float32), np.arange(40), (7, 1, 1)), True),
    "local vectors": (several_sizes(NOISE[:3], NOISE[3:4]), False),
    "equal local vectors": (several_sizes(np.ones((3, 2)), np.ones((5, 2))), True),
    "equal but for one": (several_sizes(np.ones((3, 2)), [[1, 1], [1, 0]]), False),
}


@pytest.mark.parametrize("what", FEATURES)
def test_features_that_are_the_same_for_all_images_are_suspicious(what):
    features, constant = FEATURES[what]
    assert find_suspicions(nn.Identity(), features) == [CONSTANT] * constant


def bank(*zero, filters=4, fan_in=2):
    conv = nn.Conv2d(fan_in, filters, 3)
    with torch.no_grad():
        conv.weight[list(zero)] = 0
    return conv


BANKS = {
    "none": (bank(), None),
    "one": (bank(2), "1 of 4 filters are zero"),
    "the first": (bank(0), "1 of 4 filters are zero"),
    "three": (bank(0, 1, 3), "3 of 4 filters are zero"),
    "all": (bank(0, 1, 2, 3), "4 of 4 filters are zero"),
    "of the second stage": (nn.Sequential(bank(), bank(1)), "1 of 4 filters of the module 1 are zero"),
    "minus zero": (bank(filters=1).requires_grad_(False), None),
    "bias alone": (bank(0), "1 of 4 filters are zero"),
    "linear": (nn.Linear(3, 3), None),
    "no weight": (nn.BatchNorm2d(3, affine=False), None),
}


@pytest.mark.parametrize("what", BANKS)
def test_filters_that_are_zero_are_counted(what):
    network, said = BANKS[what]
    found = find_suspicions(network, rows(NOISE))
    assert found == ([] if said is None else [f"{said}, so that their maps say nothing of the image"])


def test_one_value_that_is_not_zero_is_enough():
    conv = bank(0)
    with torch.no_grad():
        conv.weight[0, 1, 2, 2] = 1e-30
    assert find_suspicions(conv, rows(NOISE)) == []


def test_a_comparison_warns_when_it_computes_and_when_it_reads(compare_tiny, write_learner):
    path = write_learner("blank", "return weight * 0")
    for done in ("computed", "nothing to compute"):
        ran = compare_tiny("--features", "blank", "--regimes", "U", "--classifiers", "nearest,logistic", plugins=[path])
        assert ran.code == 0
        assert done in ran.err
        # Once for all draws and classifiers.
        assert ran.err.count("blank U nearest draw 0: 4 of 4 filters of the module 0.0.0 are zero") == 1, ran.err
        assert ran.err.count(CONSTANT) == 1
        assert "featbench: chance" not in ran.err


def test_a_report_of_a_classifier_is_no_warning(compare_tiny, tiny):
    tiny.write_text(tiny.read_text().replace('{"classes": len(means)}', '{"suspicions": 3}'))
    ran = compare_tiny("--regimes", "R")
    assert ran.code == 0, ran.err
