import pickle
import random

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
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.stages.architecture import Architecture

SMALL = "6F3-Rabs-N3-PA2/2"

Psd = Registry().learner("psd")

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
        ({"learner": "psd(lamm=1)"}, UnknownNameError, "unknown parameter of psd 'lamm': did you mean 'lam'"),
        ({"learner": "psd(lam"}, UsageError, r"cannot read 'psd\(lam'"),
        ({"learner": "psd(lam=1|2)"}, UsageError, "several values of lam.*as learner_params__lam"),
        (
            {"learner": "psd(lam=1)", "learner_params": {"lam": 2}},
            UsageError,
            "learner and learner_params both give lam",
        ),
        (
            {"learner": None},
            UsageError,
            "^learner takes a name, such as 'psd.lam=0.5.', a class or an instance, not None",
        ),
        ({"learner": FilterLearner}, UsageError, "^learner takes a name"),
        ({"learner": dict}, UsageError, "^learner takes a name"),
        ({"learner": ["psd"]}, UsageError, "^learner takes a name"),
        (
            {"learner": "convnet"},
            UsageError,
            "^convnet learns from labels alone: set refined=True",
        ),
        ({"refinement": Refinement(epochs=2.5)}, UsageError, "parameter epochs takes an int, not 2.5"),
        ({"learner_params": [("lam", 1)]}, UsageError, "^learner_params takes a mapping"),
        ({"learner_params": "lam=1"}, UsageError, "^learner_params takes a mapping"),
        ({"learner": Corner, "learner_params": {"lam": 1}}, UnknownNameError, "unknown parameter of corner 'lam'"),
        ({"architecture": None}, UsageError, "^architecture takes a text, not None"),
        ({"architecture": 3}, UsageError, "^architecture takes a text, not 3"),
        ({"architecture": ""}, UsageError, "^architecture takes a text, not ''"),
        ({"refined": "no"}, UsageError, "^refined takes True or False, not 'no'"),
        ({"refined": 1}, UsageError, "^refined takes True or False, not 1"),
        ({"refinement": {"epoch": 1}}, UnknownNameError, "did you mean 'epochs'"),
        ({"refinement": "epochs=1"}, UsageError, "^refinement takes a mapping"),
        ({"refinement": {"epochs": 0}}, UsageError, "epochs must be at least 1"),
        ({"preprocessing": "grey"}, UsageError, "^preprocessing takes a featbench.Preprocessing or a mapping"),
        ({"preprocessing": {"siz": 8}}, UnknownNameError, "unknown field of preprocessing 'siz': did you mean 'size'"),
        ({"preprocessing": {"size": 0}}, UsageError, "^preprocessing: size must be at least 1, not 0"),
        ({"seed": True}, UsageError, "^seed takes an integer, not True"),
        ({"seed": 1.0}, UsageError, "^seed takes an integer, not 1.0"),
        ({"seed": None}, UsageError, "^seed takes an integer, not None"),
        ({"seed": "0"}, UsageError, "^seed takes an integer, not '0'"),
        ({"device": None}, UsageError, "^device takes a text, not None"),
        ({"precision": "float16"}, UsageError, "unknown precision 'float16'"),
        ({"precision": 32}, UsageError, "^precision takes a text, not 32"),
        ({"image_shape": 8}, UsageError, "^image_shape takes a list, not 8"),
        ({"image_shape": (8,)}, UsageError, r"^image_shape takes .*not \(8,\)"),
        ({"image_shape": (-1, -1)}, UsageError, r"^image_shape takes .*not \(-1, -1\)"),
        ({"image_shape": (8, 0)}, UsageError, r"^image_shape takes .*not \(8, 0\)"),
        ({"image_shape": (8, 8, 1)}, UsageError, r"^image_shape takes .*not \(8, 8, 1\)"),
        ({"image_shape": (8, 8.0)}, UsageError, "^image_shape takes an integer, not 8.0"),
        ({"verbose": 1}, UsageError, "^verbose takes True or False, not 1"),
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
    with pytest.raises(error, match=message) as caught:
        Extractor(**parameters).fit(digits[0])
    assert isinstance(caught.value, ValueError)
    assert "--" not in str(caught.value)


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


@pytest.mark.parametrize(
    "parameters",
    [
        {"learner": "psd(updates=5,patches=200)"},
        {"learner": "psd(updates=5)", "learner_params": {"patches": 200}},
        {"learner": "psd", "learner_params": {"updates": np.int64(5), "patches": np.array(200)}},
        {"learner": Psd, "learner_params": {"updates": 5, "patches": 200}},
        {"learner": Psd(updates=5, patches=200)},
        {"learner": np.str_("psd(patches=200,updates=5)"), "seed": np.int64(0)},
        {"learner": "psd(updates=5,patches=200)", "architecture": Architecture.parse(SMALL)},
        {"learner": "psd(updates=5,patches=200)", "device": torch.device("cpu"), "precision": np.str_("float32")},
        {"learner": "psd(updates=5,patches=200)", "preprocessing": {"standardise": True}},
        {"learner": "psd(updates=5,patches=200)", "preprocessing": Preprocessing(), "image_shape": (8, 8)},
        {"learner": "psd(updates=5,patches=200)", "refined": np.False_, "verbose": np.False_},
    ],
)
def test_one_learner_is_written_in_many_ways(digits, parameters):
    images, _ = digits
    plain = Extractor(SMALL, "psd", learner_params=LEARNERS["psd"]).fit_transform(images)
    assert np.array_equal(Extractor(**{"architecture": SMALL, **parameters}).fit_transform(images), plain)


