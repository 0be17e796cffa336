"""All four solvers: the same minimum as scikit-learn, the closed forms, and the conditions that a minimum meets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

from featbench.sparse import coordinate_descent, feature_sign, fista, ista
from featbench.sparse.feature_sign import FeatureSign

SOLVERS = [ista, fista, coordinate_descent, feature_sign]
EVERY = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.__name__)


def problem(n, d, m, seed=0, unit=True):
    """Return patches [n, d], smooth as images are, and a dictionary [d, m] of such atoms."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.eye(d, dtype=torch.float64) + 0.5 * torch.diag(torch.ones(d - 1, dtype=torch.float64), 1)
    patches = torch.randn(n, d, generator=generator, dtype=torch.float64) @ smooth
    atoms = smooth.T @ torch.randn(d, m, generator=generator, dtype=torch.float64)
    return patches, atoms / atoms.norm(dim=0) if unit else atoms


def objective(patches, dictionary, codes, lam):
    codes = torch.as_tensor(codes, dtype=torch.float64)
    residual = patches.double() - codes @ dictionary.double().T
    return 0.5 * residual.square().sum(dim=1) + lam * codes.abs().sum(dim=1)


def sklearn_codes(patches, dictionary, lam, positive=False):
    settings = {"fit_intercept": False, "tol": 1e-14, "max_iter": 100_000, "positive": positive}
    model = Lasso(lam / len(dictionary), **settings).fit(dictionary.numpy(), patches.T.numpy())
    return model.coef_.reshape(len(patches), -1)


def agrees(solution, patches, dictionary, lam, positive=False, tolerance=1e-6):
    best = objective(patches, dictionary, sklearn_codes(patches, dictionary, lam, positive), lam)
    found = objective(patches, dictionary, solution.codes, lam)
    assert bool(solution.converged.all())
    assert float((found / best - 1).abs().max()) < tolerance
    assert float((solution.objective / best - 1).abs().max()) < tolerance


@EVERY
@pytest.mark.parametrize("m", [24, 60])
def test_the_minimum_is_that_of_scikit_learn(solver, m):
    patches, dictionary = problem(60, 25, m)
    agrees(solver(patches, dictionary, 0.5), patches, dictionary, 0.5)


@EVERY
def test_nonnegative_codes_are_those_of_scikit_learn(solver):
    patches, dictionary = problem(40, 16, 30)
    solution = solver(patches, dictionary, 0.5, nonnegative=True)
    assert float(solution.codes.min()) >= 0
    agrees(solution, patches, dictionary, 0.5, positive=True)


@EVERY
def test_nonnegative_codes_of_patches_that_no_atom_resembles(solver):
    # The best codes of either sign lie below the optimum that is asked for, and must not pass for it.
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.randn(25, 60, generator=generator, dtype=torch.float64)
    dictionary /= dictionary.norm(dim=0)
    patches = torch.randn(20, 25, generator=generator, dtype=torch.float64)
    solution = solver(patches, dictionary, 0.05, nonnegative=True, iterations=100_000)
    assert float(solution.codes.min()) >= 0
    agrees(solution, patches, dictionary, 0.05, positive=True)


@EVERY
def test_atoms_need_no_unit_norm(solver):
    patches, dictionary = problem(40, 16, 24, unit=False)
    dictionary = dictionary * torch.logspace(-0.4, 0.4, 24, dtype=torch.float64)
    agrees(solver(patches, dictionary, 0.5), patches, dictionary, 0.5)


@EVERY
def test_zero_atoms_get_no_code(solver):
    patches, dictionary = problem(20, 16, 24)
    dictionary[:, [0, 7]] = 0
    start = torch.ones(20, 24, dtype=torch.float64)
    solution = solver(patches, dictionary, 0.5, start=start)
    assert not bool(solution.codes[:, [0, 7]].any())
    agrees(solution, patches, dictionary, 0.5)


@EVERY
def test_a_dictionary_of_zeros_gives_zeros(solver):
    patches = problem(3, 5, 2)[0]
    solution = solver(patches, torch.zeros(5, 4), 0.5)
    assert not bool(solution.codes.any()) and bool(solution.converged.all())


