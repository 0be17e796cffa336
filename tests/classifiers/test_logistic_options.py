"""Logistic regression: the L1 penalty, devices, and input that cannot be used."""

import pickle

import numpy as np
import pytest
import torch

from featbench.classification import row_space, softmax_lasso, softmax_regression
from featbench.classifiers.logistic import FRACTIONS, Logistic
from featbench.errors import FeatureError, LearningError, UsageError


def toy(n=120, d=12, classes=4, spread=1.5, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = generator.standard_normal((classes, d))[labels] + spread * generator.standard_normal((n, d))
    return x.astype(dtype), labels, np.arange(n) % 5 == 0


def fit(x, labels, validation, classes=4, **parameters):
    return Logistic(**parameters).fit(x, labels, validation, classes, seed=0)


def judged(x, labels, validation, strength):
    """Accuracy and log-loss on validation rows at one strength of L1, trained on the other rows."""
    standardiser = row_space.Standardiser.fit(x)
    solution = softmax_lasso.SoftmaxLasso(x, standardiser, labels, ~validation, 4).solve(strength)
    scores = solution.scores[validation]
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    truth = labels[validation]
    return (logs.argmax(axis=1) == truth).mean(), logs[np.arange(len(truth)), truth].mean(), strength


@pytest.mark.parametrize(("spread", "seed"), [(0.5, 0), (2.0, 1), (6.0, 2)])
def test_the_strength_of_l1_is_the_best_on_validation_rows(spread, seed):
    x, labels, validation = toy(spread=spread, seed=seed)
    report = fit(x, labels, validation, penalty="l1").report
    largest = softmax_lasso.SoftmaxLasso(
        x, row_space.Standardiser.fit(x), labels, ~validation, 4
    ).find_largest_strength()
    best = max(judged(x, labels, validation, fraction * largest) for fraction in FRACTIONS)
    assert report["strength"] == pytest.approx(best[2])
    assert report["validation_accuracy"] == pytest.approx(100 * best[0])


def test_l1_leaves_weights_out_and_counts_those_it_keeps():
    x, labels, validation = toy(d=60, spread=3)
    predictor = fit(x, labels, validation, penalty="l1", strength=5e-3)
    assert predictor.report["nonzero"] == np.count_nonzero(predictor.weight)
    assert 0 < predictor.report["nonzero"] < predictor.weight.size / 2
    assert predictor.report["tolerance"] == softmax_lasso.TOLERANCE
    assert predictor.report["gap"] <= softmax_lasso.TOLERANCE * predictor.report["objective"]
    assert predictor.report["converged"] is True
    assert np.count_nonzero(fit(x, labels, validation, strength=5e-3).weight) == predictor.weight.size


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("d", [12, 300])
def test_predictions_are_those_of_the_weights_in_any_blocks(penalty, d):
    x, labels, validation = toy(d=d)
    predictor = fit(x, labels, validation, penalty=penalty)
    expected = (predictor.standardiser.apply(x) @ predictor.weight + predictor.bias).argmax(axis=1)
    assert np.array_equal(predictor.predict(x), expected)
    assert np.array_equal(np.concatenate([predictor.predict(rows) for rows in np.array_split(x, 7)]), expected)
    assert (expected == labels).mean() > 0.8


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_half_and_double_precision_lead_to_the_same(penalty):
    half = toy(d=40, dtype=np.float16)[0]
    _, labels, validation = toy()
    reports = [
        fit(half.astype(dtype), labels, validation, penalty=penalty).report for dtype in (np.float16, np.float64)
    ]
    assert reports[0] == reports[1]


def test_a_penalty_that_is_unknown_is_refused():
    with pytest.raises(UsageError, match="logistic: penalty must be one of l1, l2, not 'l3'"):
        Logistic.create({"penalty": "l3"})
    assert Logistic.create({"penalty": "l1"}).parameters() == {"penalty": "l1", "strength": 0.0, "standardise": True}
    assert str(Logistic.choice({"penalty": "l1"})) == "logistic(penalty=l1)"


def test_the_device_is_no_parameter_and_travels_with_the_classifier():
    plain, moved = Logistic(strength=1e-3), Logistic(strength=1e-3).on("cuda")
    assert (plain.device, moved.device) == ("cpu", "cuda")
    assert moved == plain
    assert moved.parameters() == plain.parameters() == {"penalty": "l2", "strength": 1e-3, "standardise": True}
    assert pickle.loads(pickle.dumps(moved)).device == "cuda"
    assert moved.on("cpu").device == "cpu"


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("d", [12, 300])
def test_on_the_cpu_nothing_changes(penalty, d):
    x, labels, validation = toy(d=d)
    plain, moved = (one.fit(x, labels, validation, 4, 0) for one in (Logistic(penalty), Logistic(penalty).on("cpu")))
    assert plain.report == moved.report
    assert np.array_equal(plain.weight, moved.weight)


@pytest.mark.parametrize("d", [12, 300])
def test_rows_are_multiplied_on_the_device(d, monkeypatch):
    # The meta device computes nothing, but it is one: the first product is of what would be on a GPU.
    seen = []

    def watched(a, b):
        seen.append((a.device, b.device))
        raise InterruptedError

    monkeypatch.setattr(row_space, "multiply", watched)
    x, labels, validation = toy(d=d)
    with pytest.raises(InterruptedError):
        Logistic(strength=1e-3).on("meta").fit(x, labels, validation, 4, 0)
    assert {device for pair in seen for device in pair} == {torch.device("meta")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("d", [12, 300])
def test_a_gpu_leads_to_the_same(penalty, d):
    x, labels, validation = toy(d=d)
    plain, moved = (one.fit(x, labels, validation, 4, 0) for one in (Logistic(penalty), Logistic(penalty).on("cuda")))
    assert moved.report["objective"] == pytest.approx(plain.report["objective"], rel=1e-6)
    assert moved.report["strength"] == pytest.approx(plain.report["strength"])
    assert np.array_equal(plain.predict(x), moved.predict(x))


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_with_their_row(penalty, value):
    x, labels, validation = toy()
    predictor = fit(x, labels, validation, penalty=penalty)
    x[17, 3] = value
    with pytest.raises(FeatureError, match=f"feature 3 of row 17 is {value}"):
        fit(x, labels, validation, penalty=penalty)
    with pytest.raises(FeatureError, match=f"feature 3 of row 17 is {value}"):
        predictor.predict(x)


def test_labels_of_another_length_are_refused():
    x, labels, validation = toy()
    with pytest.raises(FeatureError, match=r"120 rows of features, but labels of shape \(119,\)"):
        fit(x, labels[:-1], validation)


def test_a_strength_cannot_be_chosen_on_nothing():
    x, labels, validation = toy()
    with pytest.raises(LearningError, match="no row is held out for validation"):
        fit(x, labels, validation & False)
    assert fit(x, labels, validation & False, strength=1e-3).report["converged"]
    with pytest.raises(LearningError, match="all 120 rows are held out"):
        fit(x, labels, validation | True)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("parameters", [{}, {"strength": 1e-3}])
def test_a_single_class_is_always_predicted_and_reported(penalty, parameters):
    x, labels, validation = toy()
    predictor = fit(x, labels * 0 + 2, validation, penalty=penalty, **parameters)
    assert predictor.report["classes_seen"] == 1
    assert predictor.report["converged"] is True
    assert set(predictor.predict(x)) == {2}
    assert fit(x, labels, validation, penalty=penalty).report["classes_seen"] == 4


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_constant_features_have_no_weight(penalty):
    x, labels, validation = toy()
    padded = np.hstack([x, np.full((120, 2), 7.3, dtype=np.float32)])
    plain, other = fit(x, labels, validation, penalty=penalty), fit(padded, labels, validation, penalty=penalty)
    assert other.report == pytest.approx(plain.report, rel=1e-6)
    assert np.array_equal(other.predict(np.hstack([x, np.full((120, 2), 99, dtype=np.float32)])), plain.predict(x))


def test_a_path_that_did_not_converge_is_reported(monkeypatch):
    x, labels, validation = toy()
    original = softmax_regression.SoftmaxRidge.solve

    def stopped(self, strength):
        solution = original(self, strength)
        object.__setattr__(solution, "converged", strength != 1e-5)
        return solution

    monkeypatch.setattr(softmax_regression.SoftmaxRidge, "solve", stopped)
    report = fit(x, labels, validation).report
    assert report["strength"] != 1e-5
    assert report["converged"] is False
