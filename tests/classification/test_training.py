from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from featbench.classification.classifier import Classifier, MapClassifier, MapPredictor, Predictor
from featbench.classification.training import (
    HELD_OUT,
    TrainedClassifier,
    TrainingData,
    compute_validation_accuracy,
    train,
)
from featbench.errors import FeatureError, PluginError, SplitError, UsageError
from featbench.evaluation.split import hold_out
from featbench.features.rows import LocalMaps, PackedMaps, Rows

CLASSES, EACH = 3, 8
LABELS = np.repeat(np.arange(CLASSES), EACH)
VALIDATION = np.tile(np.arange(EACH) >= 6, CLASSES)


def rows():
    """Return rows of which the first number says which row it is, the second its class."""
    return Rows(
        np.stack([np.arange(len(LABELS)), LABELS], axis=1).astype(np.float32), np.arange(len(LABELS)), (2, 1, 1)
    )


def training(labels=LABELS, features=None, seed=5):
    return TrainingData(rows() if features is None else features, labels, VALIDATION, CLASSES, seed)


@dataclass
class Fit:
    """What a classifier was trained on, and later asked."""

    seen: list[int]
    labels: list[int]
    validation: list[bool]
    seed: int
    asked: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Partly(Classifier):
    """Right about the rows whose number is below `below`; of the others it says the next class. Knows the truth."""

    name: ClassVar[str] = "partly"
    fits: ClassVar[list[tuple[int, Fit]]] = []

    below: int = 0
    reports: bool = False

    def fit(self, features, labels, validation, classes, seed):
        fit = Fit(features[:, 0].astype(int).tolist(), labels.tolist(), validation.tolist(), seed)
        Partly.fits.append((self.below, fit))
        return _PartlyRight(self, fit, {"validation_accuracy": 12.5} if self.reports else {"below": self.below})


@dataclass
class _PartlyRight(Predictor):
    classifier: Partly
    fit: Fit
    report: dict[str, Any]

    def predict(self, features):
        self.fit.asked += features[:, 0].astype(int).tolist()
        return (features[:, 1].astype(int) + (features[:, 0] >= self.classifier.below)) % CLASSES


@pytest.fixture(autouse=True)
def _forget():
    Partly.fits.clear()


def alternatives(*belows, **options):
    return {f"partly(below={below})": Partly(below, **options) for below in belows}


def accuracy(below, labels=LABELS):
    """Return what a classifier gets right on the images that validate, counted one by one."""
    truth = [(int(LABELS[i]) + (i >= below)) % CLASSES == labels[i] for i in np.flatnonzero(VALIDATION)]
    return 100 * sum(truth) / len(truth)


# The choice.


@pytest.mark.parametrize("belows", [(0, 9, 24), (24, 9, 0), (9, 0, 10)])
def test_the_classifier_that_does_best_on_validation_images_is_taken(belows):
    found = train(alternatives(*belows), training())
    best = max(belows, key=accuracy)
    assert len({accuracy(below) for below in belows}) > 1
    assert found.name == f"partly(below={best})"
    expected = {"below": best, "classifier": found.name, "validation_accuracy": pytest.approx(accuracy(best))}
    assert found.report == expected
    assert found.predict(rows()).tolist() == [(int(k) + (i >= best)) % CLASSES for i, k in enumerate(LABELS)]


def test_of_equals_the_first_is_taken():
    assert accuracy(8) == accuracy(14) > accuracy(0)
    for belows in ((0, 8, 14), (0, 14, 8)):
        assert train(alternatives(*belows), training()).name == f"partly(below={belows[1]})"


def test_those_that_are_judged_are_trained_without_the_images_they_are_judged_on():
    train(alternatives(3, 20, 11), training())
    held_out, others = np.flatnonzero(VALIDATION).tolist(), np.flatnonzero(~VALIDATION).tolist()
    *judged, (last, final) = Partly.fits
    assert [below for below, _ in judged] == [3, 20, 11]
    for _, fit in judged:
        assert fit.seen == others
        assert fit.labels == LABELS[others].tolist()
        assert fit.asked == held_out
        # A part of what they are trained on is held out for choices of their own, as `hold_out` has it.
        assert fit.validation == hold_out(LABELS[others], HELD_OUT, 5).tolist()
        assert all(0 < np.sum(np.array(fit.validation)[LABELS[others] == label]) < 6 for label in range(CLASSES))
        assert fit.seed == 5
    assert last == 20
    assert (final.seen, final.labels) == (list(range(24)), LABELS.tolist())
    assert (final.validation, final.asked) == (VALIDATION.tolist(), [])


