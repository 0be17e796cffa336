"""Support vector machines on a Gram matrix, against scikit-learn on the features, and against closed forms."""

import pickle
import warnings

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from featbench.classification import kernel_machine
from featbench.classification.kernel_machine import train
from featbench.errors import FeatureError, LearningError, UsageError


def toy(n=160, features=8, classes=4, spread=1.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.standard_normal((classes, features))
    return centres[labels] + spread * generator.standard_normal((n, features)), labels.astype(np.int64)


def kernel(kind, a, b, gamma=0.1):
    if kind == "linear":
        return a @ b.T
    return np.exp(-gamma * ((a[:, None] - b[None]) ** 2).sum(axis=2))


def pair():
    """Two images at -1 and 1, of one class each."""
    x = np.array([[-1.0], [1.0]])
    return x @ x.T, np.array([0, 1])


@pytest.mark.parametrize("kind", ["linear", "rbf"])
@pytest.mark.parametrize("c", [0.1, 10.0])
def test_one_vs_rest_is_that_of_scikit_learn_on_the_features(kind, c):
    x, labels = toy(spread=1.5)
    new = toy(n=400, spread=1.5, seed=0)[0]
    reference = OneVsRestClassifier(SVC(kernel=kind, C=c, gamma=0.1, tol=1e-6)).fit(x, labels)
    machine = train(kernel(kind, x, x), labels, 4, C=c)
    np.testing.assert_allclose(
        machine.compute_decisions(kernel(kind, new, x)), reference.decision_function(new), atol=2e-3 * max(c, 1)
    )
    predicted = machine.predict(kernel(kind, new, x))
    assert predicted.dtype == np.int64
    assert (predicted == reference.predict(new)).mean() > 0.99


@pytest.mark.parametrize("kind", ["linear", "rbf"])
@pytest.mark.parametrize("classes", [2, 4])
def test_one_vs_one_is_that_of_scikit_learn_on_the_features(kind, classes):
    x, labels = toy(classes=classes, spread=1.5)
    new = toy(n=400, classes=classes, spread=1.5)[0]
    reference = SVC(kernel=kind, C=2.0, gamma=0.1, tol=kernel_machine.TOLERANCE).fit(x, labels)
    machine = train(kernel(kind, x, x), labels, classes, C=2.0, multiclass="ovo")
    assert np.array_equal(machine.predict(kernel(kind, new, x)), reference.predict(new))
    assert machine.report["support_vectors"] == len(reference.support_)
    assert machine.report["multiclass"] == "ovo"


def test_two_images_have_the_solution_in_closed_form():
    gram, labels = pair()
    machine = train(gram, labels, 2, C=10.0)
    # w = 1 separates with margin 1: α = ½ each, and Σα - ½‖w‖² = ½ for each of the two machines.
    np.testing.assert_allclose(machine.coefficients, [[0.5, -0.5], [-0.5, 0.5]], atol=1e-4)
    np.testing.assert_allclose(machine.intercepts, 0, atol=1e-4)
    assert machine.report["objective"] == pytest.approx(1.0, abs=1e-4)
    assert machine.report["support_vectors"] == 2
    one = train(gram, labels, 2, C=10.0, multiclass="ovo")
    assert one.report["objective"] == pytest.approx(0.5, abs=1e-4)


def test_a_small_cost_bounds_the_coefficients():
    gram, labels = pair()
    machine = train(gram, labels, 2, C=0.1)
    np.testing.assert_allclose(np.abs(machine.coefficients), 0.1)
    assert machine.report["objective"] == pytest.approx(2 * (0.2 - (0.1 * 2) ** 2 / 2))


@pytest.mark.parametrize("multiclass", ["ovr", "ovo"])
def test_objective_is_that_of_a_general_solver(multiclass):
    x, labels = toy(n=24, features=3, classes=3, spread=1.5)
    gram = kernel("rbf", x, x, 0.3)
    report = train(gram, labels, 3, C=1.5, multiclass=multiclass).report
    problems = (
        [(np.arange(24), labels == k) for k in range(3)]
        if multiclass == "ovr"
        else [(np.flatnonzero((labels == a) | (labels == b)), None) for a, b in ((0, 1), (0, 2), (1, 2))]
    )
    total = 0.0
    for rows, positive in problems:
        y = np.where(labels[rows] == labels[rows][0] if positive is None else positive, 1.0, -1.0)
        q = y[:, None] * gram[np.ix_(rows, rows)] * y
        found = minimize(
            lambda a, q=q: (a @ q @ a / 2 - a.sum(), q @ a - 1),
            np.zeros(len(y)),
            jac=True,
            method="SLSQP",
            bounds=[(0, 1.5)] * len(y),
            constraints=LinearConstraint(y[None], 0, 0),
            options={"ftol": 1e-12, "maxiter": 500},
        )
        total -= found.fun
    assert report["objective"] == pytest.approx(total, rel=1e-5)


def test_solution_fulfils_the_optimality_conditions():
    x, labels = toy(spread=1.5)
    gram = kernel("rbf", x, x)
    machine = train(gram, labels, 4, C=2.0)
    decisions = machine.compute_decisions(gram)
    for k in range(4):
        y = np.where(labels == k, 1, -1)
        alpha, margin = y * machine.coefficients[:, k], y * decisions[:, k]
        assert alpha.min() >= 0
        assert alpha.max() <= 2
        assert machine.coefficients[:, k].sum() == pytest.approx(0, abs=1e-9)
        assert margin[alpha == 0].min() >= 1 - 1e-3
        assert margin[alpha == 2].max() <= 1 + 1e-3
        np.testing.assert_allclose(margin[(alpha > 0) & (alpha < 2)], 1, atol=1e-3)
    assert machine.report["support_vectors"] == (machine.coefficients != 0).any(axis=1).sum()


@pytest.mark.parametrize("multiclass", ["ovr", "ovo"])
def test_absent_classes_are_never_predicted(multiclass):
    x, labels = toy()
    kept = labels != 1
    gram = kernel("linear", x[kept], x[kept])
    machine = train(gram, labels[kept], 6, C=1.0, multiclass=multiclass)
    predicted = machine.predict(kernel("linear", x, x[kept]))
    assert set(predicted) == {0, 2, 3}
    renamed = train(gram, np.searchsorted([0, 2, 3], labels[kept]), 3, C=1.0, multiclass=multiclass)
    assert np.array_equal(predicted, np.array([0, 2, 3])[renamed.predict(kernel("linear", x, x[kept]))])
    assert machine.report == pytest.approx(renamed.report)


@pytest.mark.parametrize("multiclass", ["ovr", "ovo"])
def test_training_twice_and_pickling_give_the_same_and_inputs_are_left_alone(multiclass):
    x, labels = toy(spread=2)
    gram = kernel("rbf", x, x)
    copies = gram.copy(), labels.copy()
    first, second = (train(gram, labels, 4, C=1.0, multiclass=multiclass) for _ in range(2))
    assert first.report == second.report
    assert np.array_equal(first.predict(gram), second.predict(gram))
    assert np.array_equal(pickle.loads(pickle.dumps(first)).predict(gram), first.predict(gram))
    assert np.array_equal(gram, copies[0])
    assert np.array_equal(labels, copies[1])


@pytest.mark.parametrize("layout", [np.asfortranarray, np.float32, lambda gram: np.repeat(gram, 2, axis=0)[::2]])
def test_layout_and_precision_of_the_matrix_play_no_part(layout):
    x, labels = toy()
    gram = kernel("rbf", x, x)
    plain, changed = train(gram, labels, 4, C=1.0), train(layout(gram), labels, 4, C=1.0)
    assert changed.report["objective"] == pytest.approx(plain.report["objective"], rel=1e-5)
    assert np.array_equal(plain.predict(gram), changed.predict(layout(gram)))


def test_rows_are_predicted_one_by_one_as_together():
    x, labels = toy(spread=2)
    gram = kernel("rbf", x, x)
    for multiclass in ("ovr", "ovo"):
        machine = train(gram, labels, 4, C=1.0, multiclass=multiclass)
        together = machine.predict(gram)
        assert np.array_equal(np.concatenate([machine.predict(row[None]) for row in gram]), together)
        assert machine.predict(np.empty((0, len(x)))).shape == (0,)


@pytest.mark.parametrize("multiclass", ["ovr", "ovo"])
def test_a_solver_that_stopped_early_is_reported_without_a_warning(multiclass, monkeypatch):
    x, labels = toy(spread=3)
    gram = kernel("linear", x, x)
    assert train(gram, labels, 4, C=1.0, multiclass=multiclass).report["converged"] is True
    monkeypatch.setattr(kernel_machine, "ITERATIONS", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = train(gram, labels, 4, C=1.0, multiclass=multiclass).report
    assert report["converged"] is False
    assert report["iterations"] <= 3 * 6


@pytest.mark.parametrize("c", [0.0, -1.0, np.inf, np.nan])
def test_a_wrong_cost_is_refused(c):
    with pytest.raises(UsageError, match="C must be finite and greater than 0"):
        train(*pair(), 2, C=c)


def test_an_unknown_way_to_many_classes_is_refused():
    with pytest.raises(UsageError, match="one of ovr, ovo, not 'all'"):
        train(*pair(), 2, C=1.0, multiclass="all")


@pytest.mark.parametrize(
    ("gram", "labels", "message"),
    [
        (np.eye(3)[:2], np.array([0, 1]), r"shape \(2, 3\)"),
        (np.eye(3), np.array([0, 1]), r"labels of shape \(2,\)"),
        (np.zeros(3), np.array([0, 1, 0]), r"shape \(3,\)"),
        (np.zeros((0, 0)), np.zeros(0, dtype=np.int64), "there are none"),
        (np.eye(2), np.array([1, 1]), "needs two classes, and all 2 training images are of class 1"),
        (np.eye(2), np.array([0, 2]), "labels 0 to 2"),
        (np.eye(2), np.array([-1, 0]), "labels -1 to 0"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), np.array([0, 1]), "not symmetric"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(gram, labels, message):
    with pytest.raises(LearningError, match=message):
        train(gram, labels, 2, C=1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_image_whose_values_are_not_finite_is_named(bad):
    x, labels = toy(n=20)
    gram = kernel("linear", x, x)
    gram[7, 12] = gram[12, 7] = bad
    with pytest.raises(FeatureError, match="image 7 are not finite"):
        train(gram, labels, 4, C=1.0)
    machine = train(kernel("linear", x, x), labels, 4, C=1.0)
    with pytest.raises(FeatureError, match="image 0 are not finite"):
        machine.predict(gram[7:])


def test_kernel_values_with_other_images_are_refused():
    machine = train(*pair(), 2, C=1.0)
    for shape in ((4, 3), (2,)):
        with pytest.raises(LearningError, match=r"give \[m, 2\]"):
            machine.predict(np.zeros(shape))
