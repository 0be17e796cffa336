import inspect
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from featbench.classification import row_space, softmax_regression
from featbench.classification.row_space import Standardiser, TrainingRows
from featbench.classification.softmax_regression import SoftmaxRidge
from featbench.classifiers import logistic
from featbench.classifiers.logistic import STRENGTHS, Logistic
from featbench.registry import Registry


def toy(n=240, features=12, classes=4, spread=1.5, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.standard_normal((classes, features))
    scales = 10.0 ** generator.uniform(-2, 2, features)
    x = scales * (centres[labels] + spread * generator.standard_normal((n, features))) + 5 * scales
    return x.astype(dtype), labels.astype(np.int64), np.arange(n) % 5 == generator.integers(0, 5)


def fit(x, labels, validation, classes=4):
    return Logistic().fit(x, labels, validation, classes, seed=0)


def standardised(x, like):
    """Zero mean and unit variance over `like`, divided by the root of the number of features."""
    x, like = x.astype(np.float64), like.astype(np.float64)
    return (x - like.mean(axis=0)) / like.std(axis=0) / np.sqrt(x.shape[1])


def probabilities(weight, bias, x):
    logits = x @ weight.T + bias
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits / logits.sum(axis=1, keepdims=True)


def written_objective(weight, bias, x, labels, strength):
    return -np.log(probabilities(weight, bias, x)[np.arange(len(x)), labels]).mean() + strength / 2 * (weight**2).sum()


def independent_fit(x, labels, strength):
    return LogisticRegression(C=1 / (strength * len(x)), solver="newton-cg", tol=1e-9, max_iter=1000).fit(x, labels)


@pytest.mark.parametrize("seed", [0, 1])
def test_objective_is_that_of_another_solver_at_a_tight_tolerance(seed):
    x, labels, validation = toy(seed=seed)
    report = fit(x, labels, validation).report
    z = standardised(x, x)
    reference = independent_fit(z, labels, report["strength"])
    expected = written_objective(reference.coef_, reference.intercept_, z, labels, report["strength"])
    assert report["objective"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_solution_has_next_to_no_gradient_at_any_strength(strength, monkeypatch):
    monkeypatch.setattr(logistic, "STRENGTHS", (strength,))
    x, labels, validation = toy(spread=3)
    predictor = fit(x, labels, validation)
    z = standardised(x, x)
    weight, bias = predictor.weight.T, predictor.bias
    error = probabilities(weight, bias, z) - np.eye(4)[labels]
    assert np.abs(error.T @ z / len(z) + strength * weight).max() < 1e-5
    assert np.abs(error.mean(axis=0)).max() < 1e-5
    assert predictor.report["objective"] == pytest.approx(written_objective(weight, bias, z, labels, strength))


def choice_by_hand(x, labels, validation):
    """The strength that another solver chooses: by accuracy on validation rows, ties by log-loss."""
    rated = []
    train, held_out = standardised(x[~validation], x), standardised(x[validation], x)
    for strength in STRENGTHS:
        model = independent_fit(train, labels[~validation], strength)
        p = probabilities(model.coef_, model.intercept_, held_out)
        accuracy = (p.argmax(axis=1) == labels[validation]).mean()
        rated.append((accuracy, np.log(p[np.arange(len(p)), labels[validation]]).mean(), strength))
    return max(rated)


@pytest.mark.parametrize(("seed", "spread"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 0.2)])
def test_strength_is_the_best_on_validation_rows(seed, spread):
    x, labels, validation = toy(seed=seed, spread=spread)
    report = fit(x, labels, validation).report
    accuracy, _, strength = choice_by_hand(x, labels, validation)
    assert report["strength"] == strength
    assert report["validation_accuracy"] == pytest.approx(100 * accuracy)


def test_easy_and_hopeless_data_choose_differently():
    easy = fit(*toy(spread=0.2)).report["strength"]
    x, labels, validation = toy(spread=0.2)
    hopeless = fit(x, np.random.default_rng(0).permutation(labels), validation).report["strength"]
    assert hopeless > easy


def test_corrupted_validation_labels_change_the_choice():
    x, labels, validation = toy(spread=0.2)
    corrupted = np.where(validation, (labels + 1) % 4, labels)
    assert fit(x, labels, validation).report["validation_accuracy"] == 100
    assert fit(x, corrupted, validation).report["validation_accuracy"] == 0
    # All strengths are wrong about every row now: the least sure of them has the smallest log-loss.
    assert fit(x, corrupted, validation).report["strength"] == max(STRENGTHS)
    assert fit(x, labels, validation).report["strength"] < max(STRENGTHS)


def test_statistics_are_taken_once_over_all_training_rows(monkeypatch):
    x, labels, validation = toy()
    seen = []
    original = Standardiser.fit.__func__

    def watched(cls, rows, **options):
        seen.append(rows.copy())
        return original(cls, rows, **options)

    monkeypatch.setattr(Standardiser, "fit", classmethod(watched))
    fit(x, labels, validation)
    (rows,) = seen
    assert np.array_equal(rows, x)


def test_labels_of_validation_rows_judge_but_do_not_train_what_they_judge(monkeypatch):
    x, labels, validation = toy()
    chosen = []
    original = SoftmaxRidge.__init__

    def watched(self, rows, variance, labels, chosen_rows, *rest):
        chosen.append(chosen_rows.copy())
        original(self, rows, variance, labels, chosen_rows, *rest)

    monkeypatch.setattr(SoftmaxRidge, "__init__", watched)
    fit(x, labels, validation)
    assert [rows.tolist() for rows in chosen] == [(~validation).tolist(), [True] * len(x)]


def test_final_model_is_trained_on_all_rows():
    x, labels, validation = toy(spread=4)
    predictor = fit(x, labels, validation)
    for rows, close in ((np.ones(len(x), dtype=bool), True), (~validation, False)):
        z = standardised(x[rows], x[rows])
        model = independent_fit(z, labels[rows], predictor.report["strength"])
        assert np.allclose(predictor.weight.T, model.coef_, rtol=1e-2, atol=1e-2) == close


def test_it_is_given_no_test_rows():
    assert list(inspect.signature(Logistic.fit).parameters) == [
        "self",
        "features",
        "labels",
        "validation",
        "classes",
        "seed",
    ]


def test_predictions_are_those_of_the_independent_solver():
    x, labels, validation = toy(spread=2)
    new = toy(spread=2, seed=0, n=2000)[0][240:]
    predictor = fit(x, labels, validation)
    model = independent_fit(standardised(x, x), labels, predictor.report["strength"])
    expected = model.predict(standardised(new, x))
    predicted = predictor.predict(new)
    assert predicted.dtype == np.int64
    assert (predicted == expected).mean() > 0.999


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("values", [(0.0, 1.0), (0.1, 1000.0), (-3.3, 1e-6)])
def test_constant_features_do_no_harm(values, dtype):
    x, labels, validation = toy(dtype=np.float64)
    x = (x / x.std(axis=0)).astype(dtype)
    constant = np.tile(np.array(values, dtype=dtype), (len(x), 1))
    plain, padded = fit(x, labels, validation), fit(np.hstack([x, constant]), labels, validation)
    assert plain.report == pytest.approx(padded.report, rel=1e-9)
    new = np.hstack([x, np.full_like(constant, 77)])
    assert np.array_equal(plain.predict(x), padded.predict(new))


def test_scale_and_offset_of_features_play_no_part():
    x, labels, validation = toy(dtype=np.float64, spread=3)
    scale, offset = np.linspace(0.1, 10, 12), np.linspace(-50, 50, 12)
    plain, changed = fit(x, labels, validation), fit(scale * x + offset, labels, validation)
    assert plain.report["objective"] == pytest.approx(changed.report["objective"], rel=1e-6)
    assert np.array_equal(plain.predict(x), changed.predict(scale * x + offset))


def test_features_that_are_all_constant_leave_a_guess():
    labels = np.arange(40) % 4
    labels[:8] = 2
    predictor = fit(np.full((40, 3), 7.0, dtype=np.float32), labels, np.arange(40) % 4 == np.arange(40) // 4 % 4)
    assert set(predictor.predict(np.zeros((5, 3), dtype=np.float32))) == {2}


def wide(n=60, features=500, seed=0, spread=1.5, **options):
    return toy(n=n, features=features, seed=seed, spread=spread, **options)


@pytest.mark.parametrize("shape", [(60, 500), (240, 12), (60, 59), (40, 41)])
@pytest.mark.parametrize("strength", [1e-2, 1e-4])
def test_objective_and_predictions_are_those_of_a_tightly_converged_solver(shape, strength):
    x, labels, validation = toy(*shape, spread=2)
    predictor = Logistic(strength=strength).fit(x, labels, validation, 4, seed=0)
    z = standardised(x, x)
    # Rotated onto the rows the problem is the same, and small enough to be solved to the last digits.
    rotation = np.linalg.svd(z, full_matrices=False)[2].T
    reference = independent_fit(z @ rotation, labels, strength)
    weight = reference.coef_ @ rotation.T
    expected = written_objective(weight, reference.intercept_, z, labels, strength)
    assert predictor.report["converged"]
    assert predictor.report["objective"] == pytest.approx(expected, rel=1e-6)
    assert written_objective(predictor.weight.T, predictor.bias, z, labels, strength) == pytest.approx(
        expected, rel=1e-6
    )
    new = toy(400, shape[1], spread=2)[0]
    assert (predictor.predict(new) == reference.predict(standardised(new, x) @ rotation)).mean() > 0.99


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("block", [7, 500, 2048])
def test_wide_and_narrow_paths_agree(standardise, block, monkeypatch):
    x, labels, validation = wide(n=120, features=119)
    monkeypatch.setattr(row_space, "COLUMNS", block)
    made = []
    original = TrainingRows.__init__

    def watched(self, features, scale, device):
        original(self, features, scale, device)
        if made:
            self.wide, self.base = True, self._compute_gram()
        made.append(self.wide)

    monkeypatch.setattr(TrainingRows, "__init__", watched)
    narrow, gram = (Logistic(standardise=standardise).fit(x, labels, validation, 4, seed=0) for _ in range(2))
    assert made == [False, True]
    assert gram.report["strength"] == narrow.report["strength"]
    assert gram.report["validation_accuracy"] == narrow.report["validation_accuracy"]
    assert gram.report["objective"] == pytest.approx(narrow.report["objective"], rel=1e-8)
    scale = np.abs(narrow.weight).max()
    np.testing.assert_allclose(gram.weight, narrow.weight, atol=1e-3 * scale)
    assert np.array_equal(gram.predict(x), narrow.predict(x))


def test_columns_are_standardised_some_at_a_time_to_the_same(monkeypatch):
    x, labels, validation = wide()
    whole = fit(x, labels, validation)
    monkeypatch.setattr(row_space, "COLUMNS", 33)
    blocks = fit(x, labels, validation)
    assert blocks.report["strength"] == whole.report["strength"]
    assert blocks.report["objective"] == pytest.approx(whole.report["objective"], rel=1e-9)
    np.testing.assert_allclose(blocks.standardiser.mean, x.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(blocks.weight, whole.weight, atol=1e-4 * np.abs(whole.weight).max())


def test_the_last_fit_starts_from_the_choice(monkeypatch):
    x, labels, validation = toy()
    starts = []
    original = SoftmaxRidge.__init__

    def watched(self, *arguments):
        starts.append(arguments[-1])
        original(self, *arguments)

    monkeypatch.setattr(SoftmaxRidge, "__init__", watched)
    report = fit(x, labels, validation).report
    assert starts[0] is None
    assert starts[1].strength == report["strength"]


def test_a_strength_that_is_given_is_not_chosen():
    x, labels, validation = toy()
    given = Logistic(strength=3e-3).fit(x, labels, validation, 4, seed=0)
    assert given.report["strength"] == 3e-3
    assert "validation_accuracy" not in given.report
    other = Logistic(strength=3e-3).fit(x, labels, ~validation, 4, seed=0)
    assert np.array_equal(given.weight, other.weight)
    assert Logistic(strength=3e-2).fit(x, labels, validation, 4, seed=0).report["objective"] > given.report["objective"]


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match=r"strength must not be negative, not -0\.1"):
        Logistic(strength=-0.1)


@pytest.mark.parametrize("shape", [(240, 12), (60, 500)])
def test_without_standardisation_features_keep_their_own_variances(shape):
    x, labels, validation = toy(*shape)
    predictor = Logistic(strength=1e-3, standardise=False).fit(x, labels, validation, 4, seed=0)
    centred = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    z = centred / np.sqrt((centred**2).sum(axis=1).mean())
    np.testing.assert_allclose(predictor.standardiser.apply(x), z, rtol=1e-9, atol=1e-12)
    rotation = np.linalg.svd(z, full_matrices=False)[2].T
    reference = independent_fit(z @ rotation, labels, 1e-3)
    expected = written_objective(reference.coef_ @ rotation.T, reference.intercept_, z, labels, 1e-3)
    assert predictor.report["objective"] == pytest.approx(expected, rel=1e-6)
    whitened = Logistic(strength=1e-3).fit(x, labels, validation, 4, seed=0)
    assert whitened.report["objective"] != pytest.approx(expected, rel=1e-3)


def test_constant_features_do_no_harm_without_standardisation():
    x, labels, validation = toy()
    constant = np.full((len(x), 2), 1000.1, dtype=np.float32)
    plain = Logistic(standardise=False).fit(x, labels, validation, 4, seed=0)
    padded = Logistic(standardise=False).fit(np.hstack([x, constant]), labels, validation, 4, seed=0)
    assert padded.report == pytest.approx(plain.report, rel=1e-9)
    assert np.array_equal(padded.predict(np.hstack([x, 77 + constant])), plain.predict(x))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_predictions_of_some_rows_are_those_of_all(dtype):
    x, labels, validation = wide(dtype=np.float64)
    x = (x / x.std(axis=0)).astype(dtype)
    predictor = fit(x, labels, validation)
    whole = predictor.predict(x)
    assert np.array_equal(np.concatenate([predictor.predict(rows) for rows in np.array_split(x, 7)]), whole)
    scores = predictor.standardiser.apply(x) @ predictor.weight + predictor.bias
    np.testing.assert_allclose(
        predictor.standardiser.compute_scores(x, predictor.weight, predictor.bias), scores, atol=1e-8
    )


def test_two_classes_have_weights_each():
    x, labels, validation = toy(classes=2, spread=4)
    report = fit(x, labels, validation, classes=2).report
    # Two opposite weights share the penalty of one, so that scikit-learn's single weight bears half of it.
    z = standardised(x, x)
    one = independent_fit(z, labels, report["strength"] / 2)
    weight, bias = np.vstack([-one.coef_, one.coef_]) / 2, np.append(-one.intercept_, one.intercept_) / 2
    expected = written_objective(weight, bias, z, labels, report["strength"])
    assert report["objective"] == pytest.approx(expected, rel=1e-5)


def test_features_that_tell_nothing_leave_a_guess_among_the_classes_there_are():
    labels = 1 + np.arange(40) % 2
    predictor = fit(np.full((40, 3), 7.0, dtype=np.float32), labels, np.arange(40) % 4 < 2)
    assert set(predictor.predict(np.zeros((5, 3), dtype=np.float32))) <= {1, 2}


@pytest.mark.parametrize("absent", [0, 2, 3])
def test_class_without_training_rows_is_never_predicted_and_does_no_harm(absent):
    x, labels, validation = toy(n=400, spread=1)
    train = labels != absent
    predictor = fit(x[train], labels[train], validation[train])
    predicted = predictor.predict(x)
    assert set(predicted) == {0, 1, 2, 3} - {absent}
    assert (predicted == labels)[train].mean() > 0.9
    # Where validation rows alone are of that class, they are counted as wrong.
    mixed = train | validation
    report = fit(x[mixed], labels[mixed], validation[mixed]).report
    assert 50 < report["validation_accuracy"] < 90


def test_solver_that_stopped_early_is_reported_without_a_warning(monkeypatch):
    x, labels, validation = toy()
    report = fit(x, labels, validation).report
    assert report["converged"] is True
    assert 0 < report["iterations"] < softmax_regression.ITERATIONS
    assert report["gap"] <= report["tolerance"] * report["objective"]
    assert report["tolerance"] == softmax_regression.TOLERANCE
    monkeypatch.setattr(softmax_regression, "ITERATIONS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stopped = fit(x, labels, validation).report
    assert stopped["converged"] is False
    assert stopped["iterations"] == 2


def test_fitting_twice_gives_the_same():
    x, labels, validation = toy(spread=4)
    first, second = fit(x, labels, validation), fit(x, labels, validation)
    assert first.report == second.report
    assert np.array_equal(first.weight, second.weight)


def test_inputs_are_left_alone():
    x, labels, validation = toy()
    copies = x.copy(), labels.copy(), validation.copy()
    fit(x, labels, validation).predict(x)
    for given, copy in zip((x, labels, validation), copies, strict=True):
        assert np.array_equal(given, copy)


def test_it_is_registered_as_logistic():
    assert isinstance(Registry().classifier("logistic"), Logistic)