def test_refinement_is_a_mapping_or_all_its_settings(digits):
    images, labels = digits

    def features(refinement):
        return Extractor("2F3-Rabs-PA2/2", refined=True, refinement=refinement).fit(images, labels).transform(images)

    assert np.array_equal(features({"epochs": np.int64(2), "rate": 0.01}), features(Refinement(epochs=2, rate=0.01)))


def test_images_of_several_sizes_are_taken_where_preprocessing_makes_them_one_size():
    generator = np.random.default_rng(0)
    images = [generator.random(shape) for shape in ((10, 12), (14, 9), (16, 16), (3, 5, 3))]
    made = {"size": 16, "pad": True}
    extractor = Extractor("8F3-Rabs-N3-PA2/2", preprocessing=Preprocessing(**made)).fit(images)
    together = extractor.transform(images)
    assert together.shape == (4, 8 * 7 * 7)
    assert not hasattr(extractor, "n_features_in_")
    alone = [extractor.transform([image])[0] for image in images]
    assert np.allclose(together, alone, atol=1e-5)
    padded = np.array(images[:2], dtype=object)
    assert np.allclose(extractor.transform(padded), together[:2], atol=1e-5)


@pytest.mark.parametrize(
    ("preprocessing", "sizes"),
    [
        (None, "10×12, 14×9"),
        ({"size": 16}, "13×16, 16×10"),
        ({"pad": True}, "12×12, 14×14"),
        ({"size": 20, "lcn": 1.0}, "9×12, 12×5"),
    ],
)
def test_images_of_several_sizes_are_refused_where_they_stay_so(preprocessing, sizes):
    images = [np.random.default_rng(0).random(shape) for shape in ((10, 12), (14, 9))]
    with pytest.raises(ValueError, match=f"become maps of 2 sizes, such as {sizes}: make them one size") as caught:
        Extractor("4F3", preprocessing=preprocessing).fit(images)
    assert isinstance(caught.value, DataError)


def test_images_too_small_are_refused_without_a_word_of_the_command_line():
    images = [np.ones((20, 20)), np.ones((8, 20))]
    with pytest.raises(
        DataError, match=r"^image 1 comes to 8×20 pixels, but 9×9 are needed at least; mend or remove it$"
    ):
        Extractor("4F3", preprocessing={"lcn": 1.0}).fit(images)


def test_rows_hold_images_of_the_shape_that_is_said():
    images = np.random.default_rng(0).random((6, 5, 9))
    plain = Extractor(SMALL).fit_transform(images)
    for shape in ((5, 9), (5, -1), [np.int64(5), 9], np.array([-1, 9])):
        extractor = Extractor(SMALL, image_shape=shape)
        assert np.array_equal(extractor.fit_transform(images.reshape(6, 45)), plain)
    colours = np.random.default_rng(0).random((6, 5, 9, 3))
    rows = Extractor(SMALL, image_shape=(5, 9, 3), preprocessing={"channels": 3}).fit_transform(colours.reshape(6, -1))
    assert np.array_equal(rows, Extractor(SMALL, preprocessing={"channels": 3}).fit_transform(colours))


def read_global_state():
    """Return the state of what all code of a process shares."""
    numbers = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    return *numbers, torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), np.geterr()


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("refined", [False, True])
def test_neither_images_nor_labels_nor_what_all_code_shares_is_changed(digits, learner, refined):
    images, labels = digits[0].copy(), digits[1].copy()
    parameters = dict(LEARNERS[learner])
    extractor = Extractor("4F3-PA2/2", learner, learner_params=parameters, refined=refined, refinement={"epochs": 1})
    before = read_global_state()
    assert extractor.fit(images, labels) is extractor
    extractor.transform(images)
    assert read_global_state() == before
    assert np.array_equal(images, digits[0])
    assert np.array_equal(labels, digits[1])
    assert parameters == LEARNERS[learner]
    assert extractor.get_params(deep=False)["learner_params"] is parameters


@pytest.mark.parametrize("count", [1, 9, 64])
def test_features_do_not_depend_on_how_many_images_come_at_once(count):
    images = np.random.default_rng(0).random((70, 8, 8))
    extractor = Extractor(SMALL).fit(images)
    parts = [extractor.transform(images[start : start + count]) for start in range(0, 70, count)]
    assert np.allclose(np.concatenate(parts), extractor.transform(images), atol=1e-6)


def test_what_is_set_after_the_fit_does_not_change_what_happens_to_images(digits):
    images, _ = digits
    extractor = Extractor(SMALL).fit(images)
    plain = extractor.transform(images)
    assert extractor.preprocessing_ == Preprocessing()
    assert np.array_equal(extractor.set_params(preprocessing=Preprocessing(standardise=False)).transform(images), plain)


def test_labels_are_looked_at_before_anything_is_learned(digits):
    images, labels = digits
    slow = Extractor(SMALL, "psd(updates=1000000000)", refined=True)
    for wrong in (
        np.eye(10)[labels],
        labels[:, None],
        np.where(labels == 3, np.nan, labels),
        labels[:-1],
        labels + 0.5,
    ):
        with pytest.raises(ValueError, match="y "):
            slow.fit(images, wrong)


def test_progress_is_shown_where_it_is_asked_for(digits, capsys):
    images, labels = digits
    Extractor(SMALL, "psd(updates=5,patches=200)", refined=True, refinement={"epochs": 1}).fit(images, labels)
    assert capsys.readouterr() == ("", "")
    loud = Extractor(SMALL, "psd(updates=5,patches=200)", refined=True, refinement={"epochs": 1}, verbose=True)
    loud.fit(images, labels).transform(images)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "learning filters" in shown.err
    assert "extracting features" in shown.err