@EVERY
def test_repeated_and_opposite_atoms_are_no_trouble(solver):
    patches, dictionary = problem(40, 12, 10)
    dictionary = torch.cat([dictionary, dictionary, -dictionary[:, :4]], dim=1)
    agrees(solver(patches, dictionary, 0.3), patches, dictionary, 0.3)


@EVERY
def test_repeated_atoms_that_a_start_uses_in_both_signs(solver):
    patches, dictionary = problem(30, 12, 10)
    dictionary = torch.cat([dictionary, dictionary], dim=1)
    start = torch.cat([torch.ones(30, 10), -torch.ones(30, 10)], dim=1).double()
    agrees(solver(patches, dictionary, 0.3, start=start), patches, dictionary, 0.3)


@EVERY
def test_an_orthonormal_dictionary_shrinks(solver):
    patches, atoms = problem(30, 12, 12)
    dictionary = torch.linalg.qr(atoms).Q
    expected = torch.nn.functional.softshrink(patches @ dictionary, 0.7)
    codes = solver(patches, dictionary, 0.7, tolerance=1e-10).codes
    assert torch.allclose(codes, expected, atol=1e-7)


@EVERY
def test_one_atom_and_one_patch(solver):
    patches, dictionary = problem(1, 9, 1, unit=False)
    product = float(patches @ dictionary)
    expected = np.sign(product) * max(abs(product) - 0.1, 0) / float(dictionary.square().sum())
    assert float(solver(patches, dictionary, 0.1, tolerance=1e-10).codes) == pytest.approx(expected, rel=1e-6)


@EVERY
def test_one_pixel(solver):
    codes = solver(torch.tensor([[3.0], [-0.1]]), torch.tensor([[1.0, 2.0]]), 0.5).codes
    assert torch.allclose(codes, torch.tensor([[0.0, 1.375], [0.0, 0.0]]), atol=1e-3)


@EVERY
def test_patches_of_zeros_and_large_lambda_need_no_iteration(solver):
    patches, dictionary = problem(6, 9, 20)
    patches[2] = 0
    largest = float((patches @ dictionary).abs().max())
    solution = solver(patches, dictionary, largest)
    assert not bool(solution.codes.any()) and not bool(solution.iterations.any()) and bool(solution.converged.all())
    solution = solver(patches, dictionary, 0.1)
    assert int(solution.iterations[2]) == 0 and not bool(solution.codes[2].any())


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_have_the_dtype_of_the_patches(solver, dtype):
    patches, dictionary = problem(50, 25, 40)
    solution = solver(patches.to(dtype), dictionary.to(dtype), 0.5)
    assert solution.codes.dtype == dtype and solution.objective.dtype == torch.float64
    agrees(solution, patches.to(dtype).double(), dictionary.to(dtype).double(), 0.5)


@EVERY
def test_arrays_do_as_well_even_if_they_cannot_be_written(solver):
    patches, dictionary = problem(5, 9, 12)
    array = patches.numpy()[::-1]
    array.setflags(write=False)
    expected = solver(patches, dictionary, 0.5).codes.flip(0)
    assert torch.allclose(solver(array, np.asfortranarray(dictionary.numpy()), 0.5).codes, expected, atol=1e-9)


@EVERY
def test_the_optimum_as_start_is_seen_at_once(solver):
    patches, dictionary = problem(30, 16, 40)
    optimum = feature_sign(patches, dictionary, 0.4, tolerance=1e-12).codes
    solution = solver(patches, dictionary, 0.4, start=optimum)
    assert not bool(solution.iterations.any()) and torch.equal(solution.codes, optimum)


@pytest.mark.parametrize("solver", SOLVERS[:3], ids=lambda solver: solver.__name__)
def test_a_near_start_saves_iterations(solver):
    patches, dictionary = problem(50, 16, 40)
    near = feature_sign(patches, dictionary, 0.405).codes
    cold, warm = solver(patches, dictionary, 0.4), solver(patches, dictionary, 0.4, start=near)
    assert int(warm.iterations.sum()) < int(cold.iterations.sum())


