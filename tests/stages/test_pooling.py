import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from featbench.stages.architecture import Architecture
from featbench.stages.pooling import Pooling
from featbench.stages.specs import PoolingSpec

PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
TOKENS = ["PA4/3", "PA10/5", "PM3", "PM4/2", "PL1:3/2", "PL2:4/3", "PL3.5:3", "PX0.5:4/3", "PX4:3/2", "PX40:3"]
OVER_MAPS = ["PFA3/2", "PFM2", "PFM3/1", "PFL2:3/1", "PFX4:4/2"]

reproducible = settings(derandomize=True, deadline=None, database=None, max_examples=40)


def pooling(token):
    return Pooling(Architecture.parse(f"1F1-{token}").stages[0].operations[1])


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def pool_window(values, spec):
    values = [float(value) for value in values]
    if spec.kind == "A":
        return sum(values) / len(values)
    if spec.kind == "M":
        return max(values)
    if spec.kind == "L":
        return (sum(abs(value) ** spec.parameter for value in values) / len(values)) ** (1 / spec.parameter)
    return math.log(sum(math.exp(spec.parameter * value) for value in values) / len(values)) / spec.parameter


def written_pooling(x, spec):
    n, maps, height, width = x.shape

    def starts(side):
        return range(0, side - spec.size + 1, spec.stride)

    if spec.over_maps:
        rows = [
            [[[pool_window(x[i, k : k + spec.size, r, c], spec) for c in range(width)] for r in range(height)]]
            for i in range(n)
            for k in starts(maps)
        ]
        return np.array(rows).reshape(n, -1, height, width)
    return np.array(
        [
            [
                [
                    [pool_window(x[i, k, r : r + spec.size, c : c + spec.size].ravel(), spec) for c in starts(width)]
                    for r in starts(height)
                ]
                for k in range(maps)
            ]
            for i in range(n)
        ]
    )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", [(2, 3, 13, 11), (1, 1, 10, 10)])
@pytest.mark.parametrize("token", TOKENS)
def test_pooling_over_space_equals_the_written_loops(token, shape, dtype, tolerance):
    x = sample(*shape, dtype=dtype)
    module = pooling(token)
    result = module(x)
    assert result.dtype == dtype
    expected = written_pooling(x.double().numpy(), module.spec)
    assert tuple(result.shape) == expected.shape
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("token", OVER_MAPS)
def test_pooling_over_neighbouring_maps_equals_the_written_loops(token, dtype, tolerance):
    x = sample(2, 7, 3, 4, dtype=dtype)
    module = pooling(token)
    expected = written_pooling(x.double().numpy(), module.spec)
    result = module(x)
    assert tuple(result.shape) == expected.shape
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("token", [*TOKENS, *OVER_MAPS])
def test_gradient_of_pooling(token):
    assert gradcheck(pooling(token), sample(1, 4, 10, 11, seed=1).requires_grad_())


@reproducible
@given(st.integers(0, 10_000), st.floats(1e-6, 1e3), st.booleans())
def test_mean_is_at_most_log_mean_exp_is_at_most_maximum(seed, sharpness, over_maps):
    x = 3 * sample(1, 4, 6, 6, seed=seed)
    low, between, high = (
        Pooling(PoolingSpec(kind, 3, 1, parameter, over_maps))(x)
        for kind, parameter in (("A", None), ("X", sharpness), ("M", None))
    )
    assert bool((low <= between + 1e-9).all())
    assert bool((between <= high + 1e-9).all())


@reproducible
@given(st.integers(0, 10_000), st.floats(1, 500), st.booleans())
def test_mean_is_at_most_power_mean_is_at_most_maximum(seed, power, over_maps):
    x = 3 * sample(1, 4, 6, 6, seed=seed).abs()
    low, between, high = (
        Pooling(PoolingSpec(kind, 3, 1, parameter, over_maps))(x)
        for kind, parameter in (("A", None), ("L", power), ("M", None))
    )
    assert bool((low <= between + 1e-9).all())
    assert bool((between <= high + 1e-9).all())


@pytest.mark.parametrize("kind", ["L", "X"])
def test_a_larger_parameter_never_gives_less(kind):
    x = sample(1, 2, 9, 9).abs()
    outputs = [Pooling(PoolingSpec(kind, 3, 3, p))(x) for p in (1.0, 2.0, 5.0, 20.0)]
    for smaller, larger in itertools.pairwise(outputs):
        assert bool((larger >= smaller - 1e-12).all())
        assert bool((larger > smaller + 1e-6).any())


