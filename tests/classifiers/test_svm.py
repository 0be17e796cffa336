"""Linear and Gaussian support vector machines, against scikit-learn and a general solver."""

import pickle
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.classification import kernel_machine, row_space
from featbench.classifiers import svm
from featbench.classifiers.svm import GaussianSVM, LinearSVM
from featbench.errors import FeatureError, LearningError, UsageError
from featbench.registry import Registry

NARROW, WIDE = (120, 10), (60, 300)
MACHINES = [
    LinearSVM(),
    LinearSVM(loss="hinge"),
    LinearSVM(standardise=False),
    GaussianSVM(),
    GaussianSVM(multiclass="ovr"),
]


def toy(n=120, features=10, classes=4, spread=1.5, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.standard_normal((classes, features))
    scales = 10.0 ** generator.uniform(-0.5, 0.5, features)
    x = scales * (centres[labels] + spread * generator.standard_normal((n, features))) + 3
    return x.astype(dtype), labels.astype(np.int64)


def fit(machine, x, labels, classes=4):
    return machine.fit(x, labels, np.arange(len(x)) % 5 == 0, classes, seed=0)


def standardised(x, like):
    """Zero mean and unit variance over `like`, divided by the root of the number of features."""
    x, like = x.astype(np.float64), like.astype(np.float64)
    return (x - like.mean(axis=0)) / like.std(axis=0) / np.sqrt(x.shape[1])


def of_unit_norm(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def squared_hinge_optimum(z, y, c):
    """Least ½‖w‖² + C Σ max(0, 1 - y(w·z + b))², by a solver for anything smooth, in the space that the rows span."""
    basis = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[2].T
    rows = np.hstack([z @ basis, np.ones((len(z), 1))])

    def objective(v):
        loss = np.maximum(0, 1 - y * (rows @ v))
        gradient = -2 * c * rows.T @ (y * loss)
        gradient[:-1] += v[:-1]
        return v[:-1] @ v[:-1] / 2 + c * (loss**2).sum(), gradient

    options = {"maxiter": 5000, "maxfun": 10000, "gtol": 1e-9, "ftol": 1e-15}
    found = minimize(objective, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options=options)
    return found.fun, basis @ found.x[:-1], found.x[-1]


@pytest.fixture(params=["kernel values", "columns"])
def either_way(request, monkeypatch):
    """Solve narrow problems on kernel values, as few images are, or on columns, as many are."""
    monkeypatch.setattr(svm, "MANY", 10_000 if request.param == "kernel values" else 0)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("shape", [NARROW, WIDE])
@pytest.mark.parametrize("c", [0.3, 30.0])
@pytest.mark.parametrize("standardise", [True, False])
def test_squared_hinge_is_that_of_a_general_solver(shape, c, standardise):
    x, labels = toy(*shape)
    x, new = of_unit_norm(x), of_unit_norm(toy(400, shape[1])[0])
    machine = fit(LinearSVM(C=c, standardise=standardise), x, labels)
    z, z_new = (standardised(a, x) if standardise else a.astype(np.float64) for a in (x, new))
    optima = [squared_hinge_optimum(z, np.where(labels == k, 1.0, -1.0), c) for k in range(4)]
    assert machine.report["converged"]
    assert machine.report["objective"] == pytest.approx(sum(value for value, _, _ in optima), rel=1e-3)
    decisions = np.stack([z_new @ weight + bias for _, weight, bias in optima], axis=1)
    predicted = machine.predict(new)
    assert predicted.dtype == np.int64
    assert (predicted == decisions.argmax(axis=1)).mean() > 0.98


@pytest.mark.parametrize("shape", [NARROW, WIDE])
@pytest.mark.parametrize("standardise", [True, False])
def test_hinge_is_that_of_scikit_learn(shape, standardise):
    x, labels = toy(*shape)
    x, new = of_unit_norm(x), of_unit_norm(toy(400, shape[1])[0])
    machine = fit(LinearSVM(C=5.0, loss="hinge", standardise=standardise), x, labels)
    z, z_new = (standardised(a, x) if standardise else a.astype(np.float64) for a in (x, new))
    reference = OneVsRestClassifier(SVC(kernel="linear", C=5.0, tol=1e-6)).fit(z, labels)
    objective = 0.0
    for k, one in enumerate(reference.estimators_):
        margins = np.where(labels == k, 1, -1) * one.decision_function(z)
        objective += (one.coef_**2).sum() / 2 + 5.0 * np.maximum(0, 1 - margins).sum()
    assert machine.report["objective"] == pytest.approx(objective, rel=1e-3)
    assert (machine.predict(new) == reference.predict(z_new)).mean() > 0.98


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_kernel_values_and_columns_lead_to_one_solution(loss):
    x, labels = toy(spread=3)
    padded = np.hstack([x, np.full((len(x), 200), 7.3, dtype=x.dtype)])
    narrow, wide = fit(LinearSVM(C=3.0, loss=loss), x, labels), fit(LinearSVM(C=3.0, loss=loss), padded, labels)
    assert wide.report["objective"] == pytest.approx(narrow.report["objective"], rel=1e-4)
    np.testing.assert_allclose(wide.weight[:10], narrow.weight, atol=1e-3 * np.abs(narrow.weight).max())
    np.testing.assert_allclose(wide.bias, narrow.bias, atol=1e-3)
    assert np.array_equal(wide.predict(padded + np.eye(1, 210, 150, dtype=x.dtype)), wide.predict(padded))
    assert not wide.weight[10:].any()


def test_raw_features_are_taken_as_they_are():
    x, labels = toy(*WIDE)
    machine = fit(LinearSVM(C=0.02, loss="hinge", standardise=False), x, labels)
    assert np.array_equal(machine.standardiser.scale, np.ones(300))
    # Twice the features are a quarter of the C; a shift is the bias's.
    changed = fit(LinearSVM(C=0.005, loss="hinge", standardise=False), 2 * x + 5, labels)
    assert machine.report["objective"] == pytest.approx(4 * changed.report["objective"], rel=1e-3)
    assert np.array_equal(changed.predict(2 * x + 5), machine.predict(x))


def test_scale_and_offset_of_features_play_no_part_once_standardised():
    x, labels = toy(spread=3, dtype=np.float64)
    scale, offset = np.linspace(0.1, 10, 10), np.linspace(-50, 50, 10)
    for kind in (LinearSVM(), LinearSVM(loss="hinge"), GaussianSVM()):
        plain, changed = fit(kind, x, labels), fit(kind, scale * x + offset, labels)
        assert plain.report["objective"] == pytest.approx(changed.report["objective"], rel=1e-5)
        assert np.array_equal(plain.predict(x), changed.predict(scale * x + offset))


@pytest.mark.parametrize("shape", [NARROW, WIDE])
@pytest.mark.parametrize("multiclass", ["ovo", "ovr"])
def test_gaussian_machine_is_scikit_learns_with_its_own_scale(shape, multiclass):
    x, labels = toy(*shape)
    new = toy(3000, shape[1])[0]
    machine = SVC(C=10.0, gamma="scale", tol=1e-6)
    reference = make_pipeline(StandardScaler(), machine if multiclass == "ovo" else OneVsRestClassifier(machine))
    reference.fit(x.astype(np.float64), labels)
    predictor = fit(GaussianSVM(multiclass=multiclass), x, labels)
    assert (predictor.predict(new) == reference.predict(new.astype(np.float64))).mean() > 0.995
    assert predictor.report["gamma"] == 1
    assert predictor.report["converged"]


def test_width_and_cost_of_the_gaussian_are_used():
    x, labels = toy()
    new = toy(1000)[0]
    reference = SVC(C=2.0, gamma=0.3).fit(standardised(x, x), labels)
    predictor = fit(GaussianSVM(C=2.0, gamma=0.3), x, labels)
    assert (predictor.predict(new) == reference.predict(standardised(new, x))).mean() > 0.995
    assert predictor.report["support_vectors"] == len(reference.support_)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_blocks_play_no_part(machine, monkeypatch):
    x, labels = toy(*WIDE)
    whole = fit(machine, x, labels)
    monkeypatch.setattr(row_space, "COLUMNS", 33)
    monkeypatch.setattr(svm, "_ROWS", 7)
    blocks = fit(machine, x, labels)
    assert blocks.report["objective"] == pytest.approx(whole.report["objective"], rel=1e-6)
    assert np.array_equal(blocks.predict(x), whole.predict(x))
    assert np.array_equal(np.concatenate([blocks.predict(row[None]) for row in x]), whole.predict(x))
    assert blocks.predict(x[:0]).shape == (0,)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("shape", [NARROW, WIDE])
def test_half_precision_is_read_as_it_is(machine, shape):
    x, labels = toy(*shape, dtype=np.float16)
    half, double = fit(machine, x, labels), fit(machine, x.astype(np.float64), labels)
    assert half.report == double.report
    assert np.array_equal(half.predict(x), double.predict(x))


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_fitting_twice_and_pickling_give_the_same_and_inputs_are_left_alone(machine):
    x, labels = toy(spread=3)
    copies = x.copy(), labels.copy()
    first, second = fit(machine, x, labels), machine.fit(x, labels, np.zeros(len(x), dtype=bool), 4, seed=5)
    assert first.report == second.report
    assert np.array_equal(first.predict(x), second.predict(x))
    assert np.array_equal(pickle.loads(pickle.dumps(first)).predict(x), first.predict(x))
    assert np.array_equal(x, copies[0])
    assert np.array_equal(labels, copies[1])


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("shape", [NARROW, WIDE])
@pytest.mark.parametrize("absent", [(1,), (0, 3)])
def test_absent_classes_are_never_predicted(machine, shape, absent):
    x, labels = toy(*shape, spread=0.7)
    kept = ~np.isin(labels, absent)
    predictor = fit(machine, x[kept], labels[kept], classes=6)
    assert set(predictor.predict(x)) == {0, 1, 2, 3} - set(absent)
    assert (predictor.predict(x) == labels)[kept].mean() > 0.9


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_constant_features_carry_no_weight(machine):
    x, labels = toy()
    constant = np.tile(np.array([0.0, 1000.1], dtype=np.float32), (len(x), 1))
    plain, padded = fit(machine, x, labels), fit(machine, np.hstack([x, constant]), labels)
    assert padded.report["objective"] == pytest.approx(plain.report["objective"], rel=1e-6)
    assert np.array_equal(padded.predict(np.hstack([x, constant + 77])), plain.predict(x))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_features_that_tell_nothing_leave_a_guess(machine):
    labels = np.arange(40) % 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = fit(machine, np.full((40, 3), 7.0, dtype=np.float32), labels)
    assert set(predictor.predict(np.zeros((5, 3), dtype=np.float32))) <= {0, 1, 2, 3}
    assert np.isfinite(predictor.report["objective"])


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_one_class_is_refused(machine):
    x, labels = toy()
    with pytest.raises(LearningError, match=r"needs two classes, and all 120 training images are of class 2"):
        fit(machine, x, np.full_like(labels, 2))


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_the_first_image_whose_features_are_not_finite_is_named(machine, bad):
    x, labels = toy()
    predictor = fit(machine, x, labels)
    x[[30, 17], 4] = bad
    with pytest.raises(FeatureError, match="feature 4 of row 17 is"):
        fit(machine, x, labels)
    with pytest.raises(FeatureError, match="feature 4 of row 7 is"):
        predictor.predict(x[10:])


@pytest.mark.parametrize("machine", [LinearSVM(loss="hinge"), GaussianSVM()], ids=str)
def test_kernel_values_that_do_not_fit_are_refused_before_they_are_made(machine, monkeypatch):
    monkeypatch.setattr(kernel_machine, "available_memory", lambda device: 10**9)
    features = np.broadcast_to(np.float32(0), (60_000, 1))
    with pytest.raises(UsageError, match=r"60000 training images take 28\.8 GB.*1\.0 GB are available: train on fewer"):
        fit(machine, features, np.arange(60_000) % 10, 10)


def test_many_images_with_fewer_columns_need_no_kernel_values(monkeypatch):
    monkeypatch.setattr(svm, "MANY", 119)
    monkeypatch.setattr(kernel_machine, "available_memory", lambda device: 0)
    assert fit(LinearSVM(), *toy()).report["converged"]
    for few_or_wide in (toy(n=119), toy(120, 121)):
        with pytest.raises(UsageError, match="train on fewer images"):
            fit(LinearSVM(), *few_or_wide)


@pytest.mark.parametrize("module", [svm, kernel_machine])
def test_a_solver_that_stopped_early_is_reported_without_a_warning(module, monkeypatch):
    monkeypatch.setattr(svm, "MANY", 0)
    x, labels = toy(*(NARROW if module is svm else WIDE), spread=3)
    assert fit(LinearSVM(), x, labels).report["converged"] is True
    monkeypatch.setattr(module, "ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(LinearSVM(), x, labels).report["converged"] is False


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("linear-svm(C=0)", "C must be finite and greater than 0, not 0"),
        ("linear-svm(loss=log)", "loss must be one of squared_hinge, hinge, not 'log'"),
        ("rbf-svm(C=-1)", "C must be finite"),
        ("rbf-svm(gamma=0)", "gamma must be finite and greater than 0, not 0"),
        ("rbf-svm(multiclass=all)", "multiclass must be one of ovr, ovo, not 'all'"),
    ],
)
def test_wrong_parameters_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        Registry().classifier(name)


def test_they_are_registered():
    registry = Registry()
    assert registry.classifier("linear-svm") == LinearSVM()
    assert registry.classifier("rbf-svm(C=3,multiclass=ovr)") == GaussianSVM(C=3, multiclass="ovr")
