"""A stage as it is trained on a CPU against its modules one after another in float64, and its passes against numpy."""

import copy

import numpy as np
import pytest
import torch
from helpers.networks import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featbench.refinement import host_passes
from featbench.refinement import host_stage as module
from featbench.refinement.host_arrays import Moments, TanhMaps
from featbench.refinement.host_stage import PooledResponse
from featbench.stages.connection_table import draw_connection_table, make_full_table
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.filters import Filters
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.pooling import Pooling
from featbench.stages.specs import PoolingSpec
from featbench.stages.stage import Rectification

NORMS = {
    "none": None,
    "N": {},
    "N3": {"size": 3},
    "N5": {"size": 5},
    "Nz": {"zeros": True},
    "Nsub": {"divisive": False},
    "Ndiv": {"subtractive": False},
    "Ndivz5": {"subtractive": False, "zeros": True, "size": 5},
}


def response_of(maps=1, filters=5, size=3, fan_in=None, *, norm="N3", rectified=True, pool=(4, 2), gain=None, seed=1):
    weight = noise(filters, fan_in or maps, size, size, seed=seed) * (0.7 / size)
    gain = noise(filters, seed=seed + 1) if gain is None else torch.tensor(gain)
    table = make_full_table(maps) if fan_in is None else draw_connection_table(maps, filters, fan_in, seed)
    bank = FilterBank(Filters(weight, gain, 0.3 * noise(filters, seed=seed + 2)), table)
    local = None if NORMS[norm] is None else LocalNormalisation(**NORMS[norm])
    return PooledResponse(bank, TanhGain(gain), rectified, local, PoolingSpec("A", *pool))


def modules_of(response):
    """The same as the modules that it joins, parameters of their own."""
    rectification = [Rectification()] if response.rectified else []
    norm = [] if response.norm is None else [response.norm]
    return copy.deepcopy(nn.Sequential(response.bank, response.tanh, *rectification, *norm, Pooling(response.spec)))


def run(call, parameters, x):
    """Values, and the gradients by maps, weight, bias and gain of a random sum of them."""
    x = x.clone().requires_grad_()
    y = call(x)
    factors = noise(*y.shape, seed=9).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * factors).sum(), [x, *parameters])]


def joined(response, x):
    return run(response, [response.bank.weight, response.bank.bias, response.tanh.gain], x)


def apart(response, x, dtype=torch.float64):
    modules = modules_of(response).to(dtype)
    return run(modules, list(modules.parameters()), x.to(dtype))


def assert_alike(response, x):
    """As near to float64 as the modules come in float32, or nearer than five digits."""
    for found, plain, truth in zip(
        joined(response, x), apart(response, x, torch.float32), apart(response, x), strict=True
    ):
        assert found.shape == truth.shape
        assert found.dtype == torch.float32
        bound = max(1e-5 * truth.norm(), 10 * (plain - truth).norm())
        assert (found - truth).norm() <= bound, (found - truth).norm() / truth.norm()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("pool", [(4, 2), (10, 5), (3, 2), (3, 3), (2, 5), (1, 1)])
def test_values_and_gradients_are_those_of_the_modules(norm, rectified, pool):
    assert_alike(response_of(norm=norm, rectified=rectified, pool=pool), noise(2, 1, 18, 15))


@pytest.mark.parametrize("maps, filters, fan_in", [(3, 4, None), (4, 32, 1), (6, 32, 2), (5, 48, 3), (4, 7, 4)])
@pytest.mark.parametrize("norm", ["none", "N"])
def test_connection_tables_and_several_maps(maps, filters, fan_in, norm):
    assert_alike(response_of(maps, filters, fan_in=fan_in, norm=norm), noise(3, maps, 14, 13))


def test_a_table_that_names_a_map_twice_adds_up_what_comes_back():
    response = response_of(3, 4, fan_in=1)
    response.bank.table.copy_(torch.tensor([[2]]))
    twice = FilterBank(Filters(noise(4, 2, 3, 3, seed=5)), np.array([[2, 2]]))
    assert_alike(response, noise(2, 3, 12, 12))
    assert_alike(PooledResponse(twice, response.tanh, True, response.norm, response.spec), noise(2, 3, 12, 12))


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("norm", ["none", "N", "Nsub", "Ndiv"])
@pytest.mark.parametrize("gain", [[0.0, -0.7, 1.3], [0.0, 0.0, 0.0], [-2.0, -1.0, -0.5]])
def test_gains_of_both_signs_and_zero(rectified, norm, gain):
    assert_alike(response_of(filters=3, norm=norm, rectified=rectified, gain=gain), noise(2, 1, 12, 12))


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(2, 9),
    st.integers(1, 4),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(2, 8), st.integers(2, 8)),
    st.sampled_from(list(NORMS)),
    st.booleans(),
)
def test_any_shape(n, maps, filters, size, pool, more, norm, rectified):
    response = response_of(maps, filters, size, norm=norm, rectified=rectified, pool=pool)
    assert_alike(response, noise(n, maps, *(size - 1 + pool[0] + side for side in more), seed=n))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value, bias", [(0.0, 0.0), (0.0, 0.5), (2.0, 0.0), (2.0, 0.5)])