def test_power_one_is_the_average_of_magnitudes():
    x = sample(1, 2, 9, 9)
    np.testing.assert_allclose(pooling("PL1:3/2")(x), pooling("PA3/2")(x.abs()), atol=1e-12)


def test_power_pooling_is_blind_to_signs():
    x = sample(1, 2, 9, 9)
    assert torch.equal(pooling("PL2:3/2")(x), pooling("PL2:3/2")(-x))


def test_limits_of_sharpness_are_average_and_maximum():
    x = sample(1, 2, 9, 9)
    np.testing.assert_allclose(pooling("PX0.0000001:3")(x), pooling("PA3")(x), atol=1e-6)
    np.testing.assert_allclose(pooling("PX100000:3")(x), pooling("PM3")(x), atol=1e-4)


def test_limit_of_the_power_is_the_largest_magnitude():
    x = sample(1, 2, 9, 9)
    np.testing.assert_allclose(pooling("PL100000:3")(x), pooling("PM3")(x.abs()), rtol=1e-4)


@pytest.mark.parametrize("sharpness", [1e-6, 1e-4, 1e-2])
def test_small_sharpness_is_not_drowned_in_rounding(sharpness):
    x = sample(1, 2, 9, 9, dtype=torch.float32)
    module = Pooling(PoolingSpec("X", 3, 3, sharpness))
    np.testing.assert_allclose(module(x), module(x.double()), atol=1e-6)


@pytest.mark.parametrize("power", [2.0, 20.0, 64.0, 500.0])
def test_high_power_does_not_lose_small_values_beside_a_large_one_elsewhere(power):
    x = torch.full((1, 1, 4, 4), 0.1)
    x[0, 0, 0, 0] = 5
    expected = [[5 * 0.25 ** (1 / power), 0.1], [0.1, 0.1]]
    # The other three values of the first window count for 3 (0.1/5)^p, which is nothing from p = 20 on.
    expected[0][0] = 5 * ((1 + 3 * 0.02**power) / 4) ** (1 / power)
    np.testing.assert_allclose(Pooling(PoolingSpec("L", 2, 2, power))(x)[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("token", ["PA3/2", "PM3", "PL2:3/2", "PL64:3", "PX4:3/2", "PFA3/1", "PFL3:2", "PFX4:3/1"])
@pytest.mark.parametrize("value", [0.0, 0.25, 100.0])
def test_constant_maps_keep_their_value(token, value):
    result = pooling(token)(torch.full((1, 4, 7, 7), value))
    np.testing.assert_allclose(result, torch.full_like(result, value), rtol=1e-5)


def test_average_over_ten_every_five_is_five_every_five_then_two_every_one():
    x = sample(1, 3, 135, 135)
    np.testing.assert_allclose(pooling("PA10/5")(x), pooling("PA2/1")(pooling("PA5/5")(x)), atol=1e-12)
    assert pooling("PA10/5")(x).shape[2:] == (26, 26)


def test_pooling_over_maps_mixes_no_positions():
    x = torch.zeros(1, 4, 3, 3)
    x[0, 1, 2, 0] = 8
    result = pooling("PFA2/1")(x)
    assert result.shape == (1, 3, 3, 3)
    assert result[0, :, 2, 0].tolist() == [4, 4, 0]
    assert float(result.sum()) == 8


@pytest.mark.parametrize("token", [*TOKENS, *OVER_MAPS])
@pytest.mark.parametrize("content", ["blank", "constant", "one pixel"])
def test_values_and_gradients_are_finite(token, content):
    x = torch.full((1, 4, 11, 13), 0.3 if content == "constant" else 0.0)
    if content == "one pixel":
        x[0, 0, 0, 0] = 1e-20
    x.requires_grad_()
    y = pooling(token)(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("token", ["PL40:3", "PX40:3"])
def test_large_values_do_not_overflow(token):
    x = torch.full((1, 1, 6, 6), 1e6)
    np.testing.assert_allclose(pooling(token)(x), torch.full((1, 1, 2, 2), 1e6), rtol=1e-5)
