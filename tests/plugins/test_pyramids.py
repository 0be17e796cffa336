"""ScSPM, LLC and macrofeatures as learners, on digits of 32×32 pixels."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from featbench.errors import FeatureError, LearningError, UsageError
from featbench.extractor import Extractor
from featbench.features.coding import Codebook
from featbench.features.descriptors import dense_sift
from featbench.learning.patches import MapSource
from featbench.plugins.pyramids import Llc, Macrofeatures, ScSpm
from featbench.registry import Registry
from featbench.sparse import learn_dictionary

CPU = torch.device("cpu")
SHAPE = (1, 32, 32)
WORDS = 10
LENGTH = WORDS * (1 + 4 + 16)
EVERY = pytest.mark.parametrize("name", ["scspm", "llc", "macrofeatures"])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """So few updates that dictionaries take no time."""
    monkeypatch.setattr("featbench.features.coding.learn_dictionary", partial(learn_dictionary, updates=30))


def digits(first, count):
    """Standardised digits [count, 1, 32, 32]."""
    images = torch.from_numpy(load_digits().images[first : first + count]).float()[:, None]
    images = nn.functional.interpolate(images, scale_factor=4, mode="bilinear")
    return (images - images.mean()) / images.std()


def create(name, **parameters):
    return Registry().learner(name).create({"codebook": WORDS, "samples": 200, "size": 16, "step": 8} | parameters)


def build(name, seed=0, images=None, **parameters):
    source = MapSource(digits(0, 25) if images is None else images, nn.Identity(), CPU)
    return create(name, **parameters).network(SHAPE, source, seed)


@cache
def built(name):
    return build(name)


@EVERY
def test_rows_have_unit_norm_whatever_the_size_of_images(name):
    network = built(name)
    for images in (digits(100, 5), torch.cat([digits(100, 2)] * 2, dim=3), digits(100, 3)[:, :, :27, 3:]):
        rows = network(images)
        assert rows.shape == (len(images), LENGTH)
        np.testing.assert_allclose(rows.norm(dim=1), 1, atol=1e-5)


@EVERY
def test_rows_are_the_largest_codes_of_cells(name):
    network, learner = built(name), create(name)
    images = digits(100, 3)
    descriptors = dense_sift(images[:, 0], size=16, step=8)
    if name == "macrofeatures":
        corners = [descriptors[:, i : 2 + i, j : 2 + j] for i in (0, 1) for j in (0, 1)]
        descriptors = torch.cat(corners, dim=3)
    side = descriptors.shape[1]
    codes = Codebook(learner.coding(), network.words, float(network.spread)).code(descriptors.flatten(0, 2))
    codes = codes.view(3, side, side, WORDS).numpy()
    parts = []
    for level in range(3):
        for cell in np.ndindex(2**level, 2**level):
            inside = [
                codes[:, i, j]
                for i in range(side)
                for j in range(side)
                if (int((i + 0.5) * 2**level / side), int((j + 0.5) * 2**level / side)) == cell
            ]
            parts.append(np.max(inside, axis=0) if inside else np.zeros((3, WORDS)))
    expected = np.concatenate(parts, axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(network(images), expected, atol=1e-5)


@EVERY
def test_rows_do_not_depend_on_the_batch(name):
    network, images = built(name), digits(100, 8)
    together = network(images)
    torch.testing.assert_close(torch.cat([network(one) for one in images.split(1)]), together, atol=2e-3, rtol=1e-3)
    assert torch.equal(network(images), together)


@EVERY
def test_a_rebuilt_network_gives_the_same_rows(name):
    network, images = built(name), digits(100, 4)
    again = create(name).rebuild(SHAPE, network.state_dict())
    assert torch.equal(again(images), network(images))
    assert set(network.state_dict()) == {"words", "spread"}


@EVERY
def test_seed_decides_the_words(name):
    assert torch.equal(build(name).words, built(name).words)
    assert not torch.equal(build(name, seed=1).words, built(name).words)


@pytest.mark.parametrize("name", ["scspm", "macrofeatures"])
def test_blank_images_give_zeros(name):
    images = torch.cat([digits(100, 1), torch.full((1, *SHAPE), 0.7)])
    rows = built(name)(images)
    assert bool((rows[1] == 0).all()) and float(rows[0].norm()) == pytest.approx(1, abs=1e-5)


def test_blank_images_are_written_over_the_words_like_others_by_llc():
    rows = built("llc")(torch.zeros(1, *SHAPE))
    assert bool(torch.isfinite(rows).all()) and float(rows.norm()) == pytest.approx(1, abs=1e-5)


@EVERY
def test_images_without_contrast_teach_nothing(name):
    with pytest.raises(LearningError, match="too few for 10"):
        build(name, images=torch.zeros(30, *SHAPE))


def test_too_few_descriptors_are_refused():
    with pytest.raises(FeatureError, match="codebook of 10 words is asked for, and there are 9 local vectors"):
        build("llc", images=digits(0, 1))


@pytest.mark.parametrize(
    ("learner", "shape", "reason"),
    [
        (ScSpm(), (3, 32, 32), "scspm describes one map, and 3 come in: make the images grey"),
        (ScSpm(size=16), (1, 15, 40), "16×16 pixels are needed, and images of 15×40 come in: try a smaller size"),
        (Llc(size=8), (1, 40, 7), "8×8 pixels are needed, and images of 40×7 come in: try a smaller size"),
        (
            Macrofeatures(size=16, step=8),
            (1, 23, 30),
            "24×24 pixels are needed, and images of 23×30 come in: try a smaller size",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused_with_a_reason(learner, shape, reason):
    assert learner.refusal(shape) == reason
    with pytest.raises(UsageError) as caught:
        learner.network(shape, None, 0)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("learner", "side"), [(ScSpm(size=16), 16), (Llc(size=8), 8), (Macrofeatures(size=16, step=4), 20)]
)
def test_images_of_one_descriptor_or_square_fit(learner, side):
    assert learner.refusal((1, side, side)) is None
    assert learner.pyramid().join(learner.descriptors(torch.rand(1, 1, side, side))).shape[1:3] == (1, 1)


def test_no_images_are_refused():
    with pytest.raises(UsageError, match="llc needs images to learn a codebook from"):
        Llc().network(SHAPE, None, 0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("scspm", {"size": 3}, "size ≥ 4 and step ≥ 1 are needed"),
        ("llc", {"step": 0}, "size ≥ 4 and step ≥ 1 are needed"),
        ("scspm", {"codebook": 0}, "codebook, macro and samples must be at least 1"),
        ("macrofeatures", {"macro": 0}, "must be at least 1"),
        ("llc", {"levels": 7}, "levels must be between 0 and 6"),
        ("scspm", {"lam": 0.0}, "lam, softness and beta must be positive"),
        ("llc", {"neighbours": 0}, "neighbours must be at least 1"),
    ],
)
def test_parameters_without_sense_are_refused(name, parameters, message):
    with pytest.raises(UsageError, match=message):
        create(name, **parameters)


@EVERY
def test_an_extractor_gives_rows_and_they_are_not_refined(name):
    images = (255 * load_digits().images[:20] / 16).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    parameters = {"codebook": 6, "samples": 100, "size": 16, "step": 8}
    assert Extractor(learner=name, learner_params=parameters).fit_transform(images).shape == (20, 6 * 21)
    learner = Registry().learner(name)
    assert (learner.family, learner.differentiable, learner.gives) == ("unsupervised", False, "row")