def test_labels_of_validation_images_change_what_is_chosen_and_not_what_is_judged():
    corrupted = np.where(VALIDATION, (LABELS + 1) % CLASSES, LABELS)
    names, fits = [], []
    for labels in (LABELS, corrupted):
        Partly.fits.clear()
        found = train(alternatives(0, 24), training(labels))
        names.append((found.name, found.report["validation_accuracy"]))
        fits.append([fit for _, fit in Partly.fits[:-1]])
    assert names == [("partly(below=24)", 100), ("partly(below=0)", 100)]
    assert fits[0] == fits[1]


def test_labels_of_the_other_images_do_not_judge():
    corrupted = np.where(VALIDATION, LABELS, (LABELS + 1) % CLASSES)
    assert train(alternatives(0, 9, 24), training(corrupted)).name == "partly(below=24)"


def test_the_choice_is_made_again_with_the_same_seed():
    one, same, other = (training(seed=seed).select(~VALIDATION) for seed in (1, 1, 2))
    assert np.array_equal(one.validation, same.validation)
    assert not np.array_equal(one.validation, other.validation)
    assert np.array_equal(one.features.read(), rows().read()[~VALIDATION])


def test_a_class_of_which_one_image_is_left_to_train_on_is_named():
    labels, validation = np.array([0, 0, 0, 1, 1]), np.array([True, False, False, True, False])
    few = TrainingData(rows().select(np.arange(5)), labels, validation, 2, 0)
    with pytest.raises(SplitError, match="class 1 has a single training image"):
        train(alternatives(0, 9), few)
    assert train(alternatives(0), few).name == "partly(below=0)"


# What is reported.


def test_a_single_classifier_is_trained_once_on_everything():
    found = train(alternatives(9), training())
    assert (found.name, found.report) == ("partly(below=9)", {"below": 9})
    ((_, fit),) = Partly.fits
    assert fit.seen == list(range(24))


def test_a_rate_that_is_asked_for_is_measured_as_for_a_choice():
    found = train(alternatives(9), training(), rate=True)
    assert found.report == {"below": 9, "validation_accuracy": pytest.approx(accuracy(9))}
    assert compute_validation_accuracy("one", Partly(9), training()) == found.report["validation_accuracy"]
    assert Partly.fits[0][1].seen == list(range(24))
    assert Partly.fits[1][1].seen == np.flatnonzero(~VALIDATION).tolist()


def test_a_rate_that_the_classifier_knows_is_taken_from_it():
    found = train(alternatives(9, reports=True), training(), rate=True)
    assert found.report == {"validation_accuracy": 12.5}
    assert len(Partly.fits) == 1


@pytest.mark.parametrize("rate", [False, True])
def test_rates_of_alternatives_are_all_measured_in_the_same_way(rate):
    classifiers = {**alternatives(9, reports=True), **alternatives(24)}
    found = train(classifiers, training(), rate=rate)
    assert found.name == "partly(below=24)"
    assert found.report["validation_accuracy"] == 100
    only = train(alternatives(9, 0, reports=True), training(), rate=rate)
    assert only.report["validation_accuracy"] == pytest.approx(accuracy(9))


def test_the_chosen_parameters_of_a_built_in_classifier_are_what_scikit_learn_finds():
    from sklearn.neighbors import KNeighborsClassifier

    from featbench.registry import Registry

    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), 20)
    values = (generator.normal(size=(CLASSES, 5))[labels] + 1.5 * generator.normal(size=(60, 5))).astype(np.float32)
    validation = hold_out(labels, 1 / 3, 0)
    features = Rows(values, np.arange(60), (5, 1, 1))
    names = [f"knn(k={k},standardise=False)" for k in (1, 3, 9)]
    found = train(
        {name: Registry().classifier(name) for name in names}, TrainingData(features, labels, validation, 3, 0)
    )
    scores = {}
    for name, k in zip(names, (1, 3, 9), strict=True):
        reference = KNeighborsClassifier(k).fit(values[~validation], labels[~validation])
        scores[name] = 100 * reference.score(values[validation], labels[validation])
    assert found.report["validation_accuracy"] == pytest.approx(max(scores.values()))
    assert scores[found.name] == max(scores.values())
    assert len(set(scores.values())) > 1


