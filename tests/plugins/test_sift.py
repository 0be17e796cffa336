import pickle

import numpy as np
import pytest
import torch

from featbench.errors import FeatbenchError, UsageError
from featbench.extractor import Extractor
from featbench.features.descriptors import dense_hog, dense_sift
from featbench.features.extraction import extract
from featbench.learning.networks import learn_network
from featbench.parameters import Choice
from featbench.plugins.sift import Hog, Sift
from featbench.registry import Registry

CPU = torch.device("cpu")


def maps(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def build(learner, shape):
    return learn_network(learner, shape, None, seed=0, device=CPU)


@pytest.mark.parametrize("name", ["sift", "hog"])
def test_they_are_designed_and_cannot_be_refined(name):
    learner = Registry().learner(name)
    assert (learner.family, learner.initial, learner.differentiable) == ("fixed", name.upper(), False)
    assert not learner.looks()


@pytest.mark.parametrize(
    ("text", "describe"),
    [
        ("sift", dense_sift),
        ("sift(step=4)", lambda x: dense_sift(x, step=4)),
        ("sift(size=8,step=3,floor=1)", lambda x: dense_sift(x, 8, 3, 1.0)),
        ("hog", dense_hog),
        ("hog(cell=4)", lambda x: dense_hog(x, 4)),
    ],
)
def test_maps_are_the_descriptors(text, describe):
    choice = Choice.read(text)
    learner = Registry().learner(choice.name).create(dict(choice.parameters))
    images = maps(3, 1, 30, 41)
    found = build(learner, (1, 30, 41))(images)
    assert torch.equal(found, describe(images[:, 0]).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("learner", "numbers"), [(Sift(), 128), (Hog(), 36)])
def test_one_network_takes_images_of_any_size(learner, numbers):
    network = build(learner, (1, 16, 16))
    for height, width in ((16, 16), (16, 50), (37, 24)):
        found = network(maps(2, 1, height, width))
        assert found.shape == (2, numbers, (height - 16) // 8 + 1, (width - 16) // 8 + 1)
        assert torch.allclose(found.norm(dim=1), torch.ones(found[:, 0].shape))


@pytest.mark.parametrize("learner", [Sift(), Hog()])
def test_features_do_not_depend_on_seed_batch_or_process(learner):
    images = maps(5, 1, 24, 33)
    network = build(learner, (1, 24, 33))
    features = extract(network, images, CPU)
    again = learn_network(pickle.loads(pickle.dumps(learner)), (1, 24, 33), None, seed=7, device=CPU)
    alone = np.concatenate([extract(pickle.loads(pickle.dumps(again)), image[None], CPU) for image in images])
    np.testing.assert_allclose(alone, features, atol=1e-6)


@pytest.mark.parametrize(("name", "numbers"), [("sift", 2 * 128 * 2 * 3), ("hog", 2 * 36 * 2 * 3)])
def test_an_extractor_gives_rows_of_features(name, numbers):
    images = np.random.default_rng(0).integers(256, size=(2, 24, 32), dtype=np.uint8)
    features = Extractor(learner=name).fit_transform(images)
    assert features.shape == (2, numbers // 2)
    assert np.isfinite(features).all()


def test_patches_of_one_grey_level_stay_blank_once_images_are_standardised():
    images = np.random.default_rng(0).integers(256, size=(1, 16, 48), dtype=np.uint8)
    images[:, :, :20] = 200
    features = Extractor(learner="sift").fit_transform(images).reshape(128, 5)
    assert (features[:, 0] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(features[:, 1:], axis=0), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("learner", "shape", "reason"),
    [
        (Sift(), (3, 32, 32), "SIFT describes one map, and 3 come in: make the images grey"),
        (Sift(), (1, 12, 40), "patches of 16×16 pixels do not fit images of 12×40: try sift(size=12)"),
        (Sift(size=4), (1, 3, 3), "patches of 4×4 pixels do not fit images of 3×3: images with more pixels are needed"),
        (Hog(), (2, 32, 32), "HOG describes one map, and 2 come in: make the images grey"),
        (Hog(), (1, 40, 13), "patches of 16×16 pixels do not fit images of 40×13: try hog(cell=6)"),
        (Hog(cell=1), (1, 1, 8), "patches of 2×2 pixels do not fit images of 1×8: images with more pixels are needed"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_a_reason(learner, shape, reason):
    assert learner.refusal(shape) == reason
    with pytest.raises(UsageError) as caught:
        build(learner, shape)
    assert str(caught.value) == reason


@pytest.mark.parametrize("learner", [Sift(), Sift(size=4), Hog(), Hog(cell=1)])
def test_images_of_one_patch_fit(learner):
    side = getattr(learner, "size", None) or 2 * learner.cell
    assert learner.refusal((1, side, side)) is None
    assert build(learner, (1, side, side))(maps(1, 1, side, side)).shape[2:] == (1, 1)


@pytest.mark.parametrize(
    ("learner", "parameters", "message"),
    [
        (Sift, {"size": 3}, "sift: size ≥ 4, step ≥ 1 and floor ≥ 0 are needed"),
        (Sift, {"step": 0}, "sift: size ≥ 4"),
        (Sift, {"floor": -0.5}, "sift: size ≥ 4"),
        (Sift, {"size": 16.5}, "sift: parameter size takes an int"),
        (Sift, {"cells": 4}, "cells"),
        (Hog, {"cell": 0}, "hog: cell ≥ 1 is needed"),
    ],
)
def test_bad_parameters_are_refused(learner, parameters, message):
    with pytest.raises(FeatbenchError, match=message):
        learner.create(parameters)
