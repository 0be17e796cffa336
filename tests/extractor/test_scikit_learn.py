"""What scikit-learn asks of a transformer: its own checks, names of features, data frames, nested parameters, jobs."""

import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from featbench.data.maps import Preprocessing
from featbench.errors import UnknownNameError, UsageError
from featbench.extractor import Extractor
from featbench.registry import Registry

SMALL = "4F3-Rabs-PA2/2"

ANY_WIDTH = Extractor("2F1-Rabs", image_shape=(1, -1))
"""Takes tables of any width: each row is an image one pixel high. scikit-learn's checks fit such tables."""


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.images[:120], data.target[:120]


@pytest.fixture(scope="module")
def frame():
    data = load_digits(as_frame=True)
    return data.data[:120]


@parametrize_with_checks([ANY_WIDTH, clone(ANY_WIDTH).set_params(refined=True, refinement={"epochs": 1})])
def test_it_passes_every_check_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_without_a_shape_of_rows_it_does_not_claim_to_take_tables():
    # Square images need a square number of columns, which the tables of the checks do not have.
    (check,) = check_estimator(Extractor(SMALL))
    assert check["status"] == "passed"


# Names and data frames.


def test_features_are_named_and_come_as_a_data_frame_where_that_is_asked_for(digits, frame):
    images, _ = digits
    extractor = Extractor(SMALL).fit(images)
    plain = extractor.transform(images)
    names = [f"extractor{index}" for index in range(plain.shape[1])]
    assert extractor.get_feature_names_out().tolist() == names
    for given in (images, list(images), frame.set_axis(range(64), axis=1)):
        found = Extractor(SMALL).set_output(transform="pandas").fit_transform(given)
        assert isinstance(found, pd.DataFrame)
        assert found.columns.tolist() == names
        assert np.array_equal(found.to_numpy(), plain)
    assert isinstance(extractor.set_output(transform="default").transform(images), np.ndarray)
    pipeline = make_pipeline(Extractor(SMALL), StandardScaler()).set_output(transform="pandas")
    assert pipeline.fit_transform(images).columns.tolist() == names


def test_rows_of_a_data_frame_keep_their_index(frame):
    shuffled = frame.sample(frac=1, random_state=0)
    found = Extractor(SMALL).set_output(transform="pandas").fit_transform(shuffled)
    assert found.index.equals(shuffled.index)


def test_columns_have_to_be_those_of_the_fit_in_their_order(frame):
    extractor = Extractor(SMALL).fit(frame)
    assert extractor.feature_names_in_.tolist() == frame.columns.tolist()
    columns = frame.columns.tolist()
    for other in (
        frame[columns[::-1]],
        frame[[columns[1], columns[0], *columns[2:]]],
        frame.drop(columns="pixel_0_0"),
        frame.rename(columns={"pixel_0_0": "corner"}),
        frame.assign(more=0.0),
    ):
        with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
            extractor.transform(other)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but Extractor was fitted with"):
        without = extractor.transform(frame.to_numpy())
    assert np.array_equal(without, extractor.transform(frame))


def test_what_an_earlier_fit_found_is_forgotten(digits, frame):
    images, labels = digits
    extractor = Extractor(SMALL, refined=True, refinement={"epochs": 1}).fit(frame, labels)
    assert {"feature_names_in_", "n_features_in_", "refinement_"} <= vars(extractor).keys()
    sizes = [images[0], np.zeros((5, 9))]
    extractor.set_params(refined=False, preprocessing={"size": 8, "pad": True}).fit(sizes)
    assert not {"feature_names_in_", "n_features_in_", "refinement_"} & vars(extractor).keys()


def test_rows_of_another_width_are_counted(digits):
    rows = digits[0].reshape(120, 64)
    extractor = Extractor("2F1-Rabs", image_shape=(1, -1)).fit(rows)
    assert extractor.n_features_in_ == 64
    with pytest.raises(ValueError, match="X has 63 features, but Extractor is expecting 64 features as input"):
        extractor.transform(rows[:, 1:])


# Parameters inside parameters.


def test_parameters_inside_parameters_are_listed_and_set():
    given = {"lam": 0.5}
    extractor = Extractor(SMALL, "psd", learner_params=given, refinement={"epochs": 3}, preprocessing=Preprocessing(16))
    deep = extractor.get_params()
    assert (deep["learner_params__lam"], deep["refinement__epochs"], deep["preprocessing__size"]) == (0.5, 3, 16)
    extractor.set_params(learner_params__updates=5, refinement__rate=0.1, preprocessing__pad=True, seed=3)
    assert extractor.learner_params == {"lam": 0.5, "updates": 5}
    assert extractor.refinement == {"epochs": 3, "rate": 0.1}
    assert extractor.preprocessing == Preprocessing(16, pad=True)
    assert given == {"lam": 0.5}


