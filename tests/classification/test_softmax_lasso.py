import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from featbench.classification import row_space, softmax_lasso
from featbench.classification.row_space import Standardiser
from featbench.classification.softmax_lasso import TOLERANCE, SoftmaxLasso


def problem(n=120, d=12, classes=4, spread=2.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = generator.standard_normal((classes, d))[labels] + spread * generator.standard_normal((n, d))
    return x.astype(np.float32), Standardiser.fit(x), labels, np.ones(n, dtype=bool)


def written(weight, bias, x, labels, strength):
    scores = x @ weight + bias
    scores = scores - scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(x)), labels]
    return losses.mean() + strength * np.abs(weight).sum()


def saga(x, labels, strength):
    settings = {"solver": "saga", "tol": 1e-8, "max_iter": 20_000, "l1_ratio": 1.0}
    model = LogisticRegression(C=1 / (strength * len(x)), random_state=0, **settings).fit(x, labels)
    return written(model.coef_.T, model.intercept_, x, labels, strength)


@pytest.mark.parametrize(("shape", "fraction"), [((120, 12), f) for f in (0.5, 0.1, 0.01)] + [((40, 100), 0.2)])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.filterwarnings("ignore")
def test_objectives_are_sagas_at_a_tight_tolerance(shape, fraction, seed):
    x, standardiser, labels, chosen = problem(*shape, seed=seed)
    solver = SoftmaxLasso(x, standardiser, labels, chosen, 4)
    strength = fraction * solver.find_largest_strength()
    found = solver.solve(strength)
    z = standardiser.apply(x)
    assert found.converged
    assert found.objective == pytest.approx(saga(z, labels, strength), rel=1e-6)
    assert found.objective == pytest.approx(written(found.weight, found.bias, z, labels, strength), rel=1e-9)
    np.testing.assert_allclose(found.scores, z @ found.weight + found.bias, atol=1e-9)


@pytest.mark.parametrize("fraction", [0.3, 0.03, 0.001])
@pytest.mark.parametrize("shape", [(120, 12), (60, 300)])
def test_no_gradient_exceeds_the_penalty_and_weights_resist_it(shape, fraction):
    x, standardiser, labels, chosen = problem(*shape)
    solver = SoftmaxLasso(x, standardiser, labels, chosen, 4)
    strength = fraction * solver.find_largest_strength()
    found, z = solver.solve(strength), standardiser.apply(x)
    p = np.exp(found.scores - found.scores.max(axis=1, keepdims=True))
    gradient = z.T @ (p / p.sum(axis=1, keepdims=True) - np.eye(4)[labels]) / len(z)
    used = found.weight != 0
    assert 0 < used.sum() < used.size
    assert np.abs(gradient).max() <= strength * (1 + 1e-3)
    np.testing.assert_allclose(gradient[used], -strength * np.sign(found.weight[used]), atol=3e-3 * strength)


def test_from_the_strongest_penalty_on_all_weights_are_zero():
    x, standardiser, labels, chosen = problem()
    solver = SoftmaxLasso(x, standardiser, labels, chosen, 4)
    largest = solver.find_largest_strength()
    for factor, some in ((1.001, False), (0.99, True)):
        assert SoftmaxLasso(x, standardiser, labels, chosen, 4).solve(factor * largest).weight.any() == some


def test_a_path_gives_what_fresh_solvers_give():
    x, standardiser, labels, chosen = problem(60, 300)
    path = SoftmaxLasso(x, standardiser, labels, chosen, 4)
    for strength in path.find_largest_strength() * np.array([0.5, 0.1, 0.02]):
        fresh = SoftmaxLasso(x, standardiser, labels, chosen, 4).solve(strength)
        found = path.solve(strength)
        assert found.objective == pytest.approx(fresh.objective, rel=2 * TOLERANCE)
        warm = SoftmaxLasso(x, standardiser, labels, chosen, 4, fresh).solve(strength)
        assert warm.iterations <= 1


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_a_weak_penalty_on_many_rows_converges_too(classes):
    # Where all weights of a feature differ from zero, moving them together moves the penalty alone.
    x, standardiser, labels, chosen = problem(120, 12, classes)
    path = SoftmaxLasso(x, standardiser, labels, chosen, classes)
    for strength in path.find_largest_strength() * np.array([1e-2, 1e-3, 1e-4]):
        found = path.solve(strength)
        assert found.converged
        assert found.iterations < 100
        assert (found.weight == 0).any(axis=1).all()


def test_small_working_sets_and_blocks_lead_to_the_same(monkeypatch):
    x, standardiser, labels, chosen = problem(60, 300)
    strength = 0.1 * SoftmaxLasso(x, standardiser, labels, chosen, 4).find_largest_strength()
    whole = SoftmaxLasso(x, standardiser, labels, chosen, 4).solve(strength)
    monkeypatch.setattr(softmax_lasso, "WORKING_SET_GROWTH", 5)
    monkeypatch.setattr(row_space, "COLUMNS", 7)
    blocks = SoftmaxLasso(x, standardiser, labels, chosen, 4).solve(strength)
    assert blocks.converged
    assert blocks.objective == pytest.approx(whole.objective, rel=2 * TOLERANCE)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_gap_bounds_the_error_of_an_unfinished_search(steps, monkeypatch):
    x, standardiser, labels, chosen = problem()
    strength = 0.05 * SoftmaxLasso(x, standardiser, labels, chosen, 4).find_largest_strength()
    best = SoftmaxLasso(x, standardiser, labels, chosen, 4).solve(strength)
    monkeypatch.setattr(softmax_lasso, "ITERATIONS", steps)
    stopped = SoftmaxLasso(x, standardiser, labels, chosen, 4).solve(strength)
    assert not stopped.converged
    assert 0 < stopped.objective - best.objective <= stopped.gap


def test_rows_that_are_not_chosen_play_no_part_and_are_scored():
    x, standardiser, labels, chosen = problem()
    chosen[80:] = False
    found = SoftmaxLasso(x, standardiser, labels, chosen, 4).solve(1e-3)
    changed = np.where(chosen, labels, 0)
    assert np.array_equal(found.weight, SoftmaxLasso(x, standardiser, changed, chosen, 4).solve(1e-3).weight)
    assert found.scores.shape == (120, 4)


def test_one_class_is_certain_and_constant_features_have_no_weight():
    x, standardiser, labels, chosen = problem()
    one = SoftmaxLasso(x, standardiser, labels * 0 + 2, chosen, 4).solve(1e-3)
    assert (one.objective, one.converged, set(one.scores.argmax(axis=1))) == (0, True, {2})
    same = np.full_like(x, 7)
    flat = SoftmaxLasso(same, Standardiser.fit(same), labels, chosen, 4)
    assert flat.find_largest_strength() == 0
    found = flat.solve(0.0)
    assert not found.weight.any()
    assert found.objective == pytest.approx(np.log(4))
    assert found.converged
