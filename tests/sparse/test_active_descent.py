"""The compiled solver against feature-sign search, scikit-learn, closed forms, and itself in other blocks."""

from importlib import import_module

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from featbench.errors import LearningError, UsageError
from featbench.sparse import active_descent, feature_sign


def problem(n, d, m, correlation=0.0, seed=0):
    """Patches and unit atoms; the larger the correlation, the more alike the atoms."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(n, d, generator=generator, dtype=torch.float64)
    atoms = torch.randn(d, m, generator=generator, dtype=torch.float64)
    atoms = atoms + correlation * torch.randn(d, 1, generator=generator, dtype=torch.float64)
    return patches, atoms / atoms.norm(dim=0)


def objective(patches, dictionary, codes, lam):
    codes = torch.as_tensor(codes, dtype=torch.float64)
    residual = patches.double() - codes @ dictionary.double().T
    return 0.5 * residual.square().sum(dim=1) + lam * codes.abs().sum(dim=1)


def is_honest(solution, patches, dictionary, lam, best, tolerance):
    """Objective, gap and convergence are as they are reported, to single precision."""
    found, rounding = objective(patches, dictionary, solution.codes, lam), 3e-6 * patches.double().square().sum(dim=1)
    assert ((solution.objective - found).abs() <= rounding).all()
    assert (found - best <= solution.gap + rounding).all()
    assert (found >= best - 1e-9 * best).all()
    assert torch.equal(solution.converged, solution.gap <= tolerance * solution.objective)


SHAPES = pytest.mark.parametrize(
    ("d", "m", "correlation"), [(25, 10, 0.0), (25, 60, 0.0), (25, 60, 2.0), (12, 100, 0.0), (16, 16, 1.0)]
)


@SHAPES
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_the_minimum_is_that_of_feature_sign(d, m, correlation, tolerance):
    patches, dictionary = problem(30, d, m, correlation)
    solution = active_descent(patches, dictionary, 0.5, tolerance=tolerance)
    best = feature_sign(patches, dictionary, 0.5, tolerance=1e-9).objective
    assert bool(solution.converged.all())
    is_honest(solution, patches, dictionary, 0.5, best, tolerance)


@SHAPES
@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_minimum_is_that_of_scikit_learn(d, m, correlation, nonnegative):
    patches, dictionary = problem(15, d, m, correlation, seed=1)
    solution = active_descent(patches, dictionary, 0.3, tolerance=1e-4, nonnegative=nonnegative)
    model = Lasso(0.3 / d, fit_intercept=False, tol=1e-10, max_iter=100_000, positive=nonnegative)
    codes = model.fit(dictionary.numpy(), patches.T.numpy()).coef_
    assert bool(solution.converged.all())
    assert not nonnegative or float(solution.codes.min()) >= 0
    best = objective(patches, dictionary, codes, 0.3)
    is_honest(solution, patches, dictionary, 0.3, best * (1 - 1e-8), 1e-4)


def test_atoms_need_no_unit_norm():
    patches, dictionary = problem(30, 16, 24)
    dictionary = dictionary * torch.logspace(-1, 1, 24, dtype=torch.float64)
    solution = active_descent(patches, dictionary, 0.5, tolerance=1e-5)
    best = feature_sign(patches, dictionary, 0.5, tolerance=1e-9).objective
    assert bool(solution.converged.all())
    is_honest(solution, patches, dictionary, 0.5, best, 1e-5)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_repeated_opposite_and_zero_atoms_are_no_trouble(nonnegative):
    patches, plain = problem(20, 12, 10)
    dictionary = torch.cat([plain, plain, -plain[:, :4], torch.zeros(12, 3, dtype=torch.float64)], dim=1)
    solution = active_descent(patches, dictionary, 0.3, tolerance=1e-4, nonnegative=nonnegative)
    assert bool(solution.converged.all())
    assert not bool(solution.codes[:, 24:].any())
    once = torch.cat([plain, -plain[:, :4]], dim=1)
    model = Lasso(0.3 / 12, fit_intercept=False, tol=1e-10, max_iter=100_000, positive=nonnegative)
    best = objective(patches, once, model.fit(once.numpy(), patches.T.numpy()).coef_, 0.3)
    is_honest(solution, patches, dictionary, 0.3, best * (1 - 1e-8), 1e-4)


def test_an_orthonormal_dictionary_shrinks():
    patches, atoms = problem(30, 12, 12)
    dictionary = torch.linalg.qr(atoms).Q
    codes = active_descent(patches, dictionary, 0.7, tolerance=1e-5).codes
    expected = torch.nn.functional.softshrink(patches @ dictionary, 0.7).float()
    torch.testing.assert_close(codes, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("patch", "code"), [(3.0, 1.375), (-3.0, -1.375), (0.2, 0.0), (0.0, 0.0)])
def test_one_patch_one_atom_one_pixel(patch, code):
    solution = active_descent(torch.tensor([[patch]]), torch.tensor([[2.0]]), 0.5, tolerance=1e-5)
    assert float(solution.codes) == pytest.approx(code, abs=1e-6)
    assert bool(solution.converged)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_patches_of_zeros_and_large_lambda_need_no_iteration(nonnegative):
    patches, dictionary = problem(6, 9, 20)
    patches[2] = 0
    solution = active_descent(patches, dictionary, float((patches @ dictionary).abs().max()) * 1.001, tolerance=0.0)
    assert not bool(solution.codes.any()) and not bool(solution.iterations.any()) and bool(solution.converged.all())
    torch.testing.assert_close(solution.objective, patches.square().sum(dim=1) / 2)
    assert not bool(active_descent(patches[2:3], dictionary, 0.1, nonnegative=nonnegative).codes.any())
    assert not bool(active_descent(patches, torch.zeros(9, 4), 0.1, nonnegative=nonnegative).codes.any())


@pytest.mark.parametrize("lam", [1e-2, 1e-4])
def test_tiny_lambda_gives_the_least_squares(lam):
    patches, dictionary = problem(10, 20, 8)
    solution = active_descent(patches, dictionary, lam)
    inverse = torch.linalg.inv(dictionary.T @ dictionary)
    expected = (patches @ dictionary) @ inverse
    assert bool(solution.converged.all())
    # The penalty moves them by (DᵀD)⁻¹ λ sign z.
    moved = lam * float(inverse.abs().sum(dim=1).max())
    torch.testing.assert_close(solution.codes.double(), expected, atol=1.1 * moved + 1e-2, rtol=0)


def test_tiny_lambda_where_atoms_are_more_than_pixels_ends_and_stays_finite():
    patches, dictionary = problem(3, 10, 20)
    solution = active_descent(patches, dictionary, 1e-7, iterations=5)
    assert bool(torch.isfinite(solution.codes).all())
    is_honest(solution, patches, dictionary, 1e-7, torch.zeros(3, dtype=torch.float64), 1e-3)


def test_what_did_not_converge_says_so():
    patches, dictionary = problem(20, 16, 60)
    solution = active_descent(patches, dictionary, 0.05, iterations=1, tolerance=1e-6)
    assert not bool(solution.converged.any()) and bool((solution.iterations == 1).all())
    best = feature_sign(patches, dictionary, 0.05, tolerance=1e-9).objective
    is_honest(solution, patches, dictionary, 0.05, best, 1e-6)


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("codes", "objective", "gap"))


def test_blocks_and_threads_play_no_part(monkeypatch):
    patches, dictionary = problem(70, 16, 40)
    together = active_descent(patches, dictionary, 0.2)
    assert same(together, active_descent(patches, dictionary, 0.2))
    module = import_module("featbench.sparse.active_descent")  # the package holds the function under this name
    for block, threads in ((1, 1), (7, 3), (64, 2), (10**6, 4)):
        monkeypatch.setattr(module, "BLOCK", block)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert same(together, active_descent(patches, dictionary, 0.2))
    alone = torch.cat([active_descent(one, dictionary, 0.2).codes for one in patches.split(1)])
    torch.testing.assert_close(alone, together.codes, atol=2e-3, rtol=0)


@pytest.mark.parametrize("convert", [lambda x: x.float(), lambda x: x.numpy(), lambda x: x.T.contiguous().T])
def test_types_and_layouts_play_no_part_and_inputs_are_left_alone(convert):
    patches, dictionary = problem(10, 16, 30)
    given, atoms = convert(patches), convert(dictionary)
    solution = active_descent(given, atoms, 0.3, tolerance=1e-5)
    assert solution.codes.dtype == torch.float32
    assert solution.objective.dtype == solution.gap.dtype == torch.float64
    torch.testing.assert_close(solution.codes, active_descent(patches, dictionary, 0.3, tolerance=1e-5).codes)
    torch.testing.assert_close(torch.as_tensor(given).double(), patches, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_scale_plays_no_part(scale):
    patches, dictionary = problem(20, 16, 30)
    plain, scaled = active_descent(patches, dictionary, 0.3), active_descent(scale * patches, dictionary, 0.3 * scale)
    assert bool(scaled.converged.all())
    torch.testing.assert_close(scaled.codes / scale, plain.codes, atol=1e-2, rtol=1e-2)


PATCHES, DICTIONARY = problem(4, 5, 6)


@pytest.mark.parametrize(
    ("patches", "dictionary", "lam", "options", "error", "message"),
    [
        (PATCHES, DICTIONARY, 0.0, {}, UsageError, "λ must be a finite number above 0"),
        (PATCHES, DICTIONARY, float("inf"), {}, UsageError, "λ must be a finite number above 0"),
        (PATCHES, DICTIONARY.T, 1.0, {}, UsageError, r"\[n, d\] and \[d, m\] with one d"),
        (PATCHES[0], DICTIONARY, 1.0, {}, UsageError, "must be a matrix"),
        (PATCHES[:0], DICTIONARY, 1.0, {}, UsageError, "nothing in it"),
        (PATCHES.int(), DICTIONARY, 1.0, {}, UsageError, "must be float32 or float64"),
        (PATCHES, DICTIONARY, 1.0, {"tolerance": -1.0}, UsageError, "tolerance ≥ 0 and iterations ≥ 1"),
        (PATCHES, DICTIONARY, 1.0, {"tolerance": float("nan")}, UsageError, "tolerance ≥ 0 and iterations ≥ 1"),
        (PATCHES, DICTIONARY, 1.0, {"iterations": 0}, UsageError, "tolerance ≥ 0 and iterations ≥ 1"),
        (PATCHES / 0, DICTIONARY, 1.0, {}, LearningError, "patch 0 is not finite"),
        (PATCHES, DICTIONARY * np.nan, 1.0, {}, LearningError, "atom 0 is not finite"),
        (PATCHES * 1e25, DICTIONARY, 1.0, {}, LearningError, "too large to be squared in single precision"),
        (PATCHES, DICTIONARY * 1e25, 1.0, {}, LearningError, "too large to be squared in single precision"),
    ],
)
def test_what_cannot_be_coded_is_refused(patches, dictionary, lam, options, error, message):
    with pytest.raises(error, match=message):
        active_descent(patches, dictionary, lam, **options)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("featbench.sparse.memory.available_memory", lambda device: 100)
    with pytest.raises(UsageError, match="fewer atoms"):
        active_descent(PATCHES, DICTIONARY, 1.0)
