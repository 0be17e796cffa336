"""The network of one hidden layer: what it minimises, and how its epochs are chosen."""

import pickle
from itertools import islice

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from featbench.classifiers import mlp
from featbench.classifiers.mlp import Perceptron
from featbench.errors import FeatureError, LearningError, UsageError
from featbench.registry import Registry


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    monkeypatch.setattr(mlp, "EPOCHS", 15)
    monkeypatch.setattr(mlp, "PATIENCE", 3)


def toy(n=120, features=8, classes=3, spread=0.7, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(100).standard_normal((classes, features))
    return (5 * (centres[labels] + spread * generator.standard_normal((n, features))) + 20).astype(dtype), labels


def held_out(n):
    return np.arange(n) % 4 == 1


def fit(machine, x, labels, classes=3, seed=0, validation=None):
    return machine.fit(x, labels, held_out(len(x)) if validation is None else validation, classes, seed)


SMALL = Perceptron(hidden=16)


def by_hand(x, labels, seed, hidden=16):
    """Yield scikit-learn's network after each epoch on features of unit variance, in double precision."""
    state = np.random.RandomState(np.random.MT19937(seed))
    network = MLPClassifier((hidden,), activation="tanh", batch_size=min(200, len(x) // 10), random_state=state)
    while True:
        yield network.partial_fit(x, labels, classes=np.unique(labels))


@pytest.mark.parametrize("shape", [(120, 8), (90, 200)])
def test_given_epochs_are_those_of_scikit_learn(shape):
    x, labels = toy(*shape)
    new = toy(*shape, seed=1)[0]
    scaler = StandardScaler().fit(x.astype(np.float64))
    reference = next(islice(by_hand(scaler.transform(x), labels, seed=3), 6, None))
    predictor = fit(Perceptron(hidden=16, epochs=7), x, labels, seed=3)
    assert (predictor.predict(new) == reference.predict(scaler.transform(new))).mean() > 0.99
    assert predictor.predict(new).dtype == np.int64
    assert predictor.report["objective"] == pytest.approx(reference.loss_, rel=1e-4)
    assert predictor.report["iterations"] == predictor.report["epochs"] == 7
    assert "validation_accuracy" not in predictor.report


def test_epochs_are_the_best_on_validation_rows():
    x, labels = toy(spread=2)
    validation = held_out(len(x))
    report = fit(SMALL, x, labels).report
    z = StandardScaler().fit_transform(x.astype(np.float64))
    rated = []
    for epoch, network in zip(range(1, 16), by_hand(z[~validation], labels[~validation], seed=0), strict=False):
        p = network.predict_proba(z[validation])
        truth = labels[validation]
        rated.append(((p.argmax(axis=1) == truth).mean(), np.log(p[np.arange(len(p)), truth]).mean()))
        best = rated.index(max(rated))
        last = max(np.argmax([accuracy for accuracy, _ in rated]), np.argmax([loss for _, loss in rated]))
        if epoch - 1 - last >= 3:
            break
    assert report["epochs"] == best + 1
    assert report["validation_accuracy"] == pytest.approx(100 * rated[best][0])
    assert report["converged"] == (epoch - 1 - last >= 3)


def test_the_final_network_is_trained_anew_on_all_rows():
    x, labels = toy(spread=2)
    chosen = fit(SMALL, x, labels)
    given = fit(Perceptron(hidden=16, epochs=chosen.report["epochs"]), x, labels)
    assert all(np.array_equal(a, b) for a, b in zip(chosen.layers, given.layers, strict=True))


def test_labels_of_validation_rows_judge_but_do_not_train_what_they_judge(monkeypatch):
    x, labels = toy()
    validation = held_out(len(x))
    seen = []
    original = MLPClassifier.partial_fit

    def watched(self, rows, labels, **options):
        seen.append((len(rows), labels.tolist()))
        return original(self, rows, labels, **options)

    monkeypatch.setattr(MLPClassifier, "partial_fit", watched)
    report = fit(SMALL, x, labels).report
    choosing = seen[: -report["epochs"]]
    assert {tuple(given) for _, given in choosing} == {tuple(labels[~validation])}
    assert all(given == labels.tolist() for _, given in seen[-report["epochs"] :])
    assert all(count == (~validation).sum() for count, _ in choosing)


def test_corrupted_validation_labels_show_in_the_validation_accuracy():
    x, labels = toy(spread=0.3)
    corrupted = np.where(held_out(len(x)), (labels + 1) % 3, labels)
    assert fit(Perceptron(), x, labels).report["validation_accuracy"] == 100
    fooled = fit(Perceptron(), x, corrupted).report
    # Before anything is learned is best, and every epoch makes it worse.
    assert fooled["epochs"] == 1
    assert fooled["converged"]


def test_a_limit_that_is_met_is_reported(monkeypatch):
    x, labels = toy(spread=2)
    monkeypatch.setattr(mlp, "EPOCHS", 2)
    assert fit(SMALL, x, labels).report["converged"] is False
    monkeypatch.setattr(mlp, "EPOCHS", 500)
    assert fit(SMALL, x, labels).report["converged"] is True


def test_it_learns():
    x, labels = toy(spread=0.5)
    new, truth = toy(seed=1, spread=0.5)
    assert (fit(Perceptron(epochs=20), x, labels).predict(new) == truth).mean() > 0.9


def test_seeds_decide_and_nothing_else():
    x, labels = toy(spread=2)
    copies = x.copy(), labels.copy()
    np.random.seed(1)
    first = fit(SMALL, x, labels)
    np.random.seed(2)
    second, other = fit(SMALL, x, labels), fit(SMALL, x, labels, seed=1)
    assert first.report == second.report
    assert np.array_equal(first.predict(x), second.predict(x))
    assert np.array_equal(first.layers[0], second.layers[0])
    assert not np.array_equal(first.layers[0], other.layers[0])
    assert np.array_equal(pickle.loads(pickle.dumps(first)).predict(x), first.predict(x))
    assert np.array_equal(x, copies[0])
    assert np.array_equal(labels, copies[1])


def test_seeds_may_have_any_size():
    x, labels = toy()
    first, second = (fit(Perceptron(hidden=4, epochs=1), x, labels, seed=seed) for seed in (2**63, 2**63 + 1))
    assert not np.array_equal(first.layers[0], second.layers[0])


def test_half_precision_and_blocks_play_no_part():
    x, labels = toy(dtype=np.float16)
    half, double = fit(SMALL, x, labels), fit(SMALL, x.astype(np.float64), labels)
    assert half.report == double.report
    whole = half.predict(x)
    assert np.array_equal(np.concatenate([half.predict(row[None]) for row in x]), whole)
    assert half.predict(x[:0]).shape == (0,)


def test_scale_offset_and_constants_play_no_part():
    x, labels = toy(dtype=np.float64)
    plain = fit(Perceptron(hidden=16, epochs=5), x, labels)
    changed = fit(Perceptron(hidden=16, epochs=5), 1000 * x - 7, labels)
    assert changed.report["objective"] == pytest.approx(plain.report["objective"], rel=1e-4)
    padded = fit(SMALL, np.hstack([x, np.full((len(x), 2), 7.3)]), labels)
    new = np.hstack([x, np.arange(2.0 * len(x)).reshape(-1, 2)])
    assert np.array_equal(padded.predict(new), padded.predict(np.hstack([x, np.zeros((len(x), 2))])))


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_absent_classes_are_never_predicted(absent):
    x, labels = toy()
    kept = labels != absent
    predictor = fit(SMALL, x[kept], labels[kept])
    assert set(predictor.predict(x)) == {0, 1, 2} - {absent}
    # Where validation rows alone are of that class, they are counted as wrong.
    mixed = kept | held_out(len(x))
    predictor = fit(SMALL, x[mixed], labels[mixed], validation=held_out(len(x))[mixed])
    assert predictor.report["validation_accuracy"] <= 100 * 2 / 3
    assert set(predictor.predict(x)) == {0, 1, 2}


def test_one_class_is_predicted():
    x, labels = toy()
    predictor = fit(SMALL, x, np.full_like(labels, 2))
    assert set(predictor.predict(x)) == {2}
    assert predictor.report["objective"] == 0


def test_epochs_cannot_be_chosen_without_validation():
    x, labels = toy()
    nobody = np.zeros(len(x), dtype=bool)
    with pytest.raises(LearningError, match=r"there are none: give them, mlp\(epochs=20\)"):
        fit(SMALL, x, labels, validation=nobody)
    assert fit(Perceptron(hidden=16, epochs=2), x, labels, validation=nobody).report["epochs"] == 2
    with pytest.raises(LearningError, match="but those for validation are of class 1"):
        fit(SMALL, x, labels, validation=labels != 1)


def test_the_first_image_whose_features_are_not_finite_is_named():
    x, labels = toy()
    predictor = fit(Perceptron(hidden=4, epochs=1), x, labels)
    x[[30, 17], 4] = np.nan, np.inf
    with pytest.raises(FeatureError, match="feature 4 of row 17 is"):
        fit(SMALL, x, labels)
    with pytest.raises(FeatureError, match="feature 4 of row 7 is"):
        predictor.predict(x[10:])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlp(hidden=0)", "hidden must be at least 1, not 0"),
        ("mlp(alpha=-1)", "alpha must be finite and not negative, not -1"),
        ("mlp(epochs=-1)", "epochs must not be negative, not -1"),
    ],
)
def test_wrong_parameters_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        Registry().classifier(name)


def test_it_is_registered_as_mlp():
    assert Registry().classifier("mlp(hidden=50)") == Perceptron(hidden=50)