# Features of both kinds.


@dataclass(frozen=True)
class Counting(MapClassifier):
    """Says how many local vectors an image has, less one."""

    name: ClassVar[str] = "counting"
    given: ClassVar[list[LocalMaps]] = []

    def fit(self, features, labels, validation, classes, seed):
        Counting.given.append(features)
        return _Counts()


class _Counts(MapPredictor):
    report: ClassVar[dict[str, Any]] = {}

    def predict(self, features):
        return features.grids.prod(axis=1) - 1


def several_sizes():
    """Return local vectors of images, those of class k in k + 1 positions."""
    grids = np.array([(1, label + 1) for label in LABELS])
    return PackedMaps.of(np.ones((int(grids.prod(axis=1).sum()), 2), dtype=np.float32), grids)


def test_images_of_several_sizes_are_classified_by_their_local_vectors():
    for value in ({"counting": Counting()}, {"first": Counting(), "second": Counting()}):
        found = train(value, training(features=several_sizes()), rate=True)
        assert found.report["validation_accuracy"] == 100
        assert np.array_equal(found.predict(several_sizes()), LABELS)


def test_rows_are_local_vectors_to_a_classifier_of_those():
    features = Rows(np.zeros((24, 12), dtype=np.float32), np.arange(24), (2, 3, 2))
    Counting.given.clear()
    found = train({"counting": Counting()}, training(features=features))
    (given,) = Counting.given
    assert given.grids.tolist() == [[3, 2]] * 24
    assert found.predict(features.select(np.arange(4))).tolist() == [5] * 4


REFUSAL = "images of several sizes have features of several lengths, which partly cannot take: take a "


def test_a_classifier_of_rows_refuses_images_of_several_sizes():
    for classifiers in ({"partly": Partly()}, {"partly": Partly(), "other": Partly(3)}):
        with pytest.raises(FeatureError, match=REFUSAL + "classifier of local vectors"):
            train(classifiers, training(features=several_sizes()))
    with pytest.raises(FeatureError, match=REFUSAL):
        replace(train({"partly": Partly()}, training())).predict(several_sizes())
    assert Partly.fits[0][1].seen == list(range(24))


@pytest.mark.parametrize("limit", [1, 5, 7, 1000])
def test_predictions_are_in_order_however_many_images_are_asked_for_at_once(monkeypatch, limit):
    monkeypatch.setattr("featbench.features.rows.BLOCK_VALUES", limit)
    order = np.random.default_rng(0).permutation(24)
    found = train({"partly": Partly(24)}, training())
    assert np.array_equal(found.predict(rows().select(order)), LABELS[order])
    assert Partly.fits[0][1].asked == order.tolist()
    counted = train({"counting": Counting()}, training(features=several_sizes()))
    assert np.array_equal(counted.predict(several_sizes().select(order)), LABELS[order])


# Predictions of a wrong shape.


@dataclass
class _Giving(Predictor):
    gives: Any
    report: dict[str, Any] = field(default_factory=dict)

    def predict(self, features):
        return self.gives(len(features))


@dataclass
class _GivingOfMaps(MapPredictor):
    gives: Any
    report: dict[str, Any] = field(default_factory=dict)

    def predict(self, features):
        return self.gives(len(features.grids))


