"""PMK-SVM from end to end: images that differ in where their words are, and scikit-learn's machines beside it."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from featbench.classification.kernel_machine import TOLERANCE
from featbench.classifiers.pmk_svm import PmkSvm
from featbench.errors import FeatureError, LearningError, UsageError
from featbench.features.rows import LocalVectors, PackedMaps, Rows
from featbench.features.spatial_pyramid import encode_images, learn_codebook
from featbench.registry import Registry
from featbench.sparse import learn_dictionary
from featbench.system.seeds import derive_seed

WORDS = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]])

ORDERS = np.array([[0, 1], [1, 0], [0, 0]])
"""Words of the left and the right half, for each class; the first two differ in nothing else."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """So few updates that dictionaries take no time."""
    monkeypatch.setattr("featbench.features.coding.learn_dictionary", partial(learn_dictionary, updates=30))


def images(n, classes=2, seed=0, grids=((6, 6),)):
    """Images of several sizes, whose halves repeat a word; their classes tell which lies where."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    sizes = np.array([grids[i // classes % len(grids)] for i in range(n)], dtype=np.int64)
    vectors = [
        WORDS[ORDERS[label][np.arange(rows * columns) % columns * 2 // columns]]
        for label, (rows, columns) in zip(labels, sizes, strict=True)
    ]
    array = np.concatenate(vectors)
    array = (array + 0.3 * generator.standard_normal(array.shape)).astype(np.float32)
    return PackedMaps.of(array, sizes), labels.astype(np.int64)


def blurred(n, classes=3, seed=0):
    """Images that no machine tells without errors."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    array = generator.standard_normal((n, 16, 3)) + 0.35 * generator.permutation(np.eye(3))[labels][:, None]
    return PackedMaps.of(array.reshape(-1, 3).astype(np.float32), np.full((n, 2), 4)), labels.astype(np.int64)


def fit(classifier, maps, labels, seed=0):
    return classifier.fit(maps, labels, np.zeros(len(labels), dtype=bool), int(labels.max()) + 1, seed)


def whole(maps):
    return LocalVectors(maps.array, maps.grids)


def one_by_one(predictor, maps):
    return np.concatenate([predictor.predict(block) for i in range(len(maps)) for block in maps.select([i]).blocks()])


SEVERAL = ((6, 6), (4, 10), (9, 2))


@pytest.mark.parametrize("grids", [((6, 6),), SEVERAL])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"weighted": False, "multiclass": "ovo"},
        {"single": True, "coding": "soft"},
        {"kernel": "linear", "coding": "llc", "neighbours": 2, "pooling": "max", "normalise": "l2"},
        {"kernel": "linear", "coding": "sparse", "pooling": "max", "normalise": "l2"},
        {"macro": 2, "normalise": "l1"},
    ],
)
def test_a_pyramid_tells_where_words_are_and_a_histogram_cannot(grids, parameters):
    maps, labels = images(24, grids=grids)
    new, expected = images(20, seed=1, grids=grids)
    near = fit(PmkSvm(codebook=4, levels=1, **parameters), maps, labels)
    assert np.array_equal(near.predict(whole(new)), expected)
    assert near.report["words"] == 4
    assert near.report["bins"] == 4 * (4 if parameters.get("single") else 5)
    if "macro" not in parameters:  # squares of neighbours see where one word borders on another
        far = fit(PmkSvm(codebook=2, levels=0, **(parameters | {"single": False})), maps, labels)
        assert (far.predict(whole(new)) == expected).mean() < 0.8


@pytest.mark.parametrize("kernel", ["intersection", "linear"])
@pytest.mark.parametrize("multiclass", ["ovr", "ovo"])
def test_machines_are_those_of_scikit_learn(kernel, multiclass):
    classifier = PmkSvm(codebook=6, levels=1, kernel=kernel, multiclass=multiclass, C=3.0)
    (maps, labels), (new, _) = blurred(60), blurred(80, seed=1)
    predictor = fit(classifier, maps, labels, seed=5)
    codebook = learn_codebook(maps, classifier.make_pyramid(), derive_seed(5, "codebook"), torch.device("cpu"))
    weights = np.repeat([0.5, 0.5], [6, 24])
    a, b = (encode_images(some, classifier.make_pyramid(), codebook).astype(np.float64) for some in (maps, new))

    def gram(x, y):
        if kernel == "linear":
            return (weights * x) @ y.T
        return np.array([[(weights * np.minimum(one, other)).sum() for other in y] for one in x])

    machine = SVC(kernel="precomputed", C=3.0, tol=TOLERANCE)
    reference = (OneVsRestClassifier(machine) if multiclass == "ovr" else machine).fit(gram(a, a), labels)
    predicted = predictor.predict(whole(new))
    assert predicted.dtype == np.int64
    assert len(set(predicted)) == 3
    # Kernel values of single precision may turn the closest decisions.
    assert (predicted == reference.predict(gram(b, a))).mean() >= 0.97


@pytest.mark.parametrize("coding", ["hard", "soft", "sparse"])
def test_images_are_predicted_one_by_one_as_together(coding, monkeypatch):
    classifier = PmkSvm(codebook=5, levels=2, coding=coding, samples=200)
    (maps, labels), (new, _) = blurred(45), blurred(40, seed=1)
    predictor = fit(classifier, maps, labels)
    together = predictor.predict(whole(new))
    assert np.array_equal(one_by_one(predictor, new), together)
    monkeypatch.setattr("featbench.features.rows.BLOCK_VALUES", 100)
    monkeypatch.setattr("featbench.features.spatial_pyramid.BLOCK_CODES", 100)
    assert np.array_equal(fit(classifier, maps, labels).predict(whole(new)), together)


def test_seed_decides():
    (maps, labels), (new, _) = blurred(45), blurred(60, seed=1)
    one, same, other = (fit(PmkSvm(codebook=8), maps, labels, seed) for seed in (1, 1, 2))
    assert one.report == same.report
    assert one.report["objective"] != other.report["objective"]
    assert np.array_equal(one.predict(whole(new)), same.predict(whole(new)))


def test_rows_of_images_of_one_size_are_the_same_as_local_vectors():
    maps, labels = blurred(30)
    rows = maps.array.reshape(30, 16, 3).transpose(0, 2, 1).reshape(30, -1)
    local = Rows(rows, np.arange(30), (3, 4, 4)).to_local_maps()
    assert fit(PmkSvm(codebook=5), local, labels).report == fit(PmkSvm(codebook=5), maps, labels).report


def test_constant_features_play_no_part():
    maps, labels = images(24)
    more = PackedMaps.of(np.hstack([maps.array, np.full((len(maps.array), 2), 3.0, dtype=np.float32)]), maps.grids)
    new, expected = images(20, seed=1)
    wide = LocalVectors(np.hstack([new.array, np.full((len(new.array), 2), 3.0, dtype=np.float32)]), new.grids)
    assert np.array_equal(fit(PmkSvm(codebook=4), more, labels).predict(wide), expected)


def test_images_of_zeros_are_an_image_like_any_other():
    maps, labels = images(24)
    maps.array[:72] = 0  # two of 24
    new, expected = images(20, seed=1)
    for parameters in ({"codebook": 4}, {"codebook": 4, "coding": "sparse", "normalise": "l1"}):
        assert (fit(PmkSvm(**parameters), maps, labels).predict(whole(new)) == expected).mean() > 0.9


@pytest.mark.parametrize(
    ("coding", "message"), [("hard", "only 1 distinct vectors"), ("sparse", "constant and hold no")]
)
def test_nothing_but_zeros_is_refused(coding, message):
    maps, labels = images(6)
    maps.array[:] = 0
    with pytest.raises(LearningError, match=message):
        fit(PmkSvm(codebook=4, coding=coding), maps, labels)


@pytest.mark.parametrize("samples", [5, 100_000])
def test_values_that_are_not_finite_are_refused_and_the_image_named(samples):
    maps, labels = images(12, grids=SEVERAL)
    predictor = fit(PmkSvm(codebook=2, samples=samples), maps, labels)
    bad = PackedMaps.of(maps.array.copy(), maps.grids)
    bad.array[bad.starts[7] + 3, 1] = np.nan
    with pytest.raises(FeatureError, match="local vectors of image 7 are not finite"):
        fit(PmkSvm(codebook=2, samples=samples), bad, labels)
    with pytest.raises(FeatureError, match="local vectors of image 7 are not finite"):
        predictor.predict(whole(bad))


def test_what_cannot_be_learned_from_is_refused(monkeypatch):
    maps, labels = images(4)
    with pytest.raises(LearningError, match="needs two classes, and all 4 training images are of class 0"):
        fit(PmkSvm(codebook=4), maps, 0 * labels)
    with pytest.raises(FeatureError, match="codebook of 200 words is asked for, and there are 144 local vectors"):
        fit(PmkSvm(), maps, labels)
    with pytest.raises(FeatureError, match="maps of 6×6 positions have no macrofeatures of 7×7"):
        fit(PmkSvm(codebook=4, macro=7), maps, labels)
    monkeypatch.setattr("featbench.classification.kernel_machine.available_memory", lambda device: 1000)
    with pytest.raises(UsageError, match=r"kernel values between 4 training images take .* train on fewer images"):
        fit(PmkSvm(codebook=4), maps, labels)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"codebook": 0}, "codebook, macro and samples must be at least 1"),
        ({"levels": 9}, "levels must be between 0 and 6"),
        ({"coding": "firm"}, "coding must be one of hard, soft, sparse, llc"),
        ({"pooling": "mean"}, "pooling must be one of sum, max"),
        ({"normalise": "l3"}, "normalise must be one of count, l1, l2, none"),
        ({"kernel": "rbf"}, "kernel must be one of intersection, linear, not 'rbf'"),
        ({"multiclass": "all"}, "multiclass must be one of ovr, ovo, not 'all'"),
        ({"C": 0.0}, "C must be finite and greater than 0, not 0.0"),
        ({"coding": "llc"}, "codes of llc can be negative"),
        ({"lam": 0.0}, "lam, softness and beta must be positive"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(UsageError, match=message):
        PmkSvm.create(parameters)


def test_it_is_registered():
    assert isinstance(Registry().classifier("pmk-svm"), PmkSvm)
