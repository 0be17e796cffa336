"""Codes of local vectors against their formulas, one vector at a time."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from sklearn.metrics import pairwise_distances

from featbench.errors import FeatureError, LearningError
from featbench.features.coding import TOLERANCE, Codebook, Coding
from featbench.sparse import active_descent, feature_sign, learn_dictionary


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """So few updates that dictionaries take no time."""
    monkeypatch.setattr("featbench.features.coding.learn_dictionary", partial(learn_dictionary, updates=30))


def gaussian(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def book(kind, words=12, d=6, seed=1, spread=1.0, **parameters):
    found = gaussian(words, d, seed=seed)
    return Codebook(Coding(kind, **parameters), found / found.norm(dim=1, keepdim=True), spread)


def squared(x, words):
    return pairwise_distances(x.double().numpy(), words.double().numpy(), metric="sqeuclidean")


def test_hard_codes_mark_the_nearest_word():
    codebook, x = book("hard"), gaussian(5000, 6)
    codes = codebook.code(x)
    assert codes.dtype == torch.float32
    assert np.array_equal(codes.numpy(), np.eye(12)[squared(x, codebook.words).argmin(axis=1)])


@pytest.mark.parametrize("softness", [0.1, 0.5, 3.0])
def test_soft_codes_are_the_formula_and_sum_to_one(softness):
    codebook, x = book("soft", softness=softness, spread=0.7), gaussian(200, 6)
    distances = squared(x, codebook.words)
    expected = np.exp(-(distances - distances.min(axis=1, keepdims=True)) / (2 * (softness * 0.7) ** 2))
    expected /= expected.sum(axis=1, keepdims=True)
    codes = codebook.code(x)
    np.testing.assert_allclose(codes, expected, atol=2e-4 if softness == 0.1 else 1e-5)
    np.testing.assert_allclose(codes.sum(dim=1), 1, atol=1e-6)


@pytest.mark.parametrize("distance", [0.0, 1.0, 100.0])
def test_soft_codes_without_width_are_hard_ones(distance):
    codebook = book("soft", spread=0.0)
    x = codebook.words + distance * gaussian(12, 6, seed=2)
    assert torch.equal(codebook.code(x), book("hard").code(x))


@pytest.mark.parametrize("lam", [0.05, 0.15, 1.0])
def test_sparse_codes_are_the_magnitudes_at_the_minimum_without_a_half(lam, monkeypatch):
    codebook, x = book("sparse", 40, 16, lam=lam), gaussian(60, 16)
    x = x / x.norm(dim=1, keepdim=True)
    y, words = x.double(), codebook.words.double()

    def objective(z):
        return (y - z @ words).square().sum(dim=1) + lam * z.abs().sum(dim=1)

    best = feature_sign(y, words.T, lam / 2, tolerance=1e-10).codes
    signed = active_descent(x, codebook.words.T, lam / 2, tolerance=TOLERANCE).codes
    assert torch.equal(codebook.code(x), signed.abs())
    assert (objective(signed.double()) <= (1 + TOLERANCE) * objective(best)).all()
    monkeypatch.setattr("featbench.features.coding.TOLERANCE", 1e-5)
    torch.testing.assert_close(codebook.code(x).double(), best.abs(), atol=5e-3, rtol=0)


def constrained(x, around, ridge):
    """argmin ‖x - wᵀB‖² + ridge ‖w‖² with Σ w = 1, by the conditions of optimality."""
    k = len(around)
    system = np.zeros((k + 1, k + 1))
    system[:k, :k] = 2 * (around @ around.T + ridge * np.eye(k))
    system[:k, k] = system[k, :k] = 1
    return np.linalg.solve(system, np.append(2 * around @ x, 1))[:k]


@pytest.mark.parametrize("neighbours", [1, 3, 5, 50])
@pytest.mark.parametrize("beta", [1e-4, 1e-1])
def test_llc_codes_solve_the_constrained_least_squares(neighbours, beta):
    codebook, x = book("llc", neighbours=neighbours, beta=beta), gaussian(50, 6)
    codes, words = codebook.code(x).numpy(), codebook.words.double().numpy()
    count = min(neighbours, 12)
    for one, code, distances in zip(x.double().numpy(), codes, squared(x, codebook.words), strict=True):
        nearest = np.argsort(distances)[:count]
        ridge = beta * distances[nearest].sum()  # the trace of the covariance around x
        expected = np.zeros(12)
        expected[nearest] = constrained(one, words[nearest], ridge)
        np.testing.assert_allclose(code, expected, atol=1e-3 * max(1, np.abs(expected).max()))
        assert np.count_nonzero(code) <= count
    np.testing.assert_allclose(codes.sum(axis=1), 1, atol=1e-4)


def test_llc_codes_are_those_of_a_general_solver():
    codebook, x = book("llc", words=5, beta=0.05), gaussian(4, 6)
    words = codebook.words.double().numpy()
    for one, code in zip(x.double().numpy(), codebook.code(x), strict=True):
        ridge = 0.05 * ((words - one) ** 2).sum()
        found = minimize(
            lambda w, one=one, ridge=ridge: ((one - w @ words) ** 2).sum() + ridge * (w @ w),
            np.full(5, 0.2),
            constraints=LinearConstraint(np.ones((1, 5)), 1, 1),
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(code, found.x, atol=1e-4)


def test_llc_codes_do_not_change_with_scale_or_shift():
    codebook, x = book("llc"), gaussian(30, 6)
    changed = Codebook(codebook.coding, 8 * codebook.words + 2, codebook.spread)
    torch.testing.assert_close(changed.code(8 * x + 2), codebook.code(x), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("neighbours", [1, 2, 5])
def test_llc_codes_a_word_by_itself(neighbours):
    codebook = book("llc", neighbours=neighbours)
    np.testing.assert_allclose(codebook.code(codebook.words), np.eye(12), atol=1e-2)


def test_llc_shares_a_vector_between_equal_words():
    words = torch.cat([gaussian(1, 6).expand(3, 6), 50 + gaussian(4, 6)])
    code = Codebook(Coding("llc", neighbours=3), words, 1.0).code(words[:1])
    np.testing.assert_allclose(code[0], [1 / 3] * 3 + [0] * 4, atol=1e-6)


@pytest.mark.parametrize("kind", ["hard", "soft", "sparse", "llc"])
def test_codes_do_not_depend_on_the_batch_and_may_be_none(kind):
    codebook, x = book(kind, 20, 8), gaussian(40, 8)
    together = codebook.code(x)
    assert together.shape == (40, 20)
    torch.testing.assert_close(torch.cat([codebook.code(one) for one in x.split(1)]), together, atol=1e-3, rtol=1e-3)
    assert torch.equal(together, codebook.code(x))


@pytest.mark.parametrize("kind", ["hard", "soft", "sparse", "llc"])
def test_seed_decides_the_codebook(kind):
    x = gaussian(200, 5)
    one, same, other = (Coding(kind).learn(x, 8, seed) for seed in (1, 1, 2))
    assert one.words.shape == (8, 5)
    assert torch.equal(one.words, same.words) and one.spread == same.spread
    assert not torch.equal(one.words, other.words)


def test_words_are_centroids_and_spread_is_their_distance():
    x = gaussian(300, 4)
    codebook = Coding("soft").learn(x, 6, 0)
    distances = squared(x, codebook.words)
    assert codebook.spread == pytest.approx(np.sqrt(distances.min(axis=1).mean()), rel=1e-4)
    for k in range(6):
        np.testing.assert_allclose(codebook.words[k], x[distances.argmin(axis=1) == k].mean(dim=0), atol=1e-5)


def test_words_of_sparse_codes_have_unit_norm():
    words = Coding("sparse").learn(gaussian(200, 5), 8, 0).words
    np.testing.assert_allclose(words.norm(dim=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "firm"}, "coding must be one of hard, soft, sparse, llc, not 'firm'"),
        ({"lam": 0.0}, "lam, softness and beta must be positive"),
        ({"softness": -1.0}, "must be positive"),
        ({"beta": float("nan")}, "must be positive"),
        ({"neighbours": 0}, "neighbours must be at least 1, not 0"),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        Coding(**parameters)


@pytest.mark.parametrize("kind", ["hard", "sparse"])
def test_vectors_that_teach_no_codebook_are_refused(kind):
    coding, x = Coding(kind), gaussian(20, 5)
    with pytest.raises(FeatureError, match="codebook of 30 words is asked for, and there are 20 local vectors"):
        coding.learn(x, 30, 0)
    with pytest.raises(LearningError, match="too few for 3"):
        coding.learn(torch.zeros(20, 5), 3, 0)
    x[3, 2] = torch.nan
    with pytest.raises(FeatureError, match="not finite"):
        coding.learn(x, 4, 0)
