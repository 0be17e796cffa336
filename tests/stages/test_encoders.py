import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

from featbench.stages.encoders import NONLINEARITIES, FilterBank, Shrinkage, SmoothShrinkage, TanhGain, build_encoder
from featbench.stages.filters import Filters

SHAPES = [(4, 3), (2, 3, 4, 5)]


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


THRESHOLD, SHARPNESS, GAIN = values(0.0, 0.4, 1.3), values(0.5, 3.0, 10.0), values(0.7, -2.0, 0.0)


def written(x, function):
    """Apply a function of map and value to x [n, maps, ...], value by value."""
    out = np.empty(x.shape)
    for index in np.ndindex(*x.shape):
        out[index] = function(index[1], float(x[index]))
    return out


def soft_threshold(threshold, x):
    return math.copysign(max(abs(x) - threshold, 0.0), x)


def smooth(threshold, sharpness, x):
    """Kavukcuoglu et al. 2010, eq. 5, as it is written."""
    inner = math.log(math.exp(sharpness * threshold) + math.exp(sharpness * abs(x)) - 1) / sharpness - threshold
    return math.copysign(inner, x)


@pytest.mark.parametrize("shape", SHAPES)
def test_shrinkage_equals_the_written_loops(shape):
    x = sample(*shape)
    expected = written(x, lambda k, v: soft_threshold(float(THRESHOLD[k]), v))
    np.testing.assert_allclose(Shrinkage(THRESHOLD)(x).detach(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_tanh_with_gain_equals_the_written_loops(shape):
    x = sample(*shape)
    expected = written(x, lambda k, v: float(GAIN[k]) * math.tanh(v))
    np.testing.assert_allclose(TanhGain(GAIN)(x).detach(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_smooth_shrinkage_equals_the_written_loops(shape):
    x = 3 * sample(*shape)
    expected = written(x, lambda k, v: smooth(float(THRESHOLD[k]), float(SHARPNESS[k]), v))
    np.testing.assert_allclose(SmoothShrinkage(THRESHOLD, SHARPNESS)(x).detach(), expected, atol=1e-12)


def test_smooth_shrinkage_in_single_precision():
    x = 3 * sample(50, 3)
    module = SmoothShrinkage(THRESHOLD, SHARPNESS)
    torch.testing.assert_close(module.float()(x.float()).double(), module.double()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sharpness", [30.0, 300.0, 3e4])
def test_smooth_shrinkage_tends_to_the_soft_threshold_as_it_sharpens(sharpness):
    x = torch.linspace(-4, 4, 801, dtype=torch.float64).view(-1, 1).expand(-1, 3)
    soft = Shrinkage(THRESHOLD)(x).detach()
    found = SmoothShrinkage(THRESHOLD, torch.full((3,), sharpness, dtype=torch.float64))(x).detach()
    # Furthest at |x| = θ: log(2 - e^{-βθ}) / β.
    furthest = float((found - soft).abs().max())
    assert 0.3 * math.log(2) / sharpness < furthest <= math.log(2) / sharpness + 1e-12


def test_smooth_shrinkage_without_threshold_leaves_everything_as_it_is():
    x = sample(20, 3)
    torch.testing.assert_close(SmoothShrinkage(torch.zeros(3).double(), SHARPNESS)(x), x)


@pytest.mark.parametrize("module", [Shrinkage(THRESHOLD), SmoothShrinkage(THRESHOLD, SHARPNESS), TanhGain(GAIN)])
def test_they_are_odd_and_pass_through_zero(module):
    x = 3 * sample(20, 3)
    assert torch.equal(module(-x), -module(x))
    assert not module(torch.zeros(2, 3, 4, 4, dtype=torch.float64)).any()
    if not isinstance(module, TanhGain):
        assert bool((module(x).abs() <= x.abs() + 1e-12).all())


def test_smooth_shrinkage_rises_everywhere():
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64).view(-1, 1).expand(-1, 3)
    assert bool((SmoothShrinkage(THRESHOLD, SHARPNESS)(x).diff(dim=0) > 0).all())


def away_from_zero(*shape):
    x = sample(*shape)
    return (x + 0.2 * x.sign()).requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_smooth_shrinkage(shape):
    module = SmoothShrinkage(THRESHOLD, SHARPNESS)

    def run(x, threshold, sharpness):
        return functional_call(module, {"threshold": threshold, "sharpness": sharpness}, (x,))

    threshold, sharpness = values(0.1, 0.4, 1.3).requires_grad_(), SHARPNESS.clone().requires_grad_()
    assert gradcheck(run, (away_from_zero(*shape), threshold, sharpness))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_tanh_and_shrinkage(shape):
    x, threshold, gain = away_from_zero(*shape), values(0.1, 0.15, 0.05).requires_grad_(), GAIN.clone().requires_grad_()
    assert gradcheck(lambda x, t: functional_call(Shrinkage(t.detach()), {"threshold": t}, (x,)), (x, threshold))
    assert gradcheck(lambda x, g: functional_call(TanhGain(g.detach()), {"gain": g}, (x,)), (x, gain))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.3, 1e4])
def test_smooth_shrinkage_overflows_nowhere(size, dtype):
    module = SmoothShrinkage(values(0.0, 1.3, 1e4), values(10.0, 1e3, 1e-2)).to(dtype)
    x = torch.tensor([[size], [-size]], dtype=dtype).expand(2, 3).contiguous().requires_grad_()
    y = module(x)
    y.sum().backward()
    for tensor in (y, x.grad, module.threshold.grad, module.sharpness.grad):
        assert torch.isfinite(tensor).all()
    assert torch.equal(y[0], -y[1])
    if size == 1e4:
        torch.testing.assert_close(y[0, :2].double(), values(1e4, 1e4 - 1.3), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_and_sharpness_that_stray_below_zero_do_no_harm(dtype):
    x = (5 * sample(30, 4)).to(dtype).requires_grad_()
    module = SmoothShrinkage(values(-0.5, -1e3, 0.4, 0.4), values(3.0, 3.0, 0.0, -7.0)).to(dtype)
    y = module(x)
    y.square().sum().backward()
    for tensor in (y, x.grad, module.threshold.grad, module.sharpness.grad):
        assert torch.isfinite(tensor).all()
    # A threshold below zero acts as none; a sharpness that is none as the smoothest, which is all but zero.
    torch.testing.assert_close(y[:, :2], x[:, :2])
    assert bool((y.abs() <= x.abs() + 1e-3).all())


def some_filters(dtype=torch.float64):
    extras = {"threshold": THRESHOLD.repeat(2), "sharpness": SHARPNESS.repeat(2)}
    weight, bias = sample(6, 2, 3, 3, seed=1), sample(6, seed=2)
    return Filters(weight, GAIN.repeat(2), bias, extras)


@pytest.mark.parametrize("table", [np.array([[0, 1]]), np.array([[2, 0], [1, 3]])])
@pytest.mark.parametrize("name", ["tanh", "shrink", "smooth-shrink"])
def test_encoders_by_name_are_filter_bank_bias_and_nonlinearity(name, table):
    filters, x = some_filters(), sample(2, int(table.max()) + 1, 6, 5, seed=3)
    function = {
        "tanh": lambda k, v: float(filters.gain[k]) * math.tanh(v),
        "shrink": lambda k, v: soft_threshold(float(filters.extras["threshold"][k]), v),
        "smooth-shrink": lambda k, v: smooth(
            float(filters.extras["threshold"][k]), float(filters.extras["sharpness"][k]), v
        ),
    }[name]
    expected = written(FilterBank(filters, table)(x).detach().numpy(), function)
    np.testing.assert_allclose(build_encoder(name, filters, table)(x).detach(), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "shrink", "smooth-shrink"])
def test_refinement_finds_the_parameters_of_each_encoder(name):
    filters = some_filters()
    names = {"tanh": {"gain"}, "shrink": {"threshold"}, "smooth-shrink": {"threshold", "sharpness"}}[name]
    encoder = build_encoder(name, filters, np.array([[0, 1]]))
    assert {key.split(".")[-1] for key, _ in encoder.named_parameters()} == {"weight", "bias"} | names
    assert set(NONLINEARITIES) == {"tanh", "shrink", "smooth-shrink"}
    # They are copies: refining one network leaves the filters as they were learned.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    for key, tensor in filters.tensors().items():
        assert torch.equal(tensor, some_filters().tensors()[key])