@EVERY
def test_a_start_is_left_as_it_was(solver):
    patches, dictionary = problem(5, 9, 12)
    start = torch.ones(5, 12, dtype=torch.float64)
    solver(patches, dictionary, 0.5, start=start)
    assert bool((start == 1).all())


@EVERY
def test_codes_do_not_depend_on_the_batch(solver, monkeypatch):
    patches, dictionary = problem(70, 16, 40)
    together = solver(patches, dictionary, 0.4, tolerance=1e-10).codes
    alone = torch.cat([solver(one, dictionary, 0.4, tolerance=1e-10).codes for one in patches.split(1)[:10]])
    assert torch.allclose(together[:10], alone, atol=1e-5)
    assert torch.equal(together, solver(patches, dictionary, 0.4, tolerance=1e-10).codes)
    monkeypatch.setitem(__import__("featbench.sparse.memory", fromlist=["BLOCK"]).BLOCK, "cpu", 40 * 16)
    blocks = solver(patches, dictionary, 0.4, tolerance=1e-10)
    assert torch.allclose(together, blocks.codes, atol=1e-5) and bool(blocks.converged.all())


@EVERY
def test_what_did_not_converge_says_so(solver):
    patches, dictionary = problem(40, 16, 60)
    solution = solver(patches, dictionary, 0.05, iterations=1, tolerance=1e-12)
    assert not bool(solution.converged.any()) and bool((solution.iterations == 1).all())
    assert bool((solution.gap > 0).all())
    best = feature_sign(patches, dictionary, 0.05, tolerance=1e-12)
    assert bool((solution.objective - solution.gap <= best.objective * (1 + 1e-9)).all())


def test_backtracking_finds_its_step():
    patches, dictionary = problem(50, 16, 40, unit=False)
    agrees(fista(patches, dictionary, 0.5, backtracking=True), patches, dictionary, 0.5)
    positive = fista(patches, dictionary, 0.5, backtracking=True, nonnegative=True)
    agrees(positive, patches, dictionary, 0.5, positive=True)


def test_feature_sign_is_exact():
    patches, dictionary = problem(100, 25, 80)
    solution = feature_sign(patches, dictionary, 0.2)
    assert bool(solution.converged.all())
    gradient = (solution.codes @ dictionary.T - patches) @ dictionary
    used = solution.codes != 0
    assert float((gradient + 0.2 * solution.codes.sign())[used].abs().max()) < 1e-9
    assert float(gradient[~used].abs().max()) < 0.2 + 1e-9


@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_published_search_alone_arrives_too(monkeypatch, nonnegative):
    monkeypatch.setattr(FeatureSign, "_take_primal_dual_step", search_instead)
    patches, dictionary = problem(40, 16, 40)
    agrees(feature_sign(patches, dictionary, 0.3, nonnegative=nonnegative), patches, dictionary, 0.3, nonnegative)


def search_instead(self, point):
    self._take_search_step(point)


@pytest.mark.parametrize("solver", SOLVERS[1:], ids=lambda solver: solver.__name__)
@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 8), st.integers(1, 14), st.floats(0.3, 3), st.integers(0, 10**6), st.booleans()
)
def test_every_solution_meets_the_optimality_conditions(solver, n, d, m, lam, seed, nonnegative):
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(n, d, generator=generator, dtype=torch.float64)
    dictionary = torch.randn(d, m, generator=generator, dtype=torch.float64)
    solution = solver(patches, dictionary, lam, tolerance=1e-8, nonnegative=nonnegative)
    gradient = (solution.codes @ dictionary.T - patches) @ dictionary
    assert bool(solution.converged.all())
    slack = 1e-3 * (1 + float(dictionary.norm()) ** 2)
    above = -gradient if nonnegative else gradient.abs()
    assert float(above.max()) <= lam + slack
    assert float(((gradient + lam * solution.codes.sign()) * solution.codes).abs().max()) <= slack