def test_blank_images_have_finite_gradients_and_leave_their_neighbours_alone(norm, value, bias):
    response = response_of(norm=norm)
    with torch.no_grad():
        response.bank.bias.fill_(bias)
    x = noise(3, 1, 14, 14)
    x[1] = value
    values, by_x, *rest = joined(response, x)
    assert all(bool(torch.isfinite(found).all()) for found in (values, by_x, *rest))
    others = joined(response, x[[0, 2]])
    assert torch.equal(values[[0, 2]], others[0])
    # Of the blank one itself all deviations are equal, so that rounding decides on its gradient.
    plain = apart(response, x, torch.float32)
    assert (values - plain[0]).norm() <= 1e-4 * plain[0].norm()
    assert (by_x - plain[1])[[0, 2]].norm() <= 1e-5 * plain[1][[0, 2]].norm()


@pytest.mark.parametrize("norm", ["none", "N"])
@pytest.mark.parametrize("maps, filters, fan_in", [(1, 64, None), (8, 32, 4)])
def test_an_image_has_the_same_bits_alone_and_in_any_batch(norm, maps, filters, fan_in):
    response, x = response_of(maps, filters, 5, fan_in, norm=norm), noise(6, maps, 30, 31)
    with torch.no_grad():
        alone = torch.cat([response(one) for one in x.split(1)])
        for size in (2, 3, 4, 6):
            assert torch.equal(torch.cat([response(part) for part in x.split(size)]), alone)
    assert torch.equal(response(x).detach(), alone)


@pytest.mark.parametrize("at_once", [1, 2000])
def test_how_many_images_go_back_at_once_does_not_matter(at_once, monkeypatch):
    response, x = response_of(4, 32, fan_in=2), noise(5, 4, 12, 12)
    whole = joined(response, x)
    monkeypatch.setattr(module, "BACKWARD_VALUES", at_once)
    for found, expected in zip(joined(response, x), whole, strict=True):
        assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_gradients_are_followed_for_what_asks_for_them_alone():
    response, x = response_of(), noise(2, 1, 12, 12)
    with torch.no_grad():
        assert not response(x).requires_grad
    response.bank.bias.requires_grad_(False)
    expected = joined(response_of(), x)
    response(x).mul(noise(2, 5, 4, 4, seed=9)).sum().backward()
    assert response.bank.bias.grad is None
    assert x.grad is None
    assert torch.equal(response.bank.weight.grad, expected[2])
    assert torch.equal(response.tanh.gain.grad, expected[4])


@pytest.mark.parametrize("norm", ["none", "N3"])
def test_what_is_not_finite_is_seen(norm):
    response, x = response_of(norm=norm), noise(2, 1, 14, 14)
    x[0, 0, 5, 5] = float("nan")
    values, by_x, by_weight, by_bias, by_gain = joined(response, x)
    assert bool(values[0].isnan().any())
    assert bool(torch.isfinite(values[1]).all())
    assert bool(torch.isfinite(by_x[1]).all())
    assert all(bool(found.isnan().any()) for found in (by_x[0], by_weight, by_bias, by_gain))


# The passes by themselves. Maps t [n, h, w, K]; of 7×8 pixels in cells of 3×3 a row and two columns are left over.

SHAPE, SIDE = (2, 7, 8, 5), 3
CELLS = (2, 2, 2, 5)
GAIN = np.array([0.8, -1.2, 0.0, 0.5, -0.1], dtype=np.float32)


def numbers(*shape, seed=0):
    return noise(*shape, seed=seed).numpy()


def maps():
    t = np.tanh(numbers(*SHAPE))
    t[0, 0, 0] = 0
    return t


def response_to(t, rectified):
    y = GAIN.astype(np.float64) * t
    return np.abs(y) if rectified else y


