import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from featbench.data.maps import Preprocessing
from featbench.errors import ArchitectureError, DataError, FeatureError, LearningError, UnknownNameError, UsageError
from featbench.extractor import Extractor
from featbench.learning.learner import FilterLearner

SMALL = "6F3-Rabs-N3-PA2/2"

LEARNERS = {"random": {}, "gabor": {}, "psd": {"updates": 5, "patches": 200}}


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return images[:160].reshape(-1, 8, 8), labels[:160]


class Corner(FilterLearner):
    """One weight a filter, so that the answer is known."""

    name = "corner"
    family = "fixed"

    def filters(self, bank, patches, seed):
        weight = torch.zeros(bank.shape)
        weight[:, :, 0, 0] = torch.arange(1, bank.filters + 1)[:, None]
        return weight


class Deaf(Corner):
    name = "deaf"
    differentiable = False


def test_features_are_what_the_equations_say(digits):
    images, _ = digits
    extractor = Extractor("3C1-Rabs-PA6/1", Corner(), preprocessing=Preprocessing(standardise=False)).fit(images)
    features = extractor.transform(images)
    assert (features.shape, features.dtype) == (((160, 3 * 3 * 3)), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(images, (6, 6), axis=(1, 2)).mean(axis=(3, 4))
    expected = np.stack([windows * k for k in (1, 2, 3)], axis=1).reshape(160, -1)
    assert np.allclose(features, expected, rtol=1e-3)


def test_images_and_flat_rows_give_the_same(digits):
    images, _ = digits
    extractor = Extractor(SMALL).fit(images)
    flat = images.reshape(len(images), 64)
    assert np.array_equal(extractor.transform(flat), extractor.transform(images))
    assert np.array_equal(Extractor(SMALL).fit_transform(flat), Extractor(SMALL).fit_transform(images))
    assert extractor.n_features_in_ == 64


def test_colour_images_are_made_grey(digits):
    images, _ = digits
    colour = np.repeat(images[..., None], 3, axis=3)
    one, other = Extractor(SMALL).fit_transform(images), Extractor(SMALL).fit_transform(colour)
    assert np.allclose(one, other, atol=2e-3)


@pytest.mark.parametrize("learner", LEARNERS)
def test_one_image_gives_what_many_give(digits, learner):
    images, _ = digits
    extractor = Extractor(learner=learner, learner_params=LEARNERS[learner]).fit(images)
    together = extractor.transform(images)
    alone = np.concatenate([extractor.transform(image[None]) for image in images])
    assert np.abs(together).max() > 0.1
    assert np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize("learner", LEARNERS)
def test_fitting_is_deterministic(digits, learner):
    images, _ = digits
    torch.manual_seed(1)
    one = Extractor(SMALL, learner, learner_params=LEARNERS[learner], seed=3).fit_transform(images)
    torch.manual_seed(2)
    again = Extractor(SMALL, learner, learner_params=LEARNERS[learner], seed=3).fit_transform(images)
    assert np.array_equal(one, again)
    other = Extractor(SMALL, learner, learner_params=LEARNERS[learner], seed=4).fit_transform(images)
    assert np.array_equal(one, other) == (learner == "gabor")


def test_only_an_unsupervised_learner_looks_at_the_images(digits):
    images, _ = digits

    def features(learner):
        fitted = Extractor(SMALL, learner, learner_params=LEARNERS[learner]).fit(images[:80])
        other = Extractor(SMALL, learner, learner_params=LEARNERS[learner]).fit(images[80:])
        return np.array_equal(fitted.transform(images), other.transform(images))

    assert {name: features(name) for name in LEARNERS} == {"random": True, "gabor": True, "psd": False}


def test_labels_are_not_looked_at_unless_it_is_refined(digits):
    images, labels = digits
    one = Extractor(SMALL, "psd", learner_params=LEARNERS["psd"]).fit(images, labels).transform(images)
    other = Extractor(SMALL, "psd", learner_params=LEARNERS["psd"]).fit(images, labels[::-1]).transform(images)
    assert np.array_equal(one, other)


def test_refinement_uses_the_labels(digits):
    images, labels = digits
    plain = Extractor("4F3-Rabs-PA2/2").fit(images)
    refined = Extractor("4F3-Rabs-PA2/2", refined=True).fit(images, labels)
    assert not hasattr(plain, "refinement_")
    assert refined.refinement_["best_epoch"] > 0
    assert refined.refinement_["validation_after"] >= refined.refinement_["validation_before"]
    assert not np.allclose(plain.transform(images), refined.transform(images), atol=1e-2)
    again = Extractor("4F3-Rabs-PA2/2", refined=True).fit(images, labels)
    assert np.array_equal(again.transform(images), refined.transform(images))


def test_refinement_takes_labels_of_any_kind(digits):
    images, labels = digits
    names = np.array(["zero", "one", *"23456789"])[labels]
    relabelled = np.unique(names, return_inverse=True)[1]
    one = Extractor("2F3-Rabs-PA2/2", refined=True).fit(images, names)
    other = Extractor("2F3-Rabs-PA2/2", refined=True).fit(images, relabelled)
    assert np.array_equal(one.transform(images), other.transform(images))


def test_parameters_are_got_and_set_as_scikit_learn_does():
    extractor = Extractor(SMALL, "psd", learner_params={"lam": 0.5}, seed=7)
    assert extractor.get_params(deep=False) == {
        "architecture": SMALL,
        "learner": "psd",
        "learner_params": {"lam": 0.5},
        "refinement": None,
        "refined": False,
        "preprocessing": None,
        "seed": 7,
        "device": "auto",
        "precision": "float32",
        "image_shape": None,
        "verbose": False,
    }
    assert extractor.set_params(seed=8, refined=True) is extractor
    assert (extractor.seed, extractor.refined) == (8, True)
    with pytest.raises(ValueError, match="stages"):
        extractor.set_params(stages=SMALL)


def test_a_clone_is_not_fitted_and_fits_alike(digits):
    images, _ = digits
    extractor = Extractor(SMALL, Corner(), preprocessing=Preprocessing(standardise=False), seed=5).fit(images)
    copied = clone(extractor)
    with pytest.raises(NotFittedError):
        copied.transform(images)
    assert copied.get_params().keys() == extractor.get_params().keys()
    assert np.array_equal(copied.fit_transform(images), extractor.transform(images))


@pytest.mark.parametrize("flat", [False, True])
def test_it_stands_in_a_pipeline(digits, flat):
    images, labels = digits
    images = images.reshape(len(images), -1) if flat else images
    model = make_pipeline(Extractor("16F3-Rabs-N3-PA2/2"), LogisticRegression(max_iter=300))
    assert model.fit(images[:120], labels[:120]).score(images[120:], labels[120:]) > 0.6
    assert model.score(images[:120], labels[:120]) == 1


def test_a_grid_search_chooses_architecture_and_learner_parameters(digits):
    images, labels = digits
    model = make_pipeline(Extractor(), LogisticRegression(max_iter=200))
    grid = {
        "extractor__architecture": ["6F3-Rabs-PA2/2", "1F7-Rabs-PM2"],
        "extractor__learner_params": [{"distribution": "normal"}, {"scale": 0.5}],
    }
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(images, labels)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 4
    assert search.best_params_["extractor__architecture"] == "6F3-Rabs-PA2/2"
    assert search.best_score_ == scores.max() > scores.min()


def test_a_fitted_extractor_pickles(digits):
    images, labels = digits
    for extractor in (Extractor(SMALL), Extractor("2F3-Rabs-PA2/2", refined=True)):
        extractor.fit(images, labels)
        copied = pickle.loads(pickle.dumps(extractor))
        assert np.array_equal(copied.transform(images), extractor.transform(images))


def test_it_agrees_with_a_comparison_on_the_filters(digits):
    images, _ = digits
    extractor = Extractor(SMALL, "gabor").fit(images)
    bank = next(extractor.network_.parameters()).detach()
    assert tuple(bank.shape) == (6, 1, 3, 3)
    assert torch.allclose(bank.flatten(1).norm(dim=1), torch.ones(6), atol=1e-6)


def test_it_is_not_fitted_before_it_is(digits):
    with pytest.raises(NotFittedError, match="call fit first"):
        Extractor().transform(digits[0])


def test_other_images_than_were_fitted_are_refused(digits):
    images, _ = digits
    broken = images.copy()
    broken[3, 2, 2] = np.nan
    extractor = Extractor(SMALL).fit(images)
    with pytest.raises(DataError, match="image 3 holds values that are not finite"):
        extractor.transform(broken)


def test_features_that_are_not_finite_are_refused(digits):
    images, _ = digits
    loud = Extractor("2C3-Rabs-PA2/2", "random", learner_params={"scale": 1e38})
    with pytest.raises(FeatureError, match="the features of image 0 are not finite"):
        loud.fit(images * 1e3).transform(images)


@pytest.mark.parametrize(
    "parameters, error, message",
    [
        ({"learner": "randm"}, UnknownNameError, "did you mean 'random'"),
        ({"learner_params": {"lam": 1}}, UnknownNameError, "unknown parameter of random 'lam'"),
        ({"learner": Corner(), "learner_params": {"lam": 1}}, UsageError, "learner_params go with a learner's name"),
        ({"architecture": "32F3-Rab"}, ArchitectureError, "Rab"),
        ({"architecture": "4F9"}, ArchitectureError, "8"),
        ({"architecture": "4F3 > 4F2", "learner": "gabor"}, UsageError, "gabor in stage 2: Gabor filters are designed"),
        ({"refined": True}, LearningError, r"refinement needs labels: call fit\(X, y\)"),
        ({"refined": True, "learner": Deaf()}, UsageError, "deaf is not differentiable"),
        ({"device": "gpu"}, UsageError, "unknown device 'gpu'"),
    ],
)
def test_what_makes_no_sense_is_said_when_it_is_fitted(digits, parameters, error, message):
    with pytest.raises(error, match=message):
        Extractor(**parameters).fit(digits[0])


def test_as_many_labels_as_images_are_needed(digits):
    images, labels = digits
    with pytest.raises(DataError, match="there are 160 images but 159 labels"):
        Extractor(SMALL, refined=True).fit(images, labels[:-1])


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros(64), r"not \[64\]"),
        (np.zeros((2, 3, 4, 5, 6)), r"not \[2, 3, 4, 5, 6\]"),
        (np.zeros((3, 63)), "rows of 63 values are not square images"),
        (np.array(["a"], dtype=object), "images come as"),
        (np.zeros((2, 8, 8, 4)), r"image 0 has shape \[8, 8, 4\]"),
    ],
)
def test_what_are_no_images_is_refused(images, message):
    with pytest.raises(DataError, match=message):
        Extractor().fit(images)


def test_images_of_another_size_than_those_of_the_fit_are_refused():
    images = np.random.default_rng(0).random((4, 8, 8))
    extractor = Extractor("4F3-Rabs-PA2/2").fit(images)
    with pytest.raises(DataError, match=r"maps of \(10, 8\), but the fit had \(8, 8\)"):
        extractor.transform(np.zeros((2, 10, 8)))