@pytest.mark.parametrize(
    ("gives", "shape"),
    [
        (lambda n: np.zeros(n - 1, dtype=int), r"\(23,\)"),
        (lambda n: np.zeros(n + 1, dtype=int), r"\(25,\)"),
        (lambda n: np.zeros((n, 1), dtype=int), r"\(24, 1\)"),
        (lambda n: np.zeros((n, CLASSES)), r"\(24, 3\)"),
        (lambda n: [], r"\(0,\)"),
        (lambda n: (0 for _ in range(n)), r"\(\)"),
        (lambda n: {0: 1}, r"\(\)"),
        (lambda n: "0" * n, r"\(\)"),
        (lambda n: 0, r"\(\)"),
        (lambda n: None, r"\(\)"),
    ],
)
def test_predictions_of_another_shape_are_the_classifiers_fault(gives, shape):
    message = f"classifier odd gave predictions of shape {shape} for 24 images"
    for predictor, features in ((_Giving(gives), rows()), (_GivingOfMaps(gives), several_sizes())):
        with pytest.raises(PluginError, match=message):
            TrainedClassifier("odd", predictor, {}).predict(features)


@pytest.mark.parametrize(
    ("gives", "why"),
    [
        (lambda n: np.ones(n), "predicted values of type float64; class indices are integers"),
        (lambda n: np.full(n, np.nan), "predicted values of type float64"),
        (lambda n: np.ones(n, np.float16), "predicted values of type float16"),
        (lambda n: np.ones(n, bool), "predicted values of type bool"),
        (lambda n: ["a"] * n, "predicted values of type <U1"),
        (lambda n: [b"a"] * n, r"predicted values of type \|S1"),
        (lambda n: [None] * n, "predicted values of type object"),
        (lambda n: [2**70] * n, "predicted values of type object"),
        (lambda n: np.ones(n, complex), "predicted values of type complex128"),
        (lambda n: np.array(["2020"] * n, dtype="datetime64[Y]"), "predicted values of type datetime64"),
        (lambda n: np.ma.masked_equal(np.ones(n, int), 1), "gave predictions with a mask"),
        (lambda n: [[0]] * (n - 1) + [[0, 1]], "gave predictions that make no array"),
        (lambda n: torch.ones(n, requires_grad=True), "gave predictions that make no array"),
    ],
)
def test_predictions_of_another_type_are_the_classifiers_fault(gives, why):
    for predictor, features in ((_Giving(gives), rows()), (_GivingOfMaps(gives), several_sizes())):
        with pytest.raises(PluginError, match=f"classifier odd {why}"):
            TrainedClassifier("odd", predictor, {}).predict(features)


class _Fitted(Classifier):
    """Returns what it is given as a predictor."""

    name = "fitted"

    def __init__(self, predictor=None, change=lambda *_: None):
        self.predictor = _Giving(lambda n: [1] * n) if predictor is None else predictor
        self.change, self.seen = change, []

    def fit(self, features, labels, validation, classes, seed):
        self.seen.append(seed)
        self.change(features, labels, validation)
        return self.predictor


@pytest.mark.parametrize(
    ("predictor", "why"),
    [
        (3, "gave int where a predictor with a method predict is expected"),
        (np.ones(3), "gave ndarray where a predictor"),
        (SimpleNamespace(report={}), "gave SimpleNamespace where a predictor"),
        (SimpleNamespace(predict=3, report={}), "gave SimpleNamespace where a predictor"),
        (SimpleNamespace(predict=len), "gave a predictor whose report is NoneType: set its attribute report to a dict"),
        (SimpleNamespace(predict=len, report=[1]), "gave a predictor whose report is list"),
        (SimpleNamespace(predict=len, report="good"), "gave a predictor whose report is str"),
    ],
)
def test_what_is_no_predictor_is_the_classifiers_fault(predictor, why):
    with pytest.raises(PluginError, match=f"classifier fitted {why}"):
        train({"fitted": _Fitted(predictor)}, training())


def test_a_predictor_without_scores_gives_none():
    predictor = SimpleNamespace(predict=lambda x: np.ones(len(x), int), report={})
    found = train({"fitted": _Fitted(predictor)}, training())
    assert found.predict(rows()).tolist() == [1] * 24
    with pytest.raises(UsageError, match="classifier fitted gives no class scores"):
        found.scores(rows(), CLASSES, "top-5-accuracy")


def test_a_classifier_that_changes_what_it_is_given_changes_no_other():
    def spoil(features, labels, validation):
        features[:], labels[:], validation[:] = 0, 0, True

    data = training()
    expected = data.labels.copy(), data.validation.copy(), data.features.read()
    train({"one": _Fitted(change=spoil), "other": _Fitted(change=spoil)}, data, rate=True)
    assert all(map(np.array_equal, expected, (data.labels, data.validation, data.features.read())))