def spread(cells):
    """Each pixel is given its cell's share, those left over nothing: what averaging over cells does on the way back."""
    out = np.zeros((*SHAPE[:3], *cells.shape[3:]))
    for i in range(CELLS[1] * SIDE):
        for j in range(CELLS[2] * SIDE):
            out[:, i, j] = cells[:, i // SIDE, j // SIDE] / SIDE**2
    return out


def sums(pixels):
    """Average over cells, in loops."""
    out = np.zeros((SHAPE[0], CELLS[1], CELLS[2], *pixels.shape[3:]))
    for i in range(CELLS[1] * SIDE):
        for j in range(CELLS[2] * SIDE):
            out[:, i // SIDE, j // SIDE] += pixels[:, i, j] / SIDE**2
    return out


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rectified", [False, True])
def test_compute_moments(rectified):
    t, mean, square = maps(), np.empty(SHAPE[:3], np.float32), np.empty(SHAPE[:3], np.float32)
    host_passes.compute_moments(TanhMaps(t, GAIN, rectified), Moments(mean, square))
    y = response_to(t, rectified)
    near(mean, y.mean(axis=3))
    near(square, (y**2).mean(axis=3))


@pytest.mark.parametrize("rectified", [False, True])
def test_average_cells(rectified):
    t, r, out = maps(), numbers(*SHAPE[:3], seed=1), np.full(CELLS, np.nan, np.float32)
    host_passes.average_cells(TanhMaps(t, GAIN, rectified), r, SIDE, out)
    near(out, sums(r[..., None] * response_to(t, rectified)))


@pytest.mark.parametrize("rectified", [False, True])
def test_backpropagate_to_reciprocal(rectified):
    t, grad, out = maps(), numbers(*CELLS, seed=2), np.full(SHAPE[:3], np.nan, np.float32)
    host_passes.backpropagate_to_reciprocal(TanhMaps(t, GAIN, rectified), grad, SIDE, out)
    near(out, (spread(grad) * response_to(t, rectified)).sum(axis=3))
    assert not out[:, 6].any()
    assert not out[:, :, 6:].any()


@pytest.mark.parametrize("rectified", [False, True])
def test_backpropagate_to_tanh_argument(rectified):
    t, out = maps(), np.full(SHAPE, np.nan, np.float32)
    r, by_mean, by_square = (numbers(*SHAPE[:3], seed=seed) for seed in (1, 3, 4))
    grad, by_gain = numbers(*CELLS, seed=2), np.ones(5)
    tanh, by_moments = TanhMaps(t, GAIN, rectified), Moments(by_mean, by_square)
    host_passes.backpropagate_to_tanh_argument(tanh, r, grad, SIDE, by_moments, out, by_gain)
    y = response_to(t, rectified)
    each = r[..., None] * spread(grad) + (by_mean[..., None] + 2 * by_square[..., None] * y) / SHAPE[3]
    by_product = each * (np.sign(GAIN * t) if rectified else 1)
    near(out, by_product * GAIN * (1 - t.astype(np.float64) ** 2))
    near(by_gain - 1, (by_product * t).sum(axis=(0, 1, 2)))


@pytest.mark.parametrize("rectified", [False, True])
def test_each_pass_gives_nan_where_it_is_given_nan_and_nowhere_else(rectified):
    t, r = maps(), np.ones(SHAPE[:3], np.float32)
    t[1, 2, 4, 3] = np.nan
    mean, square, pulled = (np.empty(SHAPE[:3], np.float32) for _ in range(3))
    cells, pushed = np.empty(CELLS, np.float32), np.empty(SHAPE, np.float32)
    by_gain, grad = np.zeros(5), np.ones(CELLS, np.float32)
    tanh = TanhMaps(t, GAIN, rectified)
    host_passes.compute_moments(tanh, Moments(mean, square))
    host_passes.average_cells(tanh, r, SIDE, cells)
    host_passes.backpropagate_to_reciprocal(tanh, grad, SIDE, pulled)
    host_passes.backpropagate_to_tanh_argument(tanh, r, grad, SIDE, Moments(r, r), pushed, by_gain)
    for found in (mean, square, pulled):
        assert np.argwhere(np.isnan(found)).tolist() == [[1, 2, 4]]
    assert np.argwhere(np.isnan(cells)).tolist() == [[1, 0, 1, 3]]
    assert np.argwhere(np.isnan(pushed)).tolist() == [[1, 2, 4, 3]]
    assert np.argwhere(np.isnan(by_gain)).tolist() == [[3]]


def test_a_gradient_that_is_nan_stays_so():
    t, r, grad = maps(), np.ones(SHAPE[:3], np.float32), np.ones(CELLS, np.float32)
    grad[0, 1, 1, 2] = np.nan
    pulled, pushed, by_gain = np.empty(SHAPE[:3], np.float32), np.empty(SHAPE, np.float32), np.zeros(5)
    tanh = TanhMaps(t, GAIN, True)
    host_passes.backpropagate_to_reciprocal(tanh, grad, SIDE, pulled)
    host_passes.backpropagate_to_tanh_argument(tanh, r, grad, SIDE, Moments(r, r), pushed, by_gain)
    inside = np.zeros(SHAPE[:3], bool)
    inside[0, 3:6, 3:6] = True
    assert np.array_equal(np.isnan(pulled), inside)
    assert np.array_equal(np.isnan(pushed).any(axis=3), inside)
    assert np.isnan(by_gain).tolist() == [False, False, True, False, False]
