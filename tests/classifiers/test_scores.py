"""Scores of classes, of every built-in classifier: the first of them is what is predicted, ties included."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.classification.classifier import MapClassifier
from featbench.classification.kernel_machine import TOLERANCE, train
from featbench.classifiers.knn import NearestNeighbours
from featbench.classifiers.logistic import Logistic
from featbench.features.rows import LocalVectors, PackedMaps
from featbench.registry import Registry

REGISTRY = Registry()

CLASSES = 6

NAMES = [
    *sorted(set(REGISTRY.names("classifiers")) - {"mlp", "pmk-svm", "pyramid-match-svm"}),
    *(
        "logistic(penalty=l1)",
        "linear-svm(loss=hinge)",
        "rbf-svm(multiclass=ovr)",
        "knn(k=5)",
        "knn(k=4,metric=cosine)",
    ),
    *("mlp(epochs=5)", "pmk-svm(codebook=5)", "pmk-svm(codebook=5,multiclass=ovo)"),
    *("pyramid-match-svm(components=2)", "pyramid-match-svm(components=2,multiclass=ovo)"),
]

POSITIONS = 4


def drawn(n, seed, known):
    """Return features [n, 8] that no classifier tells without errors, and labels among the known classes."""
    generator = np.random.default_rng(seed)
    labels = np.asarray(known)[np.arange(n) % len(known)]
    centres = np.random.default_rng(9).standard_normal((CLASSES, 8))
    return (centres[labels] + generator.standard_normal((n, 8))).astype(np.float32), labels.astype(np.int64)


def as_maps(features):
    """Return rows as local vectors: two values at each of four positions."""
    return features.reshape(-1, 2), np.full((len(features), 2), 2)


def fit(name, features, labels):
    classifier = REGISTRY.classifier(name)
    given = PackedMaps.of(*as_maps(features)) if isinstance(classifier, MapClassifier) else features
    return classifier.fit(given, labels, np.arange(len(labels)) % 5 == 0, CLASSES, 3)


def ask(name, predictor, features):
    given = LocalVectors(*as_maps(features)) if isinstance(REGISTRY.classifier(name), MapClassifier) else features
    return predictor.predict(given), predictor.scores(given)


@pytest.mark.parametrize("known", [(0, 1, 2, 3, 4, 5), (1, 2, 4), (2, 5)], ids=["all", "three", "two"])
@pytest.mark.parametrize("name", NAMES)
def test_the_class_of_the_largest_score_is_predicted_and_unknown_classes_come_last(name, known):
    predictor = fit(name, *drawn(60, 0, known))
    predicted, scores = ask(name, predictor, drawn(200, 1, range(CLASSES))[0])
    assert scores.shape == (200, CLASSES)
    assert scores.dtype.kind == "f"
    assert np.array_equal(scores.argmax(axis=1), predicted)
    unknown = sorted(set(range(CLASSES)) - set(known))
    if name != "guess":
        assert np.isneginf(scores[:, unknown]).all()
        assert np.isfinite(scores[:, known]).all()


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_an_image_do_not_depend_on_the_others_and_no_images_have_none(name):
    predictor = fit(name, *drawn(60, 0, range(CLASSES)))
    new = drawn(20, 1, range(CLASSES))[0]
    _, scores = ask(name, predictor, new)
    if name != "guess":  # which draws anew each time it is asked
        np.testing.assert_allclose(ask(name, predictor, new[7:9])[1], scores[7:9], rtol=1e-5, atol=1e-8)
    if not isinstance(REGISTRY.classifier(name), MapClassifier):
        assert predictor.scores(new[:0]).shape == (0, CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_right_classes_are_among_the_first_more_often_than_at_the_top(name):
    predictor = fit(name, *drawn(90, 0, range(CLASSES)))
    new, labels = drawn(300, 1, range(CLASSES))
    predicted, scores = ask(name, predictor, new)
    ranks = (-scores).argsort(axis=1, kind="stable").argsort(axis=1)[np.arange(300), labels]
    hits = [(ranks < k).mean() for k in (1, 2, 3, CLASSES)]
    assert hits[0] == (predicted == labels).mean()
    assert hits == sorted(hits)
    assert hits[-1] == 1
    if name == "guess":
        np.testing.assert_allclose(hits[:3], [1 / 6, 2 / 6, 3 / 6], atol=0.1)
    elif not name.startswith(("knn", "pyramid-match")):
        assert hits[2] > hits[0] + 0.05


def test_nearest_neighbours_count_the_votes():
    x, labels = drawn(60, 0, range(CLASSES))
    new = drawn(30, 1, range(CLASSES))[0]
    scaler = StandardScaler().fit(x)
    distances = ((scaler.transform(new)[:, None] - scaler.transform(x)) ** 2).sum(axis=2)
    nearest = labels[distances.argsort(axis=1)[:, :5]]
    votes = np.stack([np.bincount(row, minlength=CLASSES) for row in nearest])
    scores = NearestNeighbours(k=5).fit(x, labels, np.zeros(60, bool), CLASSES, 0).scores(new)
    np.testing.assert_allclose(scores * 5, votes, atol=1e-6)


def test_logistic_regression_gives_log_odds():
    """Of two classes in one dimension: the difference of their scores is log p / (1 - p), which is linear."""
    x = np.linspace(-2, 2, 40, dtype=np.float32)[:, None]
    labels = (x[:, 0] + 0.5 * np.sin(9 * x[:, 0]) > 0).astype(np.int64)
    predictor = Logistic(strength=0.1).fit(x, labels, np.zeros(40, bool), 2, 0)
    scores = predictor.scores(x)
    odds = scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(odds, np.polyval(np.polyfit(x[:, 0], odds, 1), x[:, 0]), atol=1e-6)
    probability = 1 / (1 + np.exp(-odds))
    # At the optimum the residuals sum to nothing: the bias is free.
    assert (probability - labels).sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_votes_of_one_against_one_are_those_of_its_machines(classes):
    x, labels = drawn(80, 0, range(classes))
    new = drawn(200, 1, range(classes))[0]
    reference = SVC(kernel="linear", C=2.0, tol=TOLERANCE, decision_function_shape="ovo").fit(x, labels)
    margins = reference.decision_function(new).reshape(len(new), -1)
    votes, pairs = np.zeros((len(new), classes)), [(a, b) for a in range(classes) for b in range(a + 1, classes)]
    for (first, second), margin in zip(pairs, margins.T, strict=True):
        won = margin > 0 if classes > 2 else margin < 0  # scikit-learn turns the sign where there are two
        votes[won, first] += 1
        votes[~won, second] += 1
    machine = train(x @ x.T, labels, classes, C=2.0, multiclass="ovo")
    scores = machine.compute_scores(new @ x.T)
    predicted = machine.predict(new @ x.T)
    assert np.array_equal(votes.argmax(axis=1), predicted)
    for row in range(len(new)):
        others = [label for label in range(classes) if label != predicted[row]]
        for a in others:
            assert scores[row, predicted[row]] > scores[row, a]
            for b in others:
                assert not votes[row, a] > votes[row, b] or scores[row, a] > scores[row, b]


def test_a_tie_of_votes_goes_to_the_first_class_whatever_the_margins():
    """Three classes around a point, each of which beats another: libsvm says the first, margins another."""
    x, labels = drawn(60, 0, range(3))
    machine = train(x @ x.T, labels, 3, C=2.0, multiclass="ovo")
    new = np.random.default_rng(5).standard_normal((4000, 8)).astype(np.float32)
    gram = new @ x.T
    margins = machine.compute_margins(gram.astype(float))
    sums = np.stack([margins[:, 0] + margins[:, 1], margins[:, 2] - margins[:, 0], -margins[:, 1] - margins[:, 2]], 1)
    votes = np.stack([margins[:, 0] > 0, margins[:, 2] > 0, margins[:, 1] <= 0], 1).astype(int)
    votes += np.stack([margins[:, 1] > 0, margins[:, 0] <= 0, margins[:, 2] <= 0], 1)
    by_margin = (votes + sums / (3 * (np.abs(sums) + 1))).argmax(axis=1)
    predicted = machine.predict(gram)
    assert (by_margin != predicted).any(), "no tie was found"
    assert np.array_equal(machine.compute_scores(gram).argmax(axis=1), predicted)


def test_the_guess_is_what_it_was_and_ranks_the_others_at_random():
    predictor = REGISTRY.classifier("guess").fit(np.zeros((3, 1)), np.zeros(3, int), np.zeros(3, bool), CLASSES, 7)
    assert np.array_equal(predictor.predict(np.zeros((50, 1))), np.random.default_rng(7).integers(CLASSES, size=50))
    scores = predictor.scores(np.zeros((5000, 1)))
    second = np.argsort(-scores, axis=1)[:, 1]
    assert np.bincount(second, minlength=CLASSES).min() > 700  # of 833