def test_classifiers_are_given_seeds_of_32_bits_unless_they_ask_for_more():
    class Wide(_Fitted):
        seed_bits = 63

    class Heir(Wide):
        """Inherits no width: it may hand the seed to scikit-learn."""

    data = replace(training(), seed=2**62 + 2**40 + 5)
    plain, wide, heir = _Fitted(), Wide(), Heir()
    for one in (plain, wide, heir):
        train({"fitted": one}, data)
    assert (plain.seen, wide.seen, heir.seen) == ([5], [2**62 + 2**40 + 5], [5])


def test_a_list_of_predictions_is_as_good_as_an_array():
    found = TrainedClassifier("listing", _Giving(lambda n: [1] * n), {}).predict(rows())
    assert found.tolist() == [1] * 24


# Scores of classes.


@dataclass
class _Scoring(_Giving):
    def predict(self, features):
        raise AssertionError("nobody asked for predictions")

    def scores(self, features):
        return self.gives(features)


@dataclass
class _ScoringMaps(_GivingOfMaps):
    def predict(self, features):
        raise AssertionError("nobody asked for predictions")

    def scores(self, features):
        return self.gives(features.grids)


@pytest.mark.parametrize("limit", [1, 5, 7, 1000])
def test_scores_are_in_order_however_many_images_are_asked_for_at_once(monkeypatch, limit):
    monkeypatch.setattr("featbench.features.rows.BLOCK_VALUES", limit)
    order = np.random.default_rng(0).permutation(24)
    of_rows = TrainedClassifier("scoring", _Scoring(lambda x: np.stack([x[:, 0], x[:, 1], -x[:, 0]], axis=1)), {})
    found = of_rows.scores(rows().select(order), CLASSES, "top-5-accuracy")
    assert found.dtype == np.float64
    assert np.array_equal(found, np.stack([order, LABELS[order], -order], axis=1))
    of_maps = TrainedClassifier("scoring", _ScoringMaps(lambda grids: np.eye(CLASSES)[grids.prod(axis=1) - 1]), {})
    found = of_maps.scores(several_sizes().select(order), CLASSES, "top-5-accuracy")
    assert np.array_equal(found.argmax(axis=1), LABELS[order])


def test_a_classifier_without_scores_is_named_with_the_metric_that_needs_them():
    message = "classifier odd gives no class scores, which metric top-5-accuracy needs: take another classifier, or a "
    for predictor, features in ((_Giving(np.zeros), rows()), (_GivingOfMaps(np.zeros), several_sizes())):
        with pytest.raises(UsageError, match=message):
            TrainedClassifier("odd", predictor, {}).scores(features, CLASSES, "top-5-accuracy")


@pytest.mark.parametrize(
    ("gives", "what"),
    [
        (lambda n: np.zeros((n, CLASSES - 1)), r"type float64 and shape \(24, 2\): .* of shape \(24, 3\) is expected"),
        (lambda n: np.zeros(n), r"type float64 and shape \(24,\)"),
        (lambda n: np.zeros((n - 1, CLASSES)), r"type float64 and shape \(23, 3\)"),
        (lambda n: np.zeros((n, CLASSES), dtype=int), r"type int64 and shape \(24, 3\)"),
        (lambda n: np.full((n, CLASSES), np.nan), "scores that are NaN, which cannot be ranked"),
    ],
)
def test_scores_of_another_shape_or_type_are_the_classifiers_fault(gives, what):
    found = TrainedClassifier("odd", _Scoring(lambda x: gives(len(x))), {})
    with pytest.raises(PluginError, match=f"classifier odd gave .*{what}"):
        found.scores(rows(), CLASSES, "top-5-accuracy")


def test_classes_that_are_never_predicted_may_have_minus_infinity():
    found = TrainedClassifier("some", _Scoring(lambda x: np.full((len(x), CLASSES), -np.inf, dtype=np.float32)), {})
    assert np.isneginf(found.scores(rows(), CLASSES, "top-5-accuracy")).all()
