import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from featbench.classification import softmax_regression
from featbench.classification.softmax_regression import TOLERANCE, SoftmaxRidge, conjugate_gradients


def problem(n=120, r=8, classes=4, spread=1.5, seed=0):
    """Rows on their principal axes, of mean squared norm 1, with the variance along each, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = generator.standard_normal((classes, r))[labels] + spread * generator.standard_normal((n, r))
    x = (x - x.mean(axis=0)) @ np.diag(10.0 ** -np.linspace(0, 1.5, r))
    x /= np.sqrt((x**2).sum(axis=1).mean())
    axes = np.linalg.svd(x, full_matrices=False)[2].T
    rows = torch.from_numpy(x @ axes)
    return rows, rows.square().mean(dim=0), labels


def everyone(labels):
    return np.ones(len(labels), dtype=bool)


def written(weight, bias, x, labels, strength):
    scores = x @ weight + bias
    scores = scores - scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(x)), labels]
    return losses.mean() + strength / 2 * (weight**2).sum()


def scikit_learn(x, labels, strength):
    model = LogisticRegression(C=1 / (strength * len(x)), solver="lbfgs", tol=1e-8, max_iter=20_000).fit(x, labels)
    return written(model.coef_.T, model.intercept_, x, labels, strength)


@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("shape", [(120, 8), (60, 59), (40, 200)])
@pytest.mark.parametrize("seed", [0, 1])
def test_objectives_are_scikit_learns_at_a_tight_tolerance(shape, strength, seed):
    rows, variance, labels = problem(*shape, seed=seed)
    found = SoftmaxRidge(rows, variance, labels, everyone(labels), 4).solve(strength)
    expected = scikit_learn(rows.numpy(), labels, strength)
    assert found.converged
    assert found.objective == pytest.approx(expected, rel=1e-6)
    assert found.objective == pytest.approx(written(found.weight, found.bias, rows.numpy(), labels, strength), rel=1e-9)
    np.testing.assert_allclose(found.scores, rows.numpy() @ found.weight + found.bias, atol=1e-9)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_the_gap_bounds_the_error_of_an_unfinished_search(steps, monkeypatch):
    rows, variance, labels = problem(60, 59)
    best = SoftmaxRidge(rows, variance, labels, everyone(labels), 4).solve(1e-4)
    monkeypatch.setattr(softmax_regression, "ITERATIONS", steps)
    stopped = SoftmaxRidge(rows, variance, labels, everyone(labels), 4).solve(1e-4)
    assert not stopped.converged
    assert stopped.iterations == steps
    assert 0 < stopped.objective - best.objective <= stopped.gap


def test_a_gap_within_the_tolerance_is_what_converged_means():
    rows, variance, labels = problem(60, 59)
    for strength in 10.0 ** -np.arange(1, 9):
        found = SoftmaxRidge(rows, variance, labels, everyone(labels), 4).solve(strength)
        assert found.converged == (found.gap <= TOLERANCE * found.objective)
        assert found.converged


@pytest.mark.parametrize("shape", [(120, 8), (60, 59)])
def test_a_path_gives_what_fresh_solvers_give(shape):
    rows, variance, labels = problem(*shape)
    path = SoftmaxRidge(rows, variance, labels, everyone(labels), 4)
    for strength in 10.0 ** -np.arange(1, 7):
        fresh = SoftmaxRidge(rows, variance, labels, everyone(labels), 4).solve(strength)
        assert path.solve(strength).objective == pytest.approx(fresh.objective, rel=2 * TOLERANCE)


@pytest.mark.parametrize("shape", [(120, 8), (60, 59)])
def test_a_warm_start_leads_to_the_same_optimum(shape):
    rows, variance, labels = problem(*shape)
    chosen = np.arange(len(labels)) % 5 != 0
    start = SoftmaxRidge(rows, variance, labels, chosen, 4).solve(1e-3)
    cold, warm = (
        SoftmaxRidge(rows, variance, labels, everyone(labels), 4, begin).solve(1e-3) for begin in (None, start)
    )
    assert cold.converged
    assert warm.converged
    assert warm.objective == pytest.approx(cold.objective, rel=2 * TOLERANCE)
    np.testing.assert_allclose(warm.weight, cold.weight, atol=1e-3 * np.abs(cold.weight).max())
    assert SoftmaxRidge(rows, variance, labels, everyone(labels), 4, cold).solve(1e-3).iterations == 0


def test_a_warm_start_may_lack_a_class():
    rows, variance, labels = problem()
    start = SoftmaxRidge(rows, variance, labels, labels != 2, 4).solve(1e-3)
    assert np.isneginf(start.bias[2])
    assert np.isneginf(start.scores[:, 2]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warm = SoftmaxRidge(rows, variance, labels, everyone(labels), 4, start).solve(1e-3)
    cold = SoftmaxRidge(rows, variance, labels, everyone(labels), 4).solve(1e-3)
    assert warm.objective == pytest.approx(cold.objective, rel=2 * TOLERANCE)


def test_rows_that_are_not_chosen_play_no_part_and_are_scored():
    rows, variance, labels = problem()
    chosen = np.arange(len(labels)) < 80
    found = SoftmaxRidge(rows, variance, labels, chosen, 4).solve(1e-3)
    alone = SoftmaxRidge(rows[:80], rows[:80].square().mean(dim=0), labels[:80], everyone(labels[:80]), 4).solve(1e-3)
    assert found.objective == pytest.approx(alone.objective, rel=2 * TOLERANCE)
    assert found.scores.shape == (120, 4)
    assert found.objective == pytest.approx(
        written(found.weight, found.bias, rows.numpy()[:80], labels[:80], 1e-3), rel=1e-9
    )


def test_one_class_is_certain():
    rows, variance, labels = problem()
    found = SoftmaxRidge(rows, variance, labels * 0 + 2, everyone(labels), 4).solve(1e-3)
    assert found.objective == 0
    assert found.converged
    assert set(found.scores.argmax(axis=1)) == {2}


def test_rows_without_any_feature_leave_the_classes_shares():
    labels = np.array([0, 0, 0, 1, 2, 2])
    nothing = torch.zeros((6, 0), dtype=torch.float64)
    found = SoftmaxRidge(nothing, nothing.sum(dim=0), labels, everyone(labels), 3).solve(1e-3)
    np.testing.assert_allclose(np.exp(found.bias) / np.exp(found.bias).sum(), [3 / 6, 1 / 6, 2 / 6], rtol=1e-9)
    assert found.converged


@pytest.mark.parametrize("forcing", [0.1, 1e-3])
def test_conjugate_gradients_leave_what_they_are_allowed_to(forcing):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn((30, 30), generator=generator)
    matrix, target = a @ a.T + torch.eye(30), torch.randn((30, 2), generator=generator, dtype=torch.float64)
    solved = conjugate_gradients(lambda v: matrix @ v, target, matrix.diag()[:, None].double(), forcing)
    assert (matrix.double() @ solved - target).norm() <= 1.1 * forcing * target.norm()