def test_parameters_inside_what_was_not_given_are_set_too():
    extractor = Extractor(SMALL).set_params(learner_params__scale=2.0, preprocessing__size=9, refinement__epochs=1)
    assert extractor.learner_params == {"scale": 2.0}
    assert extractor.preprocessing == Preprocessing(size=9)
    assert extractor.refinement == {"epochs": 1}
    assert Extractor(preprocessing={"size": 9}).set_params(preprocessing__pad=True).preprocessing == {
        "size": 9,
        "pad": True,
    }


def test_parameters_of_a_learner_that_is_an_instance_are_set():
    psd = Registry().learner("psd")(lam=0.5)
    extractor = Extractor(SMALL, psd)
    assert extractor.get_params()["learner__lam"] == 0.5
    extractor.set_params(learner__lam=2.0, learner__updates=3)
    assert (extractor.learner.lam, extractor.learner.updates, psd.lam) == (2.0, 3, 0.5)


@pytest.mark.parametrize(
    ("learner", "parameters", "error", "message"),
    [
        ("psd", {"learner__lam": 1}, UsageError, "learner is no instance.*: set learner_params__lam"),
        ("psd", {"architectur": SMALL}, ValueError, "Invalid parameter 'architectur'"),
        ("psd", {"preprocessing__siz": 3}, UnknownNameError, "did you mean 'size'"),
        ("psd", {"preprocessing__size": -3}, UsageError, "preprocessing: size must be at least 1, not -3"),
        ("psd", {"seed__x": 3}, ValueError, "Invalid parameter 'seed__x' .* seed holds no parameters"),
        ("psd", {"lam": 3}, ValueError, "Invalid parameter 'lam'"),
        ("psd", {"extractor__seed": 3}, ValueError, "Invalid parameter 'extractor__seed'"),
    ],
)
def test_parameters_that_are_not_there_are_refused(learner, parameters, error, message):
    with pytest.raises(error, match=message):
        Extractor(SMALL, learner).set_params(**parameters)


def test_an_unknown_argument_names_the_one_that_was_meant():
    for name, meant in [("architectur", "architecture"), ("refine", "refined"), ("learner_param", "learner_params")]:
        message = f"Extractor() got an unexpected keyword argument '{name}': did you mean '{meant}'?"
        with pytest.raises(TypeError, match=re.escape(message)):
            Extractor(**{name: 1})


def test_a_search_sets_parameters_of_the_learner(digits):
    images, labels = digits
    model = make_pipeline(Extractor(SMALL, "psd(updates=3,patches=200)"), StandardScaler(), LogisticRegression())
    grid = {"extractor__learner_params__lam": [0.5, np.float64(2)], "extractor__preprocessing__lcn": [None]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(images, labels)
    assert search.best_params_["extractor__learner_params__lam"] in (0.5, 2)
    assert search.best_estimator_[0].learner_params.keys() == {"lam"}


# Jobs and copies.


def test_two_jobs_give_what_one_gives(digits):
    images, labels = digits
    model = make_pipeline(Extractor(SMALL, "psd(updates=3,patches=200)"), LogisticRegression(max_iter=300))
    one = cross_val_score(model, images, labels, cv=2, error_score="raise")
    two = cross_val_score(model, images, labels, cv=2, error_score="raise", n_jobs=2)
    assert np.array_equal(one, two)
    assert one.min() > 0.5


def test_threads_give_what_one_gives(digits):
    images, _ = digits
    learn = joblib.delayed(lambda seed: Extractor(SMALL, "psd(updates=3,patches=200)", seed=seed).fit_transform(images))
    together = joblib.Parallel(2, backend="threading")(learn(seed) for seed in (0, 1, 0, 1))
    alone = joblib.Parallel(1)(learn(seed) for seed in (0, 1))
    for index, found in enumerate(together):
        assert np.array_equal(found, alone[index % 2])


def test_a_fitted_extractor_is_dumped_with_all_that_it_needs(digits, tmp_path):
    images, labels = digits
    extractor = Extractor(SMALL, "psd(updates=3,patches=200)", refined=True, refinement={"epochs": 1}).fit(
        images, labels
    )
    joblib.dump(extractor, tmp_path / "extractor.joblib")
    for copied in (joblib.load(tmp_path / "extractor.joblib"), pickle.loads(pickle.dumps(extractor))):
        assert np.array_equal(copied.transform(images), extractor.transform(images))
        assert copied.get_feature_names_out().tolist() == extractor.get_feature_names_out().tolist()
        assert copied.get_params() == extractor.get_params()
