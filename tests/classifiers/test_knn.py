"""Nearest neighbours, against loops and scikit-learn."""

import pickle

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from featbench.classification import row_space
from featbench.classifiers.knn import NearestNeighbours
from featbench.errors import FeatureError, LearningError, UsageError
from featbench.registry import Registry


def toy(n=90, features=12, classes=4, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(100).standard_normal((classes, features))
    scales = np.linspace(0.3, 3, features)
    return (scales * (centres[labels] + generator.standard_normal((n, features))) + 2).astype(dtype), labels


def fit(machine, x, labels, classes=4):
    return machine.fit(x, labels, np.arange(len(x)) % 5 == 0, classes, seed=0)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("features", [12, 300])
def test_the_nearest_image_decides(metric, standardise, features):
    x, labels = toy(features=features)
    new = toy(features=features, seed=1)[0]
    predicted = fit(NearestNeighbours(metric=metric, standardise=standardise), x, labels).predict(new)
    a, b = new.astype(np.float64), x.astype(np.float64)
    if standardise:
        a, b = ((z - x.mean(axis=0, dtype=np.float64)) / x.std(axis=0, dtype=np.float64) for z in (a, b))
    if metric == "cosine":
        a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b))
    expected = [labels[np.argmin([((one - other) ** 2).sum() for other in b])] for one in a]
    assert predicted.dtype == np.int64
    assert predicted.tolist() == expected


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 5, 90])
def test_several_neighbours_are_those_of_scikit_learn(k, metric):
    x, labels = toy()
    new = toy(n=500, seed=1)[0]
    scaler = StandardScaler().fit(x.astype(np.float64))
    reference = KNeighborsClassifier(k, algorithm="brute", metric=metric).fit(scaler.transform(x), labels)
    predictor = fit(NearestNeighbours(k=k, metric=metric), x, labels)
    assert np.array_equal(predictor.predict(new), reference.predict(scaler.transform(new)))
    assert predictor.report == {"k": k, "metric": metric, "classes_seen": 4}


def test_of_equally_frequent_classes_the_first_is_predicted():
    x = np.array([[-1.0], [1.0]], dtype=np.float32)
    for labels in ([3, 1], [1, 3]):
        assert fit(NearestNeighbours(k=2), x, np.array(labels)).predict(x).tolist() == [1, 1]


def test_standardising_is_what_a_large_feature_needs():
    x, labels = toy(n=400)
    new, truth = toy(n=400, seed=1)
    noise = np.random.default_rng(2).standard_normal((800, 1)).astype(np.float32) * 1000
    x, new = np.hstack([x, noise[:400]]), np.hstack([new, noise[400:]])
    fine, drowned = (
        (fit(NearestNeighbours(standardise=flag), x, labels).predict(new) == truth).mean() for flag in (True, False)
    )
    assert fine > drowned + 0.3


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_half_precision_blocks_and_repetition_play_no_part(metric, monkeypatch):
    x, labels = toy(dtype=np.float16)
    machine = NearestNeighbours(k=3, metric=metric)
    whole = fit(machine, x, labels).predict(x)
    monkeypatch.setattr(row_space, "COLUMNS", 5)
    copies = x.copy(), labels.copy()
    again = fit(machine, x.astype(np.float64), labels)
    assert np.array_equal(again.predict(x), whole)
    assert np.array_equal(np.concatenate([again.predict(row[None]) for row in x]), whole)
    assert np.array_equal(pickle.loads(pickle.dumps(again)).predict(x), whole)
    assert again.predict(x[:0]).shape == (0,)
    assert np.array_equal(x, copies[0])
    assert np.array_equal(labels, copies[1])


def test_constant_features_carry_no_weight():
    x, labels = toy()
    constant = np.full((len(x), 3), 1000.1, dtype=np.float32)
    padded = fit(NearestNeighbours(), np.hstack([x, constant]), labels)
    changed = np.hstack([x, constant * np.arange(len(x))[:, None].astype(np.float32)])
    assert np.array_equal(padded.predict(changed), fit(NearestNeighbours(), x, labels).predict(x))


def test_absent_classes_are_never_predicted_and_one_class_is():
    x, labels = toy()
    kept = labels != 2
    assert set(fit(NearestNeighbours(k=3), x[kept], labels[kept]).predict(x)) == {0, 1, 3}
    assert set(fit(NearestNeighbours(k=3), x, np.full_like(labels, 2)).predict(x)) == {2}


def test_more_neighbours_than_images_are_refused():
    x, labels = toy(n=8)
    with pytest.raises(LearningError, match="k=9 neighbours of 8 training images: ask for no more"):
        fit(NearestNeighbours(k=9), x, labels)


def test_the_first_image_whose_features_are_not_finite_is_named():
    x, labels = toy()
    predictor = fit(NearestNeighbours(), x, labels)
    x[[30, 17], 4] = np.nan, np.inf
    with pytest.raises(FeatureError, match="feature 4 of row 17 is"):
        fit(NearestNeighbours(), x, labels)
    with pytest.raises(FeatureError, match="feature 4 of row 7 is"):
        predictor.predict(x[10:])


@pytest.mark.parametrize(
    ("name", "message"),
    [("knn(k=0)", "k must be at least 1, not 0"), ("knn(metric=l1)", "metric must be one of euclidean, cosine")],
)
def test_wrong_parameters_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        Registry().classifier(name)


def test_it_is_registered_as_knn():
    assert Registry().classifier("knn(k=3)") == NearestNeighbours(k=3)
